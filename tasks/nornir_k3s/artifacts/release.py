"""The layout of a K3s release: which file lies under which name and URL, and which hash is published for it.

Sources: docs.k3s.io `installation/airgap.md`; k3s `install.sh` (`setup_verify_arch`, `download_hash`), whose own hash
lies beside it as `install.sh.sha256sum`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from nornir_k3s.errors import ArtifactError
from nornir_k3s.k3s import parse_version

RELEASES = "https://github.com/k3s-io/k3s/releases/download"
# The installer is a file of the source, not one of the release.
SOURCES = "https://raw.githubusercontent.com/k3s-io/k3s"
# What `uname -m` says: the release's name for it, and what is appended to the binary's name.
ARCHITECTURES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "-arm64"), "armv7l": ("arm", "-armhf")}

_HASH_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S+)")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a release.

    Arguments:
        version: Of which release.
        name: What it is called there, and in the cache.
        url: Where it is; may hold user and password, so show `shown(url)`.
    """

    version: str
    name: str
    url: str


@dataclass(frozen=True)
class Release:
    """The files of one version for one architecture.

    Arguments:
        binary: K3s itself.
        images: The air-gap images.
        hashes: The published SHA-256 of both.
        installer: `install.sh` of the same version.
        installer_hash: Its published SHA-256.
        installer_hash_required: False for a mirror, which may have none.
    """

    binary: RemoteFile
    images: RemoteFile
    hashes: RemoteFile
    installer: RemoteFile
    installer_hash: RemoteFile
    installer_hash_required: bool


def layout(version: str, arch: str, *, url: str = RELEASES) -> Release:
    """Return where the files of a release are.

    Arguments:
        version: As `v1.34.9+k3s1`.
        arch: As `uname -m` says.
        url: What is in front of the version; a mirror keeps `install.sh` and `install.sh.sha256sum` beside the others.

    Raises:
        ArtifactError: There can be no such version, architecture or URL.
    """
    try:
        parse_version(version)
    except ValueError as error:
        raise ArtifactError(str(error), hint="change `version` in the inventory") from None
    if arch not in ARCHITECTURES:
        raise ArtifactError(f"K3s is not released for {arch}", hint=f"it is for {', '.join(ARCHITECTURES)}")
    base = checked(url).rstrip("/")
    upstream = base == RELEASES
    name, suffix = ARCHITECTURES[arch]

    def file(name: str, base: str = base) -> RemoteFile:
        return RemoteFile(version, name, f"{base}/{quote(version, safe='')}/{name}")

    return Release(
        binary=file(f"k3s{suffix}"),
        images=file(f"k3s-airgap-images-{name}.tar.zst"),
        hashes=file(f"sha256sum-{name}.txt"),
        installer=file("install.sh", SOURCES if upstream else base),
        installer_hash=file("install.sh.sha256sum", SOURCES if upstream else base),
        installer_hash_required=upstream,
    )


def checked(url: str) -> str:
    """Return a URL that files can be fetched from.

    Raises:
        ArtifactError: It is not `http://` or `https://` with a host, or has a query or fragment no name can follow.
    """
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or set(url) & set("?#") or re.search(r"[\s\x00-\x1f]", url):
        raise ArtifactError(
            f"{shown(url)} is not a URL to fetch K3s from",
            hint=f"give one with http:// or https://, a host and no query, as {RELEASES}",
        )
    return url


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user, password, query and fragment."""
    # Greedy up to the last @, and first: a password may hold @, / or #, and this is also for URLs that cannot be read.
    return re.split(r"[?#]", re.sub(r"(?s)^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", r"\1", url), maxsplit=1)[0]


def parse_hashes(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file, by name, from what `sha256sum` writes.

    Raises:
        ArtifactError: It is something else, such as the page of a proxy.
    """
    hashes: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _HASH_LINE.fullmatch(line)
        if not match:
            raise ArtifactError(f"this is not a line of a sha256sum file: {line[:80]!r}")
        hashes[match[2].rpartition("/")[2]] = match[1].lower()
    if not hashes:
        raise ArtifactError("it holds no hash")
    return hashes
