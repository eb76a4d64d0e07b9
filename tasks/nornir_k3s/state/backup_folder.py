"""The folder of backups: a file has its name there when it is whole, and the oldest go."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from nornir_k3s.state import encryption

SUFFIX = ".backup.tar"


def name(cluster: str, created: datetime) -> str:
    """Return the name of a backup's file."""
    return f"{cluster}-{created:%Y%m%dT%H%M%SZ}{SUFFIX}"


def keep(folder: Path, whole: Path, name: str) -> Path:
    """Move a whole file to the folder, also one of another file system: it has its name when it is complete."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f".{name}"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with whole.open("rb") as source, os.fdopen(descriptor, "wb") as file:
            while block := source.read(1 << 20):
                file.write(block)
            file.flush()
            os.fsync(descriptor)
        return draft.rename(folder / name)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def thin_out(folder: Path, cluster: str, kept: int, *, new: str = "") -> list[str]:
    """Remove all but the newest backups of this cluster from the folder, and drafts of killed runs.

    Arguments:
        new: The name of one that stays: a clock that was put back makes it look old.
    """
    pattern = re.compile(
        rf"\.?{re.escape(cluster)}-\d{{8}}T\d{{6}}Z{re.escape(SUFFIX)}({re.escape(encryption.SUFFIX)})?"
    )
    found = sorted((path for path in folder.iterdir() if pattern.fullmatch(path.name)), key=lambda path: path.name)
    drafts = [path for path in found if path.name.startswith(".")]
    old = [path for path in found if path not in drafts][:-kept]
    old = [path for path in old if path.name != new]
    for path in (*drafts, *old):
        path.unlink()
    return [str(path) for path in old]
