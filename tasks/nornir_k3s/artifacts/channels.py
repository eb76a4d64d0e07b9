"""The newest patch of a minor version: from a folder with releases, or from K3s' channel server or a mirror of it.

Source: docs.k3s.io `upgrades/manual.md` (channels): `CHANNELS/v1.36` redirects to the page of the newest release.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from nornir_k3s import k3s
from nornir_k3s.artifacts.source import version_of
from nornir_k3s.model.settings import Artifacts

CHANNELS = "https://update.k3s.io/v1-release/channels"
TIMEOUT = 5.0  # seconds


def releases(folder: Path) -> list[str]:
    """Return the versions of K3s in a folder: its own, or those that folders in it are named after."""
    if (folder / "k3s").is_file():
        own = version_of(folder / "k3s") or ""
        return [own] if k3s.is_version(own) else []
    below = folder.iterdir() if folder.is_dir() else ()
    return [path.name for path in below if path.is_dir() and k3s.is_version(path.name)]


def newest(artifacts: Artifacts, minor: str) -> str:
    """Return the newest patch of a minor version where that can be asked, or nothing.

    Arguments:
        artifacts: Where the cluster's releases come from.
        minor: `1.36`.
    """
    if artifacts.folder:
        fitting = [one for one in releases(artifacts.folder) if k3s.minor(one) == minor]
        return max(fitting, key=k3s.parse_version, default="")
    channels = artifacts.channels or ("" if artifacts.url else CHANNELS)
    return _asked(f"{channels.rstrip('/')}/v{minor}", minor) if channels else ""


def _asked(url: str, minor: str) -> str:
    import httpx  # noqa: PLC0415 - slow to import, and a folder needs none

    try:
        answer = httpx.get(url, timeout=TIMEOUT, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return ""
    match = re.search(r"/(v[^/?#]+)/?$", unquote(answer.headers.get("location", "")))
    version = match[1] if match else ""
    return version if k3s.is_version(version) and k3s.minor(version) == minor else ""
