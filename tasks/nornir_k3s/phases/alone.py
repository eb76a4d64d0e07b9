"""Hosts that a Nornir task changes one by one: with the order, rotation, drain and limits of a deploy."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from nornir.core.task import Result, Task

from nornir_k3s.errors import HostError, NotReady, UsageError
from nornir_k3s.host_steps import replaces_binary
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.together import few
from nornir_k3s.phases import batches, drain, encryption, host_tasks, rolling, rotation, servers, stage, window
from nornir_k3s.phases.task_lock import together
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.shared import Shared

log = logging.getLogger(__name__)


def facts_of(task: Task, run: Run) -> HostFacts:
    """Return the facts of this host, which is read if no task has done it; and find the release for it."""
    if task.host.name not in run.facts:
        gather.gather_host(task, run)
    if set(run.member(task.host.name).roles) & set(NODES):
        run.source.find(run.facts[task.host.name].system.arch)
    return run.facts[task.host.name]


def plan_host(task: Task, run: Run) -> Result:
    """Plan the changes of this host."""
    _needs_ca(run, task.host.name)
    steps = run.planned(task.host.name).steps
    diff = "\n".join(step.diff for step in steps if step.diff)
    return Result(host=task.host, changed=bool(steps), diff=diff, result=[step.summary for step in steps])


def converge_host(task: Task, shared: Shared, roles: Collection[str], *, dry_run: bool | None) -> Result:
    """Bring this host to the desired state of some of its roles, in the order of a deploy's phases.

    Raises:
        K3sError: It failed, or what it needs of other hosts was not read.
    """
    run, name = shared.run, task.host.name
    facts_of(task, run)
    if task.is_dry_run(dry_run):
        return plan_host(task, run)
    _needs_ca(run, name)
    with together(shared).changing(run) as lock:
        if run.planned(name).steps:
            lock.require(run)
        results = [stage.stage_host(task, run)]
        for role in ("datastore", "servers", "lb", "agents"):  # in the order of deploy's phases
            if role in roles:
                results.append(_role(task, shared, role))
                gather.gather_host(task, run)  # other roles, and later tasks, need the new facts
    diff = "\n".join(one.diff for one in results if one.diff)
    done = [change for one in results for change in one.result or []]
    return Result(host=task.host, changed=any(one.changed for one in results), diff=diff, result=done)


def _role(task: Task, shared: Shared, role: str) -> Result:
    match role:
        case "servers":
            with shared.restarts.servers:
                return _server(task, shared)
        case "lb":
            with shared.restarts.servers:
                return host_tasks.converge_host(task, shared.run, role)
        case "agents":
            return change_agent(task, shared)
        case _:
            return host_tasks.converge_host(task, shared.run, role)


def _server(task: Task, shared: Shared) -> Result:
    run = shared.run
    if not run.ready_servers:
        servers.require_all_servers(run)
        unread = [m.name for m in run.cluster.of("servers") if m.name in run.present and m.name not in run.facts]
        if unread:
            text = f"no ready server, and {', '.join(unread)} was not read"
            marked = ", ".join(name for name in unread if name in run.nr.data.failed_hosts)
            first = f"{marked} failed in an earlier task: nr.data.reset_failed_hosts(); then " if marked else ""
            raise UsageError(text, hint=f"{first}run k3s_facts on all servers first: only one server may start alone")
    if not run.planned(task.host.name).by_role["servers"] and run.facts[task.host.name].ready:
        return Result(host=task.host, changed=False)
    return change_server(task, shared)


def _needs_ca(run: Run, name: str) -> None:
    roles = set(run.member(name).roles)
    if roles & {"agents", "lb"} and "servers" not in roles and not run.ca_prefix:
        text = f"{name}: the cluster's CA is unknown: no running server was read"
        raise UsageError(text, hint="run k3s_facts on the servers first, with this Nornir object or a copy of it")


def change_server(task: Task, shared: Shared) -> Result:
    """Bring a server to its desired state, out of rotation if it was ready; the caller holds `restarts.servers`.

    Raises:
        K3sError: It did not get ready, or another server is not.
    """
    name, run = task.host.name, shared.whole(task)
    encryption.require_settled(run)
    if not run.planned(name).starts_k3s or not run.facts[name].ready:
        return rolling.change_node(task, run)
    window.require_open(run, [name])
    _read_others(run)
    try:
        rotation.bring_all_back(run)
        if drain.wanted(run, [name]):
            rotation.require_others(run, name)
        with drain.drained(run, [name]), rotation.out_of_rotation(run, name):
            result = _change(task, run)
        return _released(run, name, result)
    finally:
        _tell(run)


def change_agent(task: Task, shared: Shared) -> Result:
    """Bring an agent to its desired state, drained before K3s is replaced; one that restarts waits until it may.

    Raises:
        K3sError: It did not get ready or could not be drained, or it is not touched because others failed.
    """
    name, run = task.host.name, shared.whole(task)
    if not run.planned(name).starts_k3s or not run.facts[name].in_service:
        return rolling.change_node(task, run)
    _require_servers_first(run, name)
    stop = run.stop
    try:
        with shared.restarts.agent(run.cluster, name, stop), _may_begin(run, name), drain.drained(run, [name]) as able:
            if not able:
                raise run.failed[0]
            result = _change(task, run)
        return _released(run, name, result)
    finally:
        _tell(run)


@contextmanager
def _may_begin(run: Run, name: str) -> Iterator[None]:
    """Check the window when the agent may restart."""
    window.require_open(run, [name])
    yield


def _released(run: Run, name: str, result: Result) -> Result:
    """Uncordon a node that an earlier run has left cordoned."""
    drain.release(run, [one for one in drain.left_cordoned(run) if one == name])
    batches.raise_failed(run)
    return result


def _change(task: Task, run: Run) -> Result:
    try:
        return rolling.change_one_of_many(task, run)
    except HostError as error:
        run.report.hosts[task.host.name].error = error.message  # a node that does not work gets no pods
        raise


def _read_others(run: Run) -> None:
    """Read servers and load balancers that were not read yet; one that cannot be read is no reason to stop here."""
    members = [member for role in ("servers", "lb") for member in run.cluster.of(role)]
    names = [m.name for m in members if m.name not in run.facts and m.name not in run.away]
    run.phase("observe", names, gather.gather_host, lenient=names, reads=True)


def _require_servers_first(run: Run, name: str) -> None:
    """Check that no server is older than an agent would be (kubernetes.io, version skew policy).

    Raises:
        NotReady: One is.
    """
    plan = run.planned(name)
    if replaces_binary(plan.desired, plan.facts):
        plans = [run.planned(member.name) for member in run.of("servers")]
        if older := [one.member.name for one in plans if replaces_binary(one.desired, one.facts)]:
            text = f"not touched: {few(older)} must get {run.cluster.version} first, because agents are never newer"
            raise NotReady(name, text, hint="run k3s_converge on the servers before the agents")


def _tell(run: Run) -> None:
    for note in run.report.notes:
        log.warning("%s", note)
