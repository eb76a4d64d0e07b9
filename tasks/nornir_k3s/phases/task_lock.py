"""Nornir tasks of single steps run on many hosts at once: all of them are one run, with one lock."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.cluster_lock import TASKS, ClusterLock
from nornir_k3s.run.context import Run
from nornir_k3s.run.restarts import Restarts
from nornir_k3s.run.shared import Shared


class Together:
    """The lock of Nornir tasks on many hosts at once: the first one takes it, the last one lets it go."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._runs: list[Run] = []
        self._scope = ExitStack()
        self._lock: ClusterLock | None = None

    @contextmanager
    def changing(self, run: Run) -> Iterator[ClusterLock]:
        """Keep other runs away from the cluster, as `changing` does."""
        with self._guard:
            if self._lock is None:
                self._lock = self._scope.enter_context(changing(run, TASKS))
            run.lock = lock = self._lock
            self._runs.append(run)
        try:
            yield lock
        finally:
            with self._guard:
                self._runs.pop(next(number for number, one in enumerate(self._runs) if one is run))
                if not any(one is run for one in self._runs):
                    run.lock = None
                if not self._runs:
                    self._lock = None
                    self._scope.close()


_locks: weakref.WeakKeyDictionary[Restarts, Together] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def together(shared: Shared) -> Together:
    """Return the lock of the tasks on this Nornir object and its copies."""
    with _guard:
        return _locks.setdefault(shared.restarts, Together())
