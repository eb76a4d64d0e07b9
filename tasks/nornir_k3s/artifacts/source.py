"""K3s' binary, installer and images for the hosts: from a folder or a release, each verified."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nornir_k3s import k3s
from nornir_k3s.artifacts.known_files import KnownFiles
from nornir_k3s.artifacts.release import ARCHITECTURES, INSTALLER, RELEASES, Release, parse_hashes
from nornir_k3s.errors import ArtifactError
from nornir_k3s.model import paths
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.model.urls import shown

if TYPE_CHECKING:
    from nornir_k3s.artifacts.cache import Cache

OnProgress = Callable[[str, int, int | None], None]  # file, bytes so far, all bytes where known


class Source:
    """Where the cluster's files come from, by architecture; each is found and verified once.

    Arguments:
        cluster: Names folder, release or mirror.
        cache: The folder for releases, and for what is known of large files.
        deep: Hash all files, also those that are unchanged since they were hashed.
        compare: Files are only compared: of a release, the published hashes are enough.
        check: Look at a folder now, so that its problems are told before a host is contacted.
    """

    def __init__(
        self, cluster: Cluster, cache: Path, *, deep: bool = False, compare: bool = False, check: bool = True
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._compare = compare
        self._files = KnownFiles(cache / "known-files.json", fresh=deep)
        self._found: dict[str, Bundle] = {}
        if cluster.artifacts.folder and check:
            self._folder(self._place())

    def known(self, arch: str) -> Bundle | None:
        """Return the bundle for an architecture where it was found already."""
        return self._found.get(arch)

    def find(self, arch: str, *, on_progress: OnProgress | None = None, stop: threading.Event | None = None) -> Bundle:
        """Return the verified bundle for an architecture as `uname -m` prints it; a release is downloaded once.

        Raises:
            ArtifactError: It is missing, damaged, another version, or cannot be downloaded.
            Interrupted: The stop event was set.
        """
        if arch not in self._found:
            if self._cluster.artifacts.folder:
                self._found[arch] = self._folder(self._place(), arch)
            else:
                self._found[arch] = self._release(arch, on_progress or (lambda *_: None), stop or threading.Event())
            self._files.save()  # only now: a refused inventory leaves nothing behind
        return self._found[arch]

    def _place(self) -> Path:
        """Return the folder, or the one in it that is named after the version."""
        folder = self._cluster.artifacts.folder or Path()
        own = folder / self._cluster.version
        return own if own.is_dir() and not (folder / "k3s").is_file() else folder

    def _folder(self, folder: Path, arch: str = "") -> Bundle:
        """Use `k3s`, `install.sh`, `images/*.tar*` and, where there, `sha256sum*.txt`; `k3s-arm64` before `k3s`."""
        missing = [f"{folder / name} is missing" for name in ("k3s", INSTALLER) if not (folder / name).is_file()]
        if missing:
            raise ArtifactError("; ".join(missing), hint="put the release's `k3s` and `install.sh` into this folder")
        published = _published(folder)
        binary = folder / f"k3s{ARCHITECTURES[arch][1] if arch in ARCHITECTURES else ''}"
        binary = binary if binary.is_file() else folder / "k3s"
        with suppress(OSError):  # `version_of` reports it; before it is hashed, since this changes the file's ctime
            _make_executable(binary)
        files: dict[Path, str] = {}
        for path in (binary, folder / INSTALLER, *sorted(folder.glob("images/*.tar*"))):
            files[path] = self._files.sha256(path)
            wanted = published.get(path.name, files[path])
            if files[path] != wanted:
                raise ArtifactError(
                    f"{path} is not the published file: its SHA-256 is {files[path]}, published is {wanted}",
                    hint="download it again",
                )
        self._check_version(binary)
        return _bundle(files)

    def _release(self, arch: str, on_progress: OnProgress, stop: threading.Event) -> Bundle:
        # Imported here: the HTTP client takes long to import, and a folder needs none.
        from nornir_k3s.artifacts.cache import Cache  # noqa: PLC0415 - slow to import

        wanted = self._cluster.artifacts
        url = self._cluster.urls.get("artifacts.url")
        release = Release(self._cluster.version, arch, url.reveal() if url else RELEASES)
        # A cache for each source: hashes of one are not trusted for another.
        name = "github" if release.is_upstream else hashlib.sha256(release.source.encode()).hexdigest()[:12]
        cache = Cache(self._cache / name, release, sha256=self._files.sha256)
        hashes_only = not wanted.push or self._compare
        images = wanted.images and wanted.push
        bundle = fetch_release(cache, images=images, hashes_only=hashes_only, on_progress=on_progress, stop=stop)
        if not hashes_only:
            self._check_version(bundle.binary.source)
        return bundle

    def _check_version(self, binary: Path) -> None:
        version, found = self._cluster.version, self._files.get(binary, "version", version_of)
        if found is not None and found != version:
            raise ArtifactError(
                f"{binary} is K3s {found}, the inventory asks for {version}",
                hint="put that version's binary there, or change `version` in the inventory",
            )


def fetch_release(
    cache: Cache, *, images: bool, hashes_only: bool = False, on_progress: OnProgress, stop: threading.Event
) -> Bundle:
    """Return a release, verified against its published hashes.

    Arguments:
        images: With the air-gap images.
        hashes_only: Download no file: for hosts that download it themselves, and to compare.

    Raises:
        ArtifactError: There is no such release, it is not what was published, or it cannot be downloaded or saved.
        Interrupted: The stop event was set.
    """
    release, published = cache.release, cache.hashes(stop)
    names = [release.binary, INSTALLER, *[release.images] * images]
    if missing := [name for name in names if name not in published]:
        where = shown(release.url(release.hashes))
        raise ArtifactError(f"no hash is published for {', '.join(missing)} beside {where}")
    hashes = {name: published[name] for name in names}
    if hashes_only:
        if not hashes[INSTALLER]:
            hashes |= cache.files({INSTALLER: ""}, on_progress=on_progress, stop=stop)
        return _bundle({Path(name): sha256 for name, sha256 in hashes.items()}, release)
    files = cache.files(hashes, on_progress=on_progress, stop=stop)
    return _bundle({cache.folder / name: sha256 for name, sha256 in files.items()})


def _bundle(files: Mapping[Path, str], release: Release | None = None) -> Bundle:
    """Return files with their SHA-256, binary and installer first; the hosts download them where a release is given."""
    targets = [(k3s.BINARY, 0o755), (paths.INSTALLER, 0o755)]
    targets += [(f"{paths.IMAGES}/{path.name}", 0o644) for path in list(files)[2:]]
    binary, installer, *images = (
        Artifact(path, target, sha256, mode, url=release.url(path.name) if release else "")
        for (path, sha256), (target, mode) in zip(files.items(), targets, strict=True)
    )
    return Bundle(binary, installer, tuple(images))


def _published(folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for path in sorted(folder.glob("sha256sum*.txt")):
        try:
            hashes |= parse_hashes(path.read_text(errors="replace"))
        except ArtifactError as error:
            raise ArtifactError(f"{path} is not a list of SHA-256: {error.message}", hint="download it again") from None
    return hashes


def version_of(binary: Path) -> str | None:
    """Return the version a K3s binary reports, or None where this machine cannot run it (another architecture)."""
    try:
        _make_executable(binary)
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    words = output.split()
    return words[2] if len(words) > 2 else None


def _make_executable(binary: Path) -> None:
    if not binary.stat().st_mode & 0o100:
        binary.chmod(binary.stat().st_mode | 0o100)
