"""The scope that a command changes a cluster in: no other run of this controller, then the lock of the cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nornir_k3s.phases.cluster_lock import ClusterLock
from nornir_k3s.run.context import Run
from nornir_k3s.state import locks

_scopes: dict[Path, tuple[int, ClusterLock]] = {}


@contextmanager
def locked(folder: Path, command: str) -> Iterator[ClusterLock]:
    """Keep other runs away from the cluster: those of this controller from now on, all others before the first change.

    A run that is a part of another one shares its lock.

    Arguments:
        folder: The cluster's state folder.
        command: The subcommand that people know the run by.

    Raises:
        Busy: Another run of this controller changes the cluster.
    """
    thread = threading.get_ident()
    if (scope := _scopes.get(folder)) and scope[0] == thread:
        yield scope[1]
        return
    lock = ClusterLock(command, folder)
    with locks.deploy_lock(folder):
        locks.name_owner(folder, lock.owner)
        _scopes[folder] = thread, lock
        try:
            yield lock
        finally:
            del _scopes[folder]
            lock.release()


@contextmanager
def changing(run: Run, command: str) -> Iterator[ClusterLock]:
    """Keep other runs away from the cluster while this one changes it, as `locked` does.

    Raises:
        Busy: Another run of this controller changes the cluster.
    """
    with locked(run.store.folder, command) as lock:
        before, run.lock = run.lock, lock
        try:
            yield lock
        finally:
            run.lock = before
