"""What is known of large files on the controller: found out once, and believed while the file looks as it did then."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Receipts:
    """What was found out of files, with their size, times and inode then.

    Arguments:
        file: Where it is kept for the next run; one that cannot be read or written is done without.
        fresh: Believe nothing of an earlier run.
    """

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._new = False
        self._known: dict[str, dict[str, Any]] = {} if fresh else _read(file)

    def sha256(self, path: Path) -> str:
        """Return a file's SHA-256 in hex."""
        return str(self.of(path, "sha256", sha256_of))

    def of(self, path: Path, what: str, ask: Callable[[Path], str | None]) -> str | None:
        """Return what `ask` says of a file; what it said of this very file before is not asked again.

        Arguments:
            what: The name of what is asked.
            ask: Gets the path; None is not kept.
        """
        name, looks = str(path.resolve()), _looks(path)
        with self._lock:
            known = self._known.get(name, {})
            if known.get("looks") == looks and isinstance(known.get(what), str):
                return str(known[what])
        answer = ask(path)
        with self._lock:
            if answer is not None and looks == _looks(path):
                same = self._known.get(name, {})
                self._known[name] = {**(same if same.get("looks") == looks else {}), "looks": looks, what: answer}
                self._new = True
        return answer

    def keep(self) -> None:
        """Write down what is new, for the next run."""
        if not self._new:
            return
        self._new = False
        known = {name: entry for name, entry in self._known.items() if os.path.lexists(name)}
        draft = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(known))
            draft.replace(self._file)


def _looks(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    entries = kept.items() if isinstance(kept, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}
