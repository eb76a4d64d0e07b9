"""Where things are on a host. A test may move `/etc/rancher` away with `K3S_STANDIN_ETC`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ETC = Path(os.environ.get("K3S_STANDIN_ETC", "/etc/rancher"))
CONFIG = ETC / "k3s" / "config.yaml"
KUBECONFIG = ETC / "k3s" / "k3s.yaml"
NODE_PASSWORD = ETC / "node" / "password"
NODE_ID = ETC / "node" / "id"
DATA = "/var/lib/rancher/k3s"


def data_dir(settings: dict[str, Any]) -> Path:
    """Return the data directory of these settings."""
    return Path(str(settings.get("data-dir") or DATA))


def write(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    """Write a file that has its mode before it has content."""
    data = text.encode() if isinstance(text, str) else text
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)


def folder(path: Path, mode: int = 0o700) -> Path:
    """Make a folder of this mode, and those above it, and return it."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    return path


def link(path: Path, target: Path) -> None:
    """Make or replace a symbolic link."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
