"""Folders of files that are not whole yet, or are plain only for a moment; 0700, in the cluster's state folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder(state: Path, name: str) -> Iterator[Path]:
    """Make a folder that goes at the end.

    Raises:
        OSError: It cannot be written.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=state) as path:
        yield Path(path)


def clean(state: Path, name: str, *, keep: Path | None = None) -> None:
    """Remove the folders of this name that killed runs have left; call it while no other run of the kind may be there.

    Arguments:
        keep: One that is in use.
    """
    for old in state.glob(f".{name}.*"):
        if old != keep:
            shutil.rmtree(old, ignore_errors=True)


def private(parent: Path, name: str) -> Path:
    """Make an empty file, 0600."""
    path = parent / name
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path
