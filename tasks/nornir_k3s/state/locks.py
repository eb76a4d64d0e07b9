"""Turns: a deploy has a cluster for itself; a drift check waits for nobody, and gives way to a deploy.

The locks are files in the cluster's state folder on the controller, held by the process and gone with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nornir_k3s.errors import Busy, UsageError

_DEPLOY, _DRIFT = "deploy.lock", "drift.lock"


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Have the cluster for oneself while it is changed.

    Raises:
        Busy: Another deploy from this controller is at work on it.
        UsageError: The folder cannot be written.
    """
    with _held(folder / _DEPLOY, f"another deploy of {folder.name} is at work"):
        yield


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Read the cluster while no deploy from this controller changes it; no two checks at the same time.

    Raises:
        Busy: A deploy is, or another check is, at work; or a deploy began meanwhile, and what was read means nothing.
        UsageError: The folder cannot be written.
    """
    with _held(folder / _DRIFT, f"another drift check of {folder.name} is at work"):
        before = _deploys(folder)
        yield
        if _deploys(folder) != before:
            raise Busy(f"a deploy of {folder.name} began meanwhile", hint="run it again when that has ended")


def _deploys(folder: Path) -> int:
    """Return when the last deploy began."""
    path = folder / _DEPLOY
    if not path.exists():
        return 0
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"a deploy of {folder.name} is at work", hint="run it again when that has ended") from None
        return os.fstat(file.fileno()).st_mtime_ns


@contextlib.contextmanager
def _held(path: Path, taken: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be written: {error.strerror}", hint="see `state`") from None
    with os.fdopen(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(taken, hint="wait until it has ended") from None
        os.utime(file.fileno())
        yield
