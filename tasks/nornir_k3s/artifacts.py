"""K3s binary, installer and images: taken from a folder, verified, staged on the hosts by content."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nornir_k3s import k3s
from nornir_k3s.cluster import Cluster
from nornir_k3s.errors import ArtifactError
from nornir_k3s.secret import Secret
from nornir_k3s.spec import Artifact

HOST_FOLDER = "/var/lib/nornir-k3s"
INSTALLER = f"{HOST_FOLDER}/install.sh"


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """One release of K3s on the controller, verified.

    Arguments:
        binary: `k3s`.
        installer: `install.sh`.
        images: Image archives, none where hosts can pull.
    """

    binary: Artifact
    installer: Artifact
    images: tuple[Artifact, ...] = ()

    @property
    def installer_path(self) -> str:
        """Where the installer lies on a host."""
        return self.installer.path

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return everything a node needs."""
        return (self.binary, self.installer, *self.images)

    @staticmethod
    def datastore_file(cluster: Cluster, setting: str) -> Secret:
        """Return the content of a TLS file of the external datastore.

        Raises:
            ArtifactError: It cannot be read.
        """
        path: Path = getattr(cluster.datastore, setting.removeprefix("datastore-"))
        try:
            return Secret(path.read_text())
        except OSError as error:
            raise ArtifactError(f"{setting}: {path} cannot be read: {error.strerror}") from None


def from_folder(folder: Path, *, version: str) -> Bundle:
    """Return the verified bundle in a folder: `k3s`, `install.sh`, `images/*.tar*` and, where there, `sha256sum-*.txt`.

    Arguments:
        folder: Where the files are.
        version: The version the cluster asks for.

    Raises:
        ArtifactError: A file is missing, has another hash than the published one, or is another version.
    """
    problems = [f"{folder / name} is missing" for name in ("k3s", "install.sh") if not (folder / name).is_file()]
    if problems:
        raise ArtifactError("; ".join(problems), hint="put the release's `k3s` and `install.sh` into this folder")
    published = _published(folder)
    paths = {folder / "k3s": k3s.BINARY, folder / "install.sh": INSTALLER}
    paths |= {path: f"{k3s.DATA}/agent/images/{path.name}" for path in sorted(folder.glob("images/*.tar*"))}
    found = []
    for path, target in paths.items():
        digest = sha256_of(path)
        wanted = published.get(path.name, digest)
        if digest != wanted:
            raise ArtifactError(
                f"{path} is not the published file: its SHA-256 is {digest}, published is {wanted}",
                hint="download it again",
            )
        found.append(Artifact(path, target, digest, 0o644 if path.parent.name == "images" else 0o755))
    _check_version(folder / "k3s", version)
    return Bundle(found[0], found[1], tuple(found[2:]))


def _published(folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for sums in folder.glob("sha256sum*.txt"):
        for line in sums.read_text().splitlines():
            digest, _, name = line.partition(" ")
            hashes[Path(name.strip().lstrip("*")).name] = digest
    return hashes


def version_of(binary: Path) -> str | None:
    """Return the version a K3s binary says it is, or None where this machine cannot run it (another architecture)."""
    try:
        binary.chmod(binary.stat().st_mode | 0o100)
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    words = said.split()
    return words[2] if len(words) > 2 else None


def _check_version(binary: Path, version: str) -> None:
    found = version_of(binary)
    if found is not None and found != version:
        raise ArtifactError(
            f"{binary} is K3s {found}, the inventory asks for {version}",
            hint="put that version's binary there, or change `version` in the inventory",
        )
