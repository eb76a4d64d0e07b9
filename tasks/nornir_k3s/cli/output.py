"""Reports as files."""

from __future__ import annotations

import sys
from pathlib import Path

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write a report; a reader sees the old text or the new one, never half of it. `-` is standard output.

    Arguments:
        mode: Of the file, whatever the umask says.

    Raises:
        UsageError: The file cannot be written.
    """
    if str(path) == "-":
        sys.stdout.write(text + "\n")
        return
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():  # a device, a pipe
            path.write_text(text + "\n")
            return
        atomic_file.write(path, text + "\n", mode=mode)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="choose another file") from None
