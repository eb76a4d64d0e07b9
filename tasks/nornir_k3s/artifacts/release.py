"""The files of a K3s release: their names, URLs and published hashes.

Sources: docs.k3s.io `installation/airgap.md`; k3s `install.sh` (`setup_verify_arch`, `download_hash`), whose own hash
lies beside it as `install.sh.sha256sum`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from nornir_k3s.errors import ArtifactError
from nornir_k3s.k3s import parse_version
from nornir_k3s.model.urls import shown

RELEASES = "https://github.com/k3s-io/k3s/releases/download"
# The installer is a file of the source, not one of the release.
SOURCES = "https://raw.githubusercontent.com/k3s-io/k3s"
INSTALLER, INSTALLER_HASH = "install.sh", "install.sh.sha256sum"
# What `uname -m` prints: the release's name for it, and what is appended to the binary's name.
ARCHITECTURES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "-arm64"), "armv7l": ("arm", "-armhf")}

_HASH_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S+)")


@dataclass(frozen=True)
class Release:
    """One version of K3s for one architecture.

    Arguments:
        version: As `v1.34.9+k3s1`.
        arch: As `uname -m` prints it.
        source: What precedes the version in a URL; a mirror has `install.sh` and its hash beside the other files.

    Raises:
        ArtifactError: There can be no such version, architecture or URL.
    """

    version: str
    arch: str
    source: str = RELEASES

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        try:
            parse_version(self.version)
        except ValueError as error:
            raise ArtifactError(str(error), hint="change `version` in the inventory") from None
        if self.arch not in ARCHITECTURES:
            raise ArtifactError(f"K3s is not released for {self.arch}", hint=f"it is for {', '.join(ARCHITECTURES)}")
        try:
            parts = urlsplit(self.source)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or re.search(r"[?#\s\x00-\x1f]", self.source):
            raise ArtifactError(
                f"{shown(self.source)} is not a URL to fetch K3s from",
                hint=f"give one with http:// or https://, a host and no query, as {RELEASES}",
            )

    @property
    def is_upstream(self) -> bool:
        """Whether it comes from where K3s is released; a mirror may have no hash of the installer."""
        return self.source.rstrip("/") == RELEASES

    @property
    def binary(self) -> str:
        """The binary's name."""
        return f"k3s{ARCHITECTURES[self.arch][1]}"

    @property
    def images(self) -> str:
        """The name of the archive with the air-gap images."""
        return f"k3s-airgap-images-{ARCHITECTURES[self.arch][0]}.tar.zst"

    @property
    def hashes(self) -> str:
        """The name of the list with the SHA-256 of both."""
        return f"sha256sum-{ARCHITECTURES[self.arch][0]}.txt"

    def url(self, name: str) -> str:
        """Return a file's URL; it may hold user and password: show `shown(url)`."""
        base = SOURCES if self.is_upstream and name in (INSTALLER, INSTALLER_HASH) else self.source.rstrip("/")
        return f"{base}/{quote(self.version, safe='')}/{name}"


def parse_hashes(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file, by name, from the output of `sha256sum`.

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
