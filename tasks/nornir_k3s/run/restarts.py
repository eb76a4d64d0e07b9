"""Restarts: where each host's change is a Nornir task of its own, servers restart one by one, agents in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nornir_k3s.errors import Interrupted, NotReady, OutsideWindow
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.together import few

_HINT = "correct the cause of its failure, then run k3s_facts and k3s_converge on it, and after that on the others"


class Restarts:
    """Who of a cluster's hosts may restart K3s now, whatever the runner."""

    def __init__(self) -> None:
        self.servers = threading.Lock()
        self._agents = threading.Condition()
        self._restarting: set[str] = set()
        self._failed: set[str] = set()
        self._proved: Cluster | None = None  # the desired state that one agent has already

    @contextmanager
    def agent(self, cluster: Cluster, name: str, stop: threading.Event | None) -> Iterator[None]:
        """Wait until this agent may restart: one alone, then as many together as `rolling_update` says.

        Arguments:
            stop: Ends the wait.

        Raises:
            NotReady: The first agent failed, or more of the others did than may.
            Interrupted: It was stopped while it waited.
        """
        with self._agents:
            self.forget(name)
            while not self._free(cluster, name):
                if stop and stop.is_set():
                    raise Interrupted(f"{name}: not started: the run was stopped")
                self._agents.wait(0.2)
            self._restarting.add(name)
        failed = proved = False
        try:
            yield
            proved = True
        except OutsideWindow:
            raise
        except BaseException:
            failed = True
            raise
        finally:
            with self._agents:
                self._restarting.discard(name)
                if failed:
                    self._failed.add(name)
                elif proved:
                    self._proved = cluster
                self._agents.notify_all()

    def forget(self, name: str) -> None:
        """Forget that an agent has failed: it is read or changed again."""
        with self._agents:
            self._failed.discard(name)

    def _free(self, cluster: Cluster, name: str) -> bool:
        count, settings = len(cluster.of("agents")), cluster.rolling_update
        proved = self._proved == cluster
        if len(self._failed) > (settings.failed(count) if proved else 0):
            raise NotReady(name, f"not touched, because {few(sorted(self._failed))} failed", hint=_HINT)
        size = max(1, settings.unavailable(count) - len(self._failed)) if proved else 1
        return len(self._restarting) < size
