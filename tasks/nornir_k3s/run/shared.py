"""Shared: what Nornir tasks of single steps share on one Nornir object and its filtered copies."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.inventory import Host, Hosts, Inventory
from nornir.core.task import Task

from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.report import HostReport
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather, paths, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.run.restarts import Restarts

AGAIN = 30.0  # seconds; the tasks of one run on many hosts begin together, and need not ask each


class _Family:
    """What a Nornir object and its filtered copies share."""

    def __init__(self) -> None:
        self.facts: dict[str, HostFacts] = {}
        self.hosts: dict[str, Host] = {}
        self.restarts = Restarts()


class Shared:
    """The run of one Nornir object, and what it shares with copies of it."""

    def __init__(self, run: Run, family: _Family) -> None:
        run.facts = family.facts
        self.run = run
        self.restarts = family.restarts
        self._hosts = family.hosts
        self._first = run.first
        self._reached, self._asked = set[str](), 0.0  # when hosts were last asked for secrets

    def begin(self) -> None:
        """Do what comes before the first host is contacted, while other tasks wait.

        Where a host did not answer that may have the cluster's secrets, all are asked again when one more is reached,
        and after a while.
        """
        with _creating:
            new = set(self.run.sessions) - self._reached
            if self.run.unsure and (new or time.monotonic() - self._asked > AGAIN):
                self.run.unsure, self.run.first = "", self._first
                self.run.down.clear()
            if self.run.first:
                self.run.begin()
                self._reached, self._asked = set(self.run.sessions), time.monotonic()
            if not self.run.unsure:
                take_back.settle(self.run)

    def whole(self, task: Task) -> Run:
        """Return a run that reaches all hosts which this Nornir object and its copies have, also those filtered out.

        The change of one host may need others: load balancers, and servers that are asked.
        """
        run, inventory = self.run, task.nornir.inventory
        known = Inventory(hosts=Hosts(self._hosts), groups=inventory.groups, defaults=inventory.defaults)
        runner = K3sRunner(stop=getattr(task.nornir.runner, "stop", None))
        nr = Nornir(inventory=known, config=task.nornir.config, data=task.nornir.data, runner=runner)
        hosts = {m.name: HostReport(role=m.role, roles=list(m.roles)) for m in run.cluster.members}
        away = frozenset(m.name for m in run.cluster.members if m.name not in self._hosts)
        report = run.report.model_copy(update={"hosts": hosts, "notes": []})
        whole = replace(run, nr=nr, report=report, away=away, limit=None, failed=[], still_cordoned={})
        return replace(whole, left_out=set(), ready_again=set(), draining=set(), uncordoned=set())


_shared_by_nornir: weakref.WeakKeyDictionary[Nornir, Shared] = weakref.WeakKeyDictionary()
_families: dict[int, _Family] = {}
_creating = threading.Lock()


def _family(nr: Nornir) -> _Family:
    """Return the family of a Nornir object; its copies have its groups, and only these can be referred to weakly."""
    groups = nr.inventory.groups
    if id(groups) not in _families:
        _families[id(groups)] = _Family()
        weakref.finalize(groups, _families.pop, id(groups), None)
    return _families[id(groups)]


def forget(shared: Shared) -> None:
    """Have later tasks begin anew: what the controller has saved is another one now."""
    with _creating:
        for nr, one in list(_shared_by_nornir.items()):
            if one.restarts is shared.restarts:
                del _shared_by_nornir[nr]
        shared.run.facts.clear()


def of(task: Task, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None) -> Shared:
    """Return what this task shares with others.

    Raises:
        UsageError: The inventory or an option is wrong.
    """
    with _creating:
        shared = _shared_by_nornir.get(task.nornir)
        if shared is None:
            folders = paths.of(task.nornir, base, state)
            run = gather.prepare(task.nornir, base=folders.base, state=folders.state, options=options or {})
            run.nr = weakref.proxy(task.nornir)  # a reference to its own key would keep the entry for ever
            family = _family(task.nornir)
            family.hosts.update(task.nornir.inventory.hosts)
            shared = _shared_by_nornir[task.nornir] = Shared(run, family)
        return shared
