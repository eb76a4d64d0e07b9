"""Run: what the phases of one deploy, plan or drift share, and how a phase is carried out on its hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s.artifacts.source import (
    OnProgress,
    Source,
)
from nornir_k3s.errors import HostError, HostsFailed, Interrupted, K3sError
from nornir_k3s.model.bundle import (
    Bundle,
)
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.host_facts import Observed
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.planner import (
    converge,
    stage,
)
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import datastore, load_balancer
from nornir_k3s.roles import server as server_role
from nornir_k3s.ssh.session import Session
from nornir_k3s.state import check_certificate, known_cluster
from nornir_k3s.state.store import Store

DEADLINES = {
    "connect": 60,
    "observe": 60,
    "packages": 900,
    "push": 1800,
    "server": 600,
    "agent": 600,
    "apply": 300,
    "verify": 300,
}
WIDTHS = {"stage": 20, "agents": 10}


@dataclass
class Run:
    """One run over one cluster.

    Arguments:
        nr: The team's Nornir.
        cluster: What must be true.
        source: Where the release of K3s comes from.
        store: Secrets and results on the controller.
        deadlines: Seconds, by kind of work.
        widths: Hosts at the same time, by phase.
    """

    nr: Nornir
    cluster: Cluster
    source: Source
    store: Store
    deadlines: Mapping[str, float]
    widths: Mapping[str, int]
    report: Report
    observed: dict[str, Observed] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)  # servers this run has made right and seen ready
    limit: frozenset[str] | None = None  # the only hosts that may be changed
    away: frozenset[str] = frozenset()  # members that this Nornir does not show
    thread: threading.local = field(default_factory=threading.local)  # `phase`: the one that this thread carries out
    on_progress: OnProgress | None = None
    drift: bool = False  # hosts are asked for what only drift compares, too
    deep: bool = False  # hash every large file
    unread: dict[str, str] = field(default_factory=dict)  # hosts that failed and may, and why

    def member(self, name: str) -> Member:
        """Return the member with this name."""
        return self.cluster.member(name)

    @property
    def ca_prefix(self) -> str:
        """`K10` and the hash of the cluster's CA, from a server; where none was read, as it was the last time."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[0]
        return next((o.ca_prefix for o in self._servers() if o.ca_prefix), "")

    @property
    def ca_cert(self) -> str:
        """The CA of the servers' certificates, PEM; empty before the first server has made it."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[1]
        return next((o.ca_cert for o in self._servers() if o.ca_prefix and o.ca_cert), "")

    def _servers(self) -> Iterable[Observed]:
        seen = [self.observed[m.name] for m in self.of("servers")]
        return sorted(seen, key=lambda o: not o.ready)  # the word of a ready server counts first

    def spec(self, name: str) -> HostSpec:
        """Return what this host must look like, as far as is known now."""
        member = self.member(name)
        if member.role == "datastore":
            known = Observed(name, packages=known_cluster.packages(self.store).get(name, {}))
            return datastore.spec(self.cluster, member, self.observed.get(name, known))
        if member.role == "servers":
            return server_role.spec(self.cluster, member, self.bundle(name))
        if member.role == "agents":
            return agent_role.spec(self.cluster, member, self.bundle(name), self.ca_prefix)
        seen = self.observed.get(name)
        return load_balancer.spec(
            self.cluster,
            member,
            interface=member.interface or (seen.interface_of(member.address) if seen else ""),
            check_pem=check_certificate.load(self.store, self.ca_prefix),
            server_ca=self.ca_cert,
        )

    def bundle(self, name: str) -> Bundle | None:
        """Return the release for this host's architecture; None before the host was observed and the release found."""
        seen = self.observed.get(name)
        return self.source.known(seen.arch) if seen else None

    def steps(self, name: str) -> list[Step]:
        """Return everything that is not yet as it must be on this host."""
        return [*self.stage_steps(name), *self.converge_steps(name), *self.tidy_steps(name)]

    def stage_steps(self, name: str) -> list[Step]:
        """Return the steps that restart nothing on this host."""
        return stage(self.spec(name), self.observed[name])

    def converge_steps(self, name: str) -> list[Step]:
        """Return the steps that make this host's files, units and database right."""
        seen = self.observed[name]
        if self.member(name).role != "datastore":
            return converge(self.spec(name), seen)
        return [*converge(self.spec(name), seen), *datastore.steps(self.cluster, seen)]

    def tidy_steps(self, name: str) -> list[Step]:
        """Return the steps that remove what no host needs any more, once all others are done."""
        return datastore.tidy_steps(self.cluster, self.observed[name]) if self.member(name).role == "datastore" else []

    def of(self, role: str) -> tuple[Member, ...]:
        """Return the members of one role that could be observed: all of them, unless the run was limited to others."""
        return tuple(member for member in self.cluster.of(role) if member.name in self.observed)

    @property
    def present(self) -> list[str]:
        """The members that this Nornir shows, in the inventory's order."""
        return [member.name for member in self.cluster.members if member.name not in self.away]

    @property
    def names(self) -> list[str]:
        """The hosts that could be observed and may be changed, in the inventory's order."""
        return self.chosen(member.name for member in self.cluster.members if member.name in self.observed)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return those of the hosts that the run was not told to leave alone."""
        return [name for name in names if self.limit is None or name in self.limit]

    def phase(
        self,
        title: str,
        names: Iterable[str],
        task: Callable[[Task, Run], Result],
        *,
        width: int | None = None,
        lenient: Collection[str] = (),
    ) -> dict[str, Any]:
        """Carry out a task on its hosts, as one Nornir run, and return each host's result.

        Arguments:
            title: Shown to people.
            names: The hosts; nothing is done when there are none.
            task: Runs on each host; it gets the Nornir task and this Run.
            width: Hosts at the same time.
            lenient: Hosts whose failure is only noted.

        Raises:
            K3sError: One host failed, or HostsFailed for several; the task has ended on all hosts by then.
        """
        wanted = list(names)
        if not wanted:
            return {}
        runner = K3sRunner(num_workers=width or len(wanted), stop=getattr(self.nr.runner, "stop", None))
        chosen = self.nr.filter(filter_func=lambda host: host.name in wanted).with_runner(runner)
        # Every host's failure is told, whatever the team's Nornir does at the first one.
        results = chosen.run(task=_adapter(task, self), name=title, raise_on_error=False)
        current: PhaseReport | None = getattr(self.thread, "phase", None)
        if current:
            current.hosts = list(dict.fromkeys([*current.hosts, *wanted]))
        for name, link in list(self.sessions.items()):
            self.report.hosts[name].round_trips = link.round_trips
        self._raise_failures(title, wanted, results, lenient)
        return {name: results[name].result for name in wanted if name in results}

    def _raise_failures(
        self,
        title: str,
        wanted: list[str],
        results: Any,  # noqa: ANN401 - AggregatedResult
        lenient: Collection[str],
    ) -> None:
        errors: list[K3sError] = []
        for name in wanted:
            if name not in results:
                error: BaseException | None = HostError(
                    name, f"it was left out of phase {title!r}: it failed before", hint="run again"
                )
            elif results[name].failed:
                error = results[name].exception
            else:
                continue
            if not isinstance(error, K3sError):
                raise error or AssertionError(name)
            if name in lenient and not isinstance(error, Interrupted):
                self.unread[name] = error.message
                self.report.notes.append(f"{error.message}; the run goes on, since it was limited to others")
                self.nr.data.recover_host(name)
                continue
            if not isinstance(error, Interrupted):
                self.report.hosts[name].error = error.message
            errors.append(error)
        stopped = [error for error in errors if isinstance(error, Interrupted)]
        if stopped:
            raise Interrupted(
                f"stopped in {title!r}: " + "; ".join(e.message for e in stopped),
                hint="run deploy again: it goes on where it stopped",
            )
        if errors:
            raise errors[0] if len(errors) == 1 else HostsFailed(errors)


def _adapter(task: Callable[[Task, Run], Result], run: Run) -> Callable[[Task], Result]:
    def run_on_host(task_: Task) -> Result:
        return task(task_, run)

    # Nornir logs a task's arguments: the run, which holds secrets, is bound instead of passed.
    run_on_host.__name__ = task.__name__
    return run_on_host
