"""The images of the air-gap archives: K3s imports what lies in `agent/images`, and the node tells them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from k3s_standin.log import log
from k3s_standin.printers import columns

# K3s reads more kinds of archives than Python's own library does.
_READABLE = (".tar", ".tar.gz", ".tgz")


def found(agent: Path) -> list[dict[str, Any]]:
    """Return the images of all archives, as a node's status names them."""
    images: dict[str, int] = {}
    for path in sorted((agent / "images").glob("*")):
        if path.name.endswith(_READABLE):
            images |= dict.fromkeys(_names(path), path.stat().st_size)
    return [{"names": [name], "sizeBytes": size} for name, size in sorted(images.items())]


def load(agent: Path) -> list[dict[str, Any]]:
    """Import them at a start: say so, and return them."""
    images = found(agent)
    if images:
        log("info", f"Imported images from {agent}/images", images=len(images))
    return images


def _names(path: Path) -> list[str]:
    try:
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            entries = json.load(manifest) if manifest else []
    except (tarfile.TarError, OSError, KeyError, ValueError) as error:
        log("error", f"failed to process image file: failed to import images from {path}: {error}")
        return []
    return [_full(name) for entry in entries for name in entry.get("RepoTags") or []]


def _full(name: str) -> str:
    head = name.split("/")[0]
    if "/" not in name:
        return f"docker.io/library/{name}"
    return name if "." in head or ":" in head else f"docker.io/{name}"


def table(agent: Path) -> str:
    """Return what `crictl images` prints."""
    rows = [["IMAGE", "TAG", "IMAGE ID", "SIZE"]]
    for image in found(agent):
        name, _, tag = image["names"][0].rpartition(":")
        rows.append([name, tag, hashlib.sha256(name.encode()).hexdigest()[:13], f"{image['sizeBytes'] / 1e6:.3g}MB"])
    return columns(rows)
