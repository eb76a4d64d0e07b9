"""Run: the state that the phases of one run share, and how they run tasks on hosts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s.artifacts.source import OnProgress
from nornir_k3s.errors import HostError, HostsFailed, HostUnreachable, Interrupted, K3sError
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.k3s_facts import BeforeUpgrade
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.work import Owner
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run.observation import Observation
from nornir_k3s.ssh.session import Session
from nornir_k3s.state import kubeconfig

log = logging.getLogger(__name__)


class Lock(Protocol):
    """What keeps other runs away from the cluster."""

    owner: Owner

    def require(self, run: Run) -> None:
        """Have it before something is changed, or raise `Busy`."""


@dataclass(kw_only=True)
class Run(Observation):
    """One run over one cluster, on top of what is known of it.

    Arguments:
        nr: The team's Nornir.
        deadlines: Seconds, by kind of work.
        widths: Hosts at the same time, by phase.
        ready_again: Servers and agents that got their previous files back and are ready with them.
        draining: Servers and agents that this run has begun to drain.
        uncordoned: Servers and agents whose nodes an earlier run has cordoned, and this one has uncordoned.
        still_cordoned: Why nodes are that could not be uncordoned; the run fails in the end.
        begun: When the drain or the change of a server or agent began (time.monotonic).
        awaited: Agents whose node is Ready and whose service is not active yet, and since when (time.monotonic).
        until: The last phase that is carried out; empty for all.
        skip_unreachable: Leave out load balancers that are down, too, unless one may hold the VIP.
        ignore_window: Restart K3s outside the maintenance window, too.
        trial: Seconds after which a server or agent takes its change back unless it is confirmed; 0 for never.
        failed: The errors of agents that have failed.
        address: What was found at the registration address.
        before_upgrade: What was found before K3s is replaced by a newer version.
        unread: Hosts that could not be read, and why, where that does not end the run.
        down: Hosts that did not answer when secrets were looked for: when (time.monotonic), and why.
        on_step: Gets a host's name and what it does now.
        allowed: Of a run that carries out a saved plan: the steps in it, as HOST/STEP; None for all.
        lock: Keeps other runs away; None for a run that only reads.
        thread: `phase`: the phase that this thread runs.
        first: Called once, before the first host is contacted.
        taken: What was taken back from the hosts.
        has_data: The managed datastore had data of a cluster when secrets were looked for.
        unsure: Why nothing may be generated: a host may have it; empty if it may.
    """

    nr: Nornir
    deadlines: Mapping[str, float]
    widths: Mapping[str, int]
    report: Report
    sessions: dict[str, Session] = field(default_factory=dict)
    ready_again: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    uncordoned: set[str] = field(default_factory=set)
    still_cordoned: dict[str, K3sError] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    awaited: dict[str, float] = field(default_factory=dict)
    until: str = ""
    skip_unreachable: bool = False
    ignore_window: bool = False
    trial: int = 0
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
    first: Callable[[Run], None] | None = None
    taken: set[str] = field(default_factory=set)
    has_data: bool = False
    unsure: str = ""

    @property
    def stop(self) -> threading.Event | None:
        """The event that stops the run; None with a runner that cannot be stopped."""
        return getattr(self.nr.runner, "stop", None)

    def begin(self) -> None:
        """Do what comes before the first host is contacted; once, and again if that has failed."""
        first, self.first = self.first, None  # it contacts hosts itself
        try:
            if first:
                first(self)
        except BaseException:
            self.first = first
            raise

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

    def not_stopped(self, names: Iterable[str] = ()) -> Run:
        """Return this run as if nobody had stopped it, to put back what it has begun.

        Arguments:
            names: Hosts that it needs although they may have failed: Nornir leaves these out.
        """
        for name in names:
            self.nr.data.recover_host(name)
        return replace(self, nr=self.nr.with_runner(K3sRunner()))

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
        runner = K3sRunner(num_workers=width or len(wanted), stop=self.stop)
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
