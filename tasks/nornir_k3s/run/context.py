"""Run: the state that the phases of one run share, and how they run tasks on hosts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.artifacts.source import OnProgress, Source
from nornir_k3s.checks import encryption, token
from nornir_k3s.errors import HostError, HostsFailed, HostUnreachable, Interrupted, K3sError
from nornir_k3s.facts import Query
from nornir_k3s.model import family as families
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.family import DEBIAN
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import BeforeUpgrade, NodeState
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.secret import Secret
from nornir_k3s.planner import PlannedHost, plan_host
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.roles import left
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.roles.former_address import former_vips
from nornir_k3s.ssh.session import Session
from nornir_k3s.state import check_certificate, known_cluster, kubeconfig, revision
from nornir_k3s.state.store import Store

log = logging.getLogger(__name__)
DEADLINES = {
    "connect": 60,
    "observe": 60,
    "dump": 3600,
    "packages": 900,
    "push": 1800,
    "server": 600,
    "agent": 600,
    "apply": 300,
    "verify": 300,
}
WIDTHS = {"stage": 20, "agents": 10}


class Lock(Protocol):
    """What keeps other runs away from the cluster."""

    def require(self, run: Run) -> None:
        """Have it before something is changed, or raise `Busy`."""


@dataclass
class Run:
    """One run over one cluster.

    Arguments:
        nr: The team's Nornir.
        cluster: The desired state.
        source: Where the release of K3s comes from.
        store: Secrets and results on the controller.
        deadlines: Seconds, by kind of work.
        widths: Hosts at the same time, by phase.
        facts: The facts of each host that was read; a later reading replaces them.
        done: Servers and agents that this run has changed and that are ready again.
        ready_again: Servers and agents that got their previous files back and are ready with them.
        draining: Servers and agents that this run has begun to drain.
        uncordoned: Servers and agents whose nodes an earlier run has cordoned, and this one has uncordoned.
        still_cordoned: Why nodes are that could not be uncordoned; the run fails in the end.
        begun: When the drain or the change of a server or agent began (time.monotonic).
        awaited: Agents whose node is Ready and whose service is not active yet, and since when (time.monotonic).
        limit: The only hosts that may be changed; None for all.
        until: The last phase that is carried out; empty for all.
        away: Members of the last deploy that are not in this inventory.
        drift: Also read the facts that only a drift check needs.
        deep: Hash every large file.
        skip_unreachable: Leave out load balancers that are down, too, unless one may hold the VIP.
        ignore_window: Restart K3s outside the maintenance window, too.
        renew: Certificates that are older are made anew, in seconds since the epoch; 0 for none.
        new_ca: Certificates that replace the CA of the servers, PEM, which K3s has stored in the datastore.
        trial: Seconds after which a server or agent takes its change back unless it is confirmed; 0 for never.
        left_out: Hosts that are down, and agents that have failed: the run goes on without them.
        failed: The errors of these agents.
        address: What was found at the registration address.
        before_upgrade: What was found before K3s is replaced by a newer version.
        unread: Hosts that could not be read, and why, where that does not end the run.
        down: Hosts that did not answer when secrets were looked for: when (time.monotonic), and why.
        on_step: Gets a host's name and what it does now.
        allowed: Of a run that carries out a saved plan: the steps in it, as HOST/STEP; None for all.
        lock: Keeps other runs away; None for a run that only reads.
        thread: `phase`: the phase that this thread runs.
        started: When the run began (time.time).
        reload: Loads the inventory again: the state folder has other secrets than before.
        first: Called once, before the first host is contacted.
        taken: What was taken back from the hosts.
        unsure: Why nothing may be generated: a host may have it; empty if it may.
    """

    nr: Nornir
    cluster: Cluster
    source: Source
    store: Store
    deadlines: Mapping[str, float]
    widths: Mapping[str, int]
    report: Report
    facts: dict[str, HostFacts] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    ready_again: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    uncordoned: set[str] = field(default_factory=set)
    still_cordoned: dict[str, K3sError] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    awaited: dict[str, float] = field(default_factory=dict)
    limit: frozenset[str] | None = None
    until: str = ""
    away: frozenset[str] = frozenset()
    drift: bool = False
    deep: bool = False
    skip_unreachable: bool = False
    ignore_window: bool = False
    trial: int = 0
    renew: float = 0
    new_ca: str = ""
    left_out: set[str] = field(default_factory=set)
    failed: list[K3sError] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    down: dict[str, tuple[float, HostUnreachable]] = field(default_factory=dict)
    address: AddressAnswer | None = None
    before_upgrade: BeforeUpgrade | None = None
    on_progress: OnProgress | None = None
    on_step: Callable[[str, str], None] | None = None
    allowed: frozenset[str] | None = None
    lock: Lock | None = None
    thread: threading.local = field(default_factory=threading.local)
    started: float = field(default_factory=time.time)
    reload: Callable[[], Cluster] | None = None
    first: Callable[[Run], None] | None = None
    taken: set[str] = field(default_factory=set)
    unsure: str = ""
    _planned: dict[str, tuple[HostFacts, Known, PlannedHost]] = field(default_factory=dict)

    def member(self, name: str) -> Member:
        """Return the member with this name."""
        return self.cluster.member(name)

    @property
    def ca_prefix(self) -> str:
        """`K10` and the hash of the cluster's CA: from a server, or from the last deploy if no server was read."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[0]
        return next((one.server.ca_prefix for one in self._servers() if one.server.ca_prefix), "")

    @property
    def ca_certificate(self) -> str:
        """The CA of the servers' certificates, PEM; empty before the first server has created it."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[1]
        found = (one.server for one in self._servers())
        return next((one.ca_certificate for one in found if one.ca_prefix and one.ca_certificate), "")

    def _servers(self) -> Iterable[HostFacts]:
        return sorted(
            (self.facts[m.name] for m in self.of("servers")), key=lambda one: not one.ready
        )  # ready ones first

    @property
    def ready_servers(self) -> list[str]:
        """The servers whose `/readyz` says ok."""
        return [m.name for m in self.of("servers") if self.facts[m.name].ready]

    def node(self, name: str) -> NodeState | None:
        """Return this member's node as a server listed it when it was read, or None."""
        return next((node for node in self.nodes() if node.name == self.member(name).node_name), None)

    def nodes(self) -> Sequence[NodeState]:
        """Return all nodes as a server listed them when it was read; nothing if none could."""
        return next((one.api.nodes for one in self._servers() if one.api.nodes is not None), ())

    def is_node_ready(self, name: str) -> bool:
        """Return whether a server listed this member's node as Ready when it was read."""
        node = self.node(name)
        return node is not None and node.ready

    def known(self, name: str) -> Known:
        """Return what is known besides the inventory and the host's own facts."""
        member, facts = self.member(name), self.facts.get(name)
        packages = {}
        if "datastore" in member.roles and not facts:
            packages = known_cluster.packages(self.store).get(name, {})
        bundle = self.source.known(facts.system.arch) if facts else None
        check = self.check_certificate() if "lb" in member.roles else Secret("")
        listed = next((one.api.nodes for one in self._servers() if one.api.nodes is not None), None)
        nodes = {node.name: node.version for node in listed} if listed is not None and member.role in NODES else None
        former = former_vips(self.cluster, self.facts, self.done) if "lb" in member.roles else ()
        family = DEBIAN if facts else families.of((), [known_cluster.managers(self.store).get(name, "")]) or DEBIAN
        gone = left.members(self.cluster, self.facts)
        back = self.revision().back if member.role == "servers" and facts else None
        known = Known(bundle, self.ca_prefix, self.ca_certificate, check, packages, nodes, former, gone, family, back)
        known = replace(known, renew=self.renew, new_ca=self.new_ca)
        if member.role != "servers":
            return known
        return replace(known, stored=token.stored(self.facts), keys=encryption.changing(self.facts))

    def check_certificate(self) -> Secret:
        """Return certificate and key of the load balancers' health check; empty where none lasts."""
        return check_certificate.load(self.store, self.ca_prefix, since=self.renew)

    def revision(self) -> revision.Seen:
        """Return what is known of the datastore's newest revision, and whether it was higher before."""
        newest = max((one.database.newest for one in self.facts.values()), default=0)
        units = [(one.unit(k3s.UNITS["server"]), one.skew + one.skew_error) for one in self._servers()]
        starts = [unit.started - ahead for unit, ahead in units if unit.active == "active"]
        return revision.look(self.store, self.cluster, newest, now=self.started, starts=starts)

    def query(self, name: str) -> Query:
        """Return which facts to read from a host."""
        member, facts = self.member(name), self.facts.get(name)
        known = self.known(name)
        spec, family = desired(self.cluster, member, facts, known), facts.family if facts else known.family
        return Query(self.cluster, member, spec, drift=self.drift, deep=self.deep, family=family)

    def planned(self, name: str) -> PlannedHost:
        """Return a host's plan; it is computed again only when its facts, or what else is known, have changed."""
        facts, known = self.facts[name], self.known(name)
        before = self._planned.get(name)
        if before and before[0] is facts and before[1] == known:
            return before[2]
        plan = plan_host(self.cluster, self.member(name), facts, known)
        self._planned[name] = facts, known, plan
        return plan

    def begin(self) -> None:
        """Do what comes before the first host is contacted; once."""
        first, self.first = self.first, None
        if first:
            first(self)

    def use_inventory(self) -> None:
        """Load the inventory again, with the secrets that the state folder has now: every plan depends on them."""
        if self.reload:
            self.cluster = self.reload()
            self._planned.clear()

    def use_token(self, token: Secret) -> None:
        """Use another token from now on: every plan depends on it."""
        self.cluster = replace(self.cluster, token=token)
        self._planned.clear()

    def keep_kubeconfig(self, text: str) -> None:
        """Save an administrator's kubeconfig for the registration address on the controller.

        Arguments:
            text: A server's own.
        """
        self.report.kubeconfig = kubeconfig.keep(self.store, text, server=self.cluster.url, name=self.cluster.name)

    def tell(self, name: str, what: str) -> None:
        """Tell people what a host does now, or what is waited for."""
        if self.on_step:
            self.on_step(name, what)

    def of(self, role: str) -> tuple[Member, ...]:
        """Return the members of one role that were read and have not failed; a limited run may have read fewer."""
        read = (member for member in self.cluster.of(role) if member.name in self.facts)
        return tuple(member for member in read if member.name not in self.left_out)

    def agents(self, names: Iterable[str]) -> list[str]:
        """Return those of the hosts that are agents, and nothing else: a run can go on without them."""
        return [name for name in names if self.member(name).roles == ("agents",)]

    @property
    def present(self) -> list[str]:
        """The members in this inventory, in its order."""
        return [member.name for member in self.cluster.members if member.name not in self.away]

    @property
    def names(self) -> list[str]:
        """The hosts that were read and may be changed, in the inventory's order."""
        return self.chosen(member.name for member in self.cluster.members if member.name in self.facts)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return those of the hosts that may be changed."""
        return [name for name in names if (self.limit is None or name in self.limit) and name not in self.left_out]

    def skip(self, name: str, why: str) -> None:
        """Leave a host that is down out of this run.

        Arguments:
            why: The message of its error.
        """
        self.left_out.add(name)
        self.facts.pop(name, None)  # it may have died after it was read
        self.report.skipped.append(name)
        self.report.hosts[name].error = why
        self.report.notes.append(f"{why}; left out: run deploy again when it is back")
        self.nr.data.recover_host(name)

    def end(self) -> None:
        """Note that the run has ended well; hosts that were left out keep it from exit code 0."""
        self.report.end(None, "ok")
        if self.report.skipped:
            self.report.exit_code = HostUnreachable.exit_code

    def phase(
        self,
        title: str,
        names: Iterable[str],
        task: Callable[[Task, Run], Result],
        *,
        width: int | None = None,
        lenient: Collection[str] = (),
        spare: Collection[str] = (),
        reads: bool = False,
    ) -> dict[str, Any]:
        """Run a task on hosts, as one Nornir run, and return each host's result.

        Arguments:
            title: The name of the Nornir run, shown to people.
            names: The hosts; may be empty.
            task: Runs on each host, with the Nornir task and this Run.
            width: Hosts at the same time.
            lenient: Hosts whose failure is only a note.
            spare: Agents whose failure ends only their own part of the run.
            reads: The task changes nothing on any host; all others need the lock.

        Raises:
            K3sError: One host failed; HostsFailed for several. The task has ended on all hosts.
        """
        wanted = list(names)
        if not wanted:
            return {}
        self.begin()
        if self.lock and not reads:
            self.lock.require(self)
        runner = K3sRunner(num_workers=width or len(wanted), stop=getattr(self.nr.runner, "stop", None))
        chosen = self.nr.filter(filter_func=lambda host: host.name in wanted).with_runner(runner)
        # Every host's failure is reported, whatever `raise_on_error` of the team's Nornir is.
        results = chosen.run(task=_adapter(task, self), name=title, raise_on_error=False)
        current: PhaseReport | None = getattr(self.thread, "phase", None)
        if current:
            current.hosts = list(dict.fromkeys([*current.hosts, *wanted]))
        for name, link in list(self.sessions.items()):
            self.report.hosts[name].round_trips = link.round_trips
        self._raise_failures(title, wanted, results, lenient, spare)
        return {name: results[name].result for name in wanted if name in results}

    def _raise_failures(
        self,
        title: str,
        wanted: list[str],
        results: Any,  # noqa: ANN401 - AggregatedResult
        lenient: Collection[str],
        spare: Collection[str],
    ) -> None:
        errors: list[K3sError] = []
        for name in wanted:
            left_out = name not in results
            if left_out:
                text = f"left out of {title!r}: it failed in an earlier task on this Nornir object"
                hint = "correct what failed, then nr.data.reset_failed_hosts(): Nornir skips failed hosts until then"
                error: BaseException | None = HostError(name, text, hint=hint)
            elif results[name].failed:
                error = results[name].exception
            else:
                continue
            if not isinstance(error, K3sError):
                raise error or AssertionError(name)
            if name in lenient and not isinstance(error, Interrupted):
                self.unread[name] = error.message
                self.report.notes.append(f"{error.message}; the run continues, since it is limited to other hosts")
                if not left_out:  # of an earlier task: its mark is not ours to remove
                    self.nr.data.recover_host(name)
                continue
            if not isinstance(error, Interrupted):
                self.report.hosts[name].error = error.message
                if name in spare:
                    self.go_on_without(name, error)
                    continue
            errors.append(error)
        stopped = [error for error in errors if isinstance(error, Interrupted)]
        if stopped:
            raise Interrupted(
                f"stopped in {title!r}: " + "; ".join(e.message for e in stopped),
                hint="run deploy again: it resumes",
            )
        if errors:
            raise errors[0] if len(errors) == 1 else HostsFailed(errors)

    def go_on_without(self, name: str, error: K3sError) -> None:
        """Leave an agent that has failed out of the rest of this run, which fails in the end."""
        self.report.hosts[name].error = error.message
        self.left_out.add(name)
        self.failed.append(error)
        self.report.notes.append(f"{name} failed (below): the run goes on with the other hosts")
        if current := getattr(self.thread, "phase", None):
            current.state = "failed"


def _adapter(task: Callable[[Task, Run], Result], run: Run) -> Callable[[Task], Result]:
    def run_on_host(task_: Task) -> Result:
        try:
            return task(task_, run)
        except K3sError as error:  # raised, it would be a traceback in Nornir's log
            log.debug("%s: %s failed", task_.host.name, task_.name, exc_info=True)
            return Result(host=task_.host, failed=True, exception=error, result=str(error))

    # Nornir logs a task's arguments: the run has secrets, so it is bound instead of passed.
    run_on_host.__name__ = task.__name__
    return run_on_host
