"""Files: those of this package, private files, and locks on folders."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from filelock import lock_descriptor

_PACKAGE = Path(__file__).parent


@cache
def package_file(name: str) -> str:
    """Return the text of a data file of this package, by its path below it."""
    return (_PACKAGE / name).read_text()


@cache
def package_files(folder: str) -> tuple[str, ...]:
    """Return the paths of all data files below a folder of this package, relative to that folder."""
    root = _PACKAGE / folder
    return tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()))


def write_private(file: Path, text: str) -> None:
    """Write a file atomically, with mode 0600 from the start; its folder is created when it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        try:
            draft.write(text)
            draft.flush()
            Path(draft.name).replace(file)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def default_umask() -> Iterator[None]:
    """Create files and folders that everybody can read, as hosts need them; private files set their own modes."""
    old = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(old)


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[int]:
    """Hold an exclusive lock on a folder, created when it is missing; the lock ends with the process.

    Arguments:
        folder: The folder.
        say: Takes a line when the lock has to be waited for.

    Yields:
        The lock's file descriptor, for children that must keep the lock when this process is killed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not lock_descriptor(descriptor, blocking=False):
                say(f"waiting for the lock on {folder}: another process holds it")
                lock_descriptor(descriptor)
            # The last holder may have removed the folder: a lock on a removed folder protects nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == folder.stat().st_ino:
                    yield descriptor
                    return
        finally:
            os.close(descriptor)
