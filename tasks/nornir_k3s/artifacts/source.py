"""K3s binary, installer and images: taken from a folder, verified, staged on the hosts by content."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nornir_k3s import k3s
from nornir_k3s.artifacts.receipts import Receipts
from nornir_k3s.artifacts.release import RELEASES, Release, RemoteFile, layout, shown
from nornir_k3s.errors import ArtifactError
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.model.paths import IMAGES, INSTALLER

if TYPE_CHECKING:
    from nornir_k3s.artifacts.cache import Cache

BINARIES = {"aarch64": "k3s-arm64", "armv7l": "k3s-armhf"}
OnProgress = Callable[[str, int, int | None], None]  # file, bytes that are here, bytes of all where that is known


class Source:
    """Where the cluster's artefacts come from, by architecture; each is found and verified once.

    Arguments:
        cluster: Says folder, release or mirror.
        cache: Where releases, and what is known of large files, are kept on the controller.
        deep: Hash all files here, also those that look as they did.
        compare: Files are only compared: of a release, what is published is enough.
    """

    def __init__(self, cluster: Cluster, cache: Path, *, deep: bool = False, compare: bool = False) -> None:
        self._cluster = cluster
        self._cache = cache
        self._compare = compare
        self._receipts = Receipts(cache / "receipts.json", fresh=deep)
        self._found: dict[str, Bundle] = {}
        if cluster.artifacts.folder:
            self._folder(cluster.artifacts.folder)  # what is wrong with it is told first of all

    def known(self, arch: str) -> Bundle | None:
        """Return the bundle for an architecture where it was found already."""
        return self._found.get(arch)

    def find(self, arch: str, *, on_progress: OnProgress | None = None, stop: threading.Event | None = None) -> Bundle:
        """Return the verified bundle for an architecture as `uname -m` says it, fetched where it is not here.

        Raises:
            ArtifactError: It is missing, damaged, another version, or cannot be fetched.
            Interrupted: The stop event was set.
        """
        if arch not in self._found:
            folder = self._cluster.artifacts.folder
            if folder:
                self._found[arch] = self._folder(folder, arch)
            else:
                self._found[arch] = self._release(arch, on_progress, stop or threading.Event())
            self._receipts.keep()  # not before all else was found right: who is refused leaves nothing behind
        return self._found[arch]

    def _folder(self, folder: Path, arch: str = "") -> Bundle:
        return from_folder(folder, version=self._cluster.version, arch=arch, receipts=self._receipts)

    def _release(self, arch: str, on_progress: OnProgress | None, stop: threading.Event) -> Bundle:
        # Imported here: the HTTP client takes long to import, and who has a folder needs none.
        from nornir_k3s.artifacts.cache import Cache  # noqa: PLC0415
        from nornir_k3s.artifacts.fetch import fetch_release  # noqa: PLC0415

        wanted, version = self._cluster.artifacts, self._cluster.version
        url = wanted.url or RELEASES
        # Hashes of one origin are not believed for another.
        folder = self._cache / ("github" if url == RELEASES else hashlib.sha256(url.encode()).hexdigest()[:12])
        cache = Cache(folder, digest=self._receipts.sha256)
        tell = on_progress or (lambda *_: None)
        if not wanted.push or self._compare:
            release = layout(version, arch, url=url)
            return _as_published(release, cache, tell, stop, images=wanted.images and wanted.push)
        found = fetch_release(
            cache, url=url, version=version, arch=arch, images=wanted.images, on_progress=tell, stop=stop
        )
        _check_version(found.binary, version, self._receipts)
        binary, installer, *images = (
            Artifact(path, target, found.hashes[path.name], mode)
            for path, target, mode in (
                (found.binary, k3s.BINARY, 0o755),
                (found.installer, INSTALLER, 0o755),
                *((path, f"{IMAGES}/{path.name}", 0o644) for path in found.images),
            )
        )
        return Bundle(binary, installer, tuple(images))


def _as_published(
    release: Release, cache: Cache, tell: OnProgress, stop: threading.Event, *, images: bool = False
) -> Bundle:
    """Return the bundle as it is published: hosts that fetch it, and who compares only, need no more than hashes."""
    hashes = cache.hashes(release.hashes, stop=stop)
    hashes |= cache.hashes(release.installer_hash, required=release.installer_hash_required, stop=stop)
    if release.installer.name not in hashes:
        path = cache.bring(release.installer, sha256="", on_progress=tell, stop=stop)
        hashes[release.installer.name] = cache.digest(path)

    def artifact(file: RemoteFile, target: str, mode: int = 0o755) -> Artifact:
        if file.name not in hashes:
            raise ArtifactError(f"no hash is published for {file.name} beside {shown(release.hashes.url)}")
        return Artifact(Path(file.name), target, hashes[file.name], mode, url=file.url)

    archives = (artifact(release.images, f"{IMAGES}/{release.images.name}", 0o644),) if images else ()
    return Bundle(artifact(release.binary, k3s.BINARY), artifact(release.installer, INSTALLER), archives)


def from_folder(folder: Path, *, version: str, arch: str = "", receipts: Receipts) -> Bundle:
    """Return the verified bundle in a folder: `k3s`, `install.sh`, `images/*.tar*` and, where there, `sha256sum-*.txt`.

    Arguments:
        folder: Where the files are.
        version: The version the cluster asks for.
        arch: The hosts' architecture: `k3s-arm64` and `k3s-armhf` are used for it where they are there.
        receipts: What is known of the files already.

    Raises:
        ArtifactError: A file is missing, has another hash than the published one, or is another version.
    """
    problems = [f"{folder / name} is missing" for name in ("k3s", "install.sh") if not (folder / name).is_file()]
    if problems:
        raise ArtifactError("; ".join(problems), hint="put the release's `k3s` and `install.sh` into this folder")
    published = _published(folder)
    binary = folder / BINARIES.get(arch, "k3s")
    binary = binary if binary.is_file() else folder / "k3s"
    with suppress(OSError):  # told by `version_of`; before it is hashed, since it looks another file afterwards
        _make_runnable(binary)
    paths = {binary: k3s.BINARY, folder / "install.sh": INSTALLER}
    paths |= {path: f"{IMAGES}/{path.name}" for path in sorted(folder.glob("images/*.tar*"))}
    found = []
    for path, target in paths.items():
        digest = receipts.sha256(path)
        wanted = published.get(path.name, digest)
        if digest != wanted:
            raise ArtifactError(
                f"{path} is not the published file: its SHA-256 is {digest}, published is {wanted}",
                hint="download it again",
            )
        found.append(Artifact(path, target, digest, 0o644 if path.parent.name == "images" else 0o755))
    _check_version(binary, version, receipts)
    return Bundle(found[0], found[1], tuple(found[2:]))


def _published(folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for sums in folder.glob("sha256sum*.txt"):
        for line in sums.read_text().splitlines():
            digest, _, name = line.partition(" ")
            hashes[Path(name.strip().lstrip("*")).name] = digest
    return hashes


def _make_runnable(binary: Path) -> None:
    if not binary.stat().st_mode & 0o100:
        binary.chmod(binary.stat().st_mode | 0o100)


def version_of(binary: Path) -> str | None:
    """Return the version a K3s binary says it is, or None where this machine cannot run it (another architecture)."""
    try:
        _make_runnable(binary)
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    words = said.split()
    return words[2] if len(words) > 2 else None


def _check_version(binary: Path, version: str, receipts: Receipts) -> None:
    found = receipts.of(binary, "version", version_of)
    if found is not None and found != version:
        raise ArtifactError(
            f"{binary} is K3s {found}, the inventory asks for {version}",
            hint="put that version's binary there, or change `version` in the inventory",
        )
