"""The file of a restore: opened, checked, and its dump in a file of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nornir_k3s.errors import UsageError
from nornir_k3s.model.backup import ROWS, Manifest
from nornir_k3s.phases import rows
from nornir_k3s.run.context import Run
from nornir_k3s.state import backup_file, drafts, encryption, restoring
from nornir_k3s.state.restoring import Restoring
from nornir_k3s.workflows import restore_fits as fits


@dataclass(frozen=True)
class Opened:
    """A backup that was checked, plain, and the restore of it; `fit` of one that has rows."""

    path: Path
    manifest: Manifest
    begun: Restoring
    fit: rows.Fit | None = None


def opened(run: Run, file: Path, key: Path | str | None, folder: Path) -> Opened:
    """Return a backup that was checked; the plain text of an encrypted one is in the folder.

    Raises:
        UsageError: It is damaged, or the key is missing or another one.
    """
    path = file
    if encryption.is_encrypted(file):
        if key is None:
            raise UsageError(f"{file} is encrypted", hint="give the private key with --key")
        with writing(folder.parent):
            path = drafts.private(folder, "plain")
        encryption.decrypt(file, path, Path(key))
    manifest = backup_file.check(path)
    sha256 = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    begun = restoring.load(run.store)
    if begun is None or (begun.sha256 != sha256 and not begun.replaced):
        begun = Restoring(sha256)
    elif begun.sha256 != sha256:
        begun = Restoring(sha256, anew=begun.anew)
    return Opened(path, manifest, begun)


def plain_rows(backup: Opened, folder: Path) -> Path:
    """Return the rows in a file of SQLite, which stays in the folder."""
    with writing(folder.parent):
        packed = drafts.private(folder, "packed")
        backup_file.extract(backup.path, ROWS, packed)
        plain = rows.unpack(packed, folder)
        packed.unlink()
    return plain


def extracted(run: Run, backup: Opened, folder: Path) -> Path:
    """Return the dump in a file of its own, before anything changes: the disk may be full.

    Raises:
        UsageError: It cannot be written.
    """
    if fits.has_rows(backup.manifest):
        return folder / rows.PLAIN if backup.fit else plain_rows(backup, folder)
    with writing(folder.parent):
        dump = drafts.private(folder, "dump")
        backup_file.extract(backup.path, fits.dump_part(run, backup.manifest), dump)
    return dump


@contextmanager
def folder_of(state: Path, name: str) -> Iterator[Path]:
    """Make a folder that goes at the end."""
    with ExitStack() as stack:
        with writing(state):
            folder = stack.enter_context(drafts.folder(state, name))
        yield folder


@contextmanager
def writing(state: Path) -> Iterator[None]:
    """Have a disk that is full, or read-only, be an expected error."""
    try:
        yield
    except OSError as error:
        text = f"{state} cannot be written: {error.strerror}"
        raise UsageError(text, hint="nothing was changed: make room there, or see `state`") from None
