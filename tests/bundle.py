"""Fill a folder with K3s for the lab: a real release where there is one, otherwise the stand-in, and say which.

`K3S_BUNDLE` names a folder with a real release (`k3s`, `install.sh`, optional `images/*.tar*`). Without it the release
that the inventory asks for is downloaded where the network allows; where it does not, the stand-in is built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent / "standin"))

PROJECT = Path(__file__).resolve().parent.parent
RELEASES = "https://github.com/k3s-io/k3s/releases/download"
INSTALLER = "https://raw.githubusercontent.com/k3s-io/k3s/{version}/install.sh"


def prepare(folder: Path, *, download: bool, delays: Mapping[str, float] | None = None) -> str:
    """Fill the folder and return in words what is in it; `delays` are the stand-in's, as its README lists them."""
    given = os.environ.get("K3S_BUNDLE")
    if given:
        _copy(Path(given), folder)
        return f"the K3s in {given}"
    version = _version()
    if download and _resolves("github.com"):
        try:
            _download(version, folder)
        except (OSError, urllib.error.URLError, ValueError) as error:
            print(f"K3s {version} cannot be downloaded ({error})")
        else:
            return f"K3s {version}, the official release"
    from build import build  # noqa: PLC0415 - needs PyInstaller, which a real release does not

    build(folder, version=version, delays=delays)
    return f"a STAND-IN for K3s {version} that the tests bring: no containers run in it"


def _version() -> str:
    defaults = YAML(typ="safe").load(PROJECT / "inventory" / "defaults.yaml")
    return str(defaults["data"]["k3s_cluster"]["version"])


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, 443)
    except OSError:
        return False
    return True


def _copy(source: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)


def _download(version: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sums = _get(f"{RELEASES}/{version}/sha256sum-amd64.txt").decode()
    wanted = next(line.split()[0] for line in sums.splitlines() if line.split()[1] == "k3s")
    binary = _get(f"{RELEASES}/{version}/k3s")
    if hashlib.sha256(binary).hexdigest() != wanted:
        raise ValueError("the download is damaged")
    (folder / "k3s").write_bytes(binary)
    (folder / "k3s").chmod(0o755)
    (folder / "install.sh").write_bytes(_get(INSTALLER.format(version=version)))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - https, a constant
        data: bytes = answer.read()
    return data


if __name__ == "__main__":
    target = Path(sys.argv[1])
    from build import SHORT

    delays = SHORT if "--short" in sys.argv else None
    said = prepare(target, download="--no-download" not in sys.argv, delays=delays)
    print(f"bundle: {target} holds {said}", flush=True)
