"""Write a file at once: a reader sees the old content or the new one, never half, whatever ends the process."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write(path: Path, content: str | bytes, *, mode: int | None = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Create or replace a file.

    Arguments:
        path: In a folder that exists; a symbolic link is replaced, not followed.
        content: Text is encoded as UTF-8.
        mode: Permission bits, whatever the umask says; None for those that a new file gets by the umask.
        owner: User and group, by number; ignored where this process must not set them.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    draft = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Nobody else can open a draft that is going to be private, not even for a moment.
    descriptor = os.open(draft, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if owner is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, *owner)
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
