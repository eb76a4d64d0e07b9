"""SHA-256 and version of large files, computed once and remembered while size, times and inode stay the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nornir_k3s import atomic_file


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class KnownFiles:
    """What was computed of files.

    Arguments:
        file: Where it is saved; one that cannot be read or written is ignored.
        fresh: Use nothing of an earlier run.
    """

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        self._file = file
        self._saved: dict[str, Any] = {} if fresh else _read(file)
        self._known = dict(self._saved)

    def sha256(self, path: Path) -> str:
        """Return a file's SHA-256 in hex."""
        return str(self.get(path, "sha256", sha256_of))

    def get(self, path: Path, what: str, compute: Callable[[Path], str | None]) -> str | None:
        """Return what `compute` returns for a file; only None is computed again while the file is unchanged."""
        key, stamp = f"{what} {path.resolve()}", _stamp(path)
        match self._known.get(key):
            case [known, str(answer)] if known == stamp:
                return answer
        computed = compute(path)
        if computed is not None and stamp == _stamp(path):
            self._known[key] = [stamp, computed]
        return computed

    def save(self) -> None:
        """Save what is new for the next run."""
        if self._known != self._saved:
            self._saved = {k: v for k, v in list(self._known.items()) if os.path.lexists(k.partition(" ")[2])}
            with suppress(OSError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_file.write(self._file, json.dumps(self._saved))


def _stamp(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def _read(file: Path) -> dict[str, Any]:
    try:
        saved = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}
