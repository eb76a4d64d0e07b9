"""Locks of one controller: one deploy at a time; a drift check waits for nobody, and gives way to a deploy.

The lock files are in the cluster's state folder on the controller. A lock ends with the process that holds it; its file
stays, so that all processes lock the same one. `phases/cluster_lock.py` keeps other controllers away.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nornir_k3s import atomic_file
from nornir_k3s.errors import Busy, UsageError
from nornir_k3s.model.work import Owner, owner

_DEPLOY, _DRIFT, _OWNER = "deploy.lock", "drift.lock", "deploy.owner"


@contextlib.contextmanager
def deploy_lock(folder: Path) -> Iterator[None]:
    """Keep other deploys from this controller away from the cluster while it is changed.

    Raises:
        Busy: Another deploy is running.
        UsageError: The folder cannot be written.
    """
    with _locked(folder / _DEPLOY, f"another deploy of {folder.name} is in progress"):
        os.utime(folder / _DEPLOY)  # a drift check reads from it that a deploy began
        yield


def name_owner(folder: Path, who: Owner) -> None:
    """Say who has the lock of a deploy; only the run that has it does."""
    atomic_file.write(folder / _OWNER, who.text)


@contextlib.contextmanager
def drift_lock(folder: Path) -> Iterator[None]:
    """Read the cluster while no deploy from this controller changes it; one drift check at a time.

    Raises:
        Busy: A deploy or another check is running, or a deploy began in the meantime: what was read is out of date.
        UsageError: The folder cannot be written.
    """
    with _locked(folder / _DRIFT, f"another drift check of {folder.name} is in progress"):
        before = _last_deploy(folder)
        yield
        if _last_deploy(folder) != before:
            raise Busy(f"a deploy of {folder.name} began meanwhile", hint="run it again when that has ended")


def _last_deploy(folder: Path) -> int:
    """Return when the last deploy began, in nanoseconds; 0 where there was none."""
    path = folder / _DEPLOY
    if not path.exists():
        return 0
    with _locked(path, f"a deploy of {folder.name} is in progress"):
        return path.stat().st_mtime_ns


@contextlib.contextmanager
def _locked(path: Path, taken: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of Nornir tasks, the thread that ends last lets it go.
        held = FileLock(path, mode=0o600, blocking=False, preserve_lock_file=True, thread_local=False).acquire()
    except Timeout:
        who = _owner(path.parent) if path.name == _DEPLOY else None
        raise Busy(f"{taken}: {who}" if who else taken, hint="run it again when that has ended") from None
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be written: {error.strerror}", hint="see `state`") from None
    with held:
        yield


def _owner(folder: Path) -> Owner | None:
    """Return who has the lock of a deploy, if that run has said so already."""
    try:
        return owner((folder / _OWNER).read_text())
    except OSError:
        return None
