"""Nornir tasks of single steps, for a team's own workflows: `nr.run(task=k3s_facts, base=…, state=…)`.

They behave like Nornir's own plugins: `Result.changed`, `.diff`, `.result` and `.failed`; dry runs; processors and
filters. An expected error gives a failed result with the exception and its message, without a traceback. Hosts without
a role in the cluster are skipped.

Tasks on the same Nornir object, and on its filtered copies, share the facts that they read: read the servers (and the
datastore) before you converge agents or load balancers.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from nornir.core.task import Result, Task
from pydantic import BaseModel, Field

from nornir_k3s.checks import preflight
from nornir_k3s.errors import K3sError, NotReady, UsageError
from nornir_k3s.model.cluster import NODES
from nornir_k3s.phases import alone, host_tasks, servers, task_lock
from nornir_k3s.phases import reset as resets
from nornir_k3s.roles import left
from nornir_k3s.run.context import Run
from nornir_k3s.run.shared import Shared, forget, of
from nornir_k3s.state import kubeconfig
from nornir_k3s.workflows import remove as removal
from nornir_k3s.workflows import reset
from nornir_k3s.workflows.backup import backup, plan_backup
from nornir_k3s.workflows.rotate import plan_rotation, rotate

P = ParamSpec("P")


class Facts(BaseModel):
    """The facts of one host that other workflows need."""

    role: str
    roles: list[str] = Field(default_factory=list, description="all its roles")
    os: str = Field(description="name in /etc/os-release")
    kernel: str
    arch: str
    addresses: list[str] = Field(description="of the host's interfaces, with prefix length")
    packages: dict[str, str] = Field(description="versions of the packages that the cluster needs on it")
    units: dict[str, str] = Field(description="units that the cluster needs on it, and their state")
    ready: bool = Field(
        description="of a server: /readyz is ok; of an agent: its unit is active, and its node Ready if a server was"
        " read; of others: their services run"
    )
    nodes: dict[str, bool] = Field(description="of a server: its nodes, and whether each is Ready")


def _step(
    work: Callable[Concatenate[Task, Shared, P], Result],
) -> Callable[..., Result]:
    """Add the common arguments to a task, and turn expected errors into failed results."""

    @functools.wraps(work)
    def run_on_host(
        task: Task,
        base: Path | str | None = None,
        state: Path | str | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,  # noqa: ANN401 - the task's own
    ) -> Result:
        try:
            shared = of(task, base, state, options)
            if task.host.name not in shared.run.present:
                return Result(host=task.host, result="no role in this cluster", severity_level=logging.DEBUG)
            shared.begin()
            return work(task, shared, **more)  # type: ignore[call-arg]  # each task has its own
        except K3sError as error:
            return Result(host=task.host, failed=True, exception=error, result=str(error))

    return run_on_host


@_step
def k3s_facts(task: Task, shared: Shared) -> Result:
    """Read a host, always again; `result` is its `Facts`."""
    run = shared.run
    run.facts.pop(task.host.name, None)
    shared.restarts.forget(task.host.name)
    facts = alone.facts_of(task, run)
    result = Facts(
        role=run.member(task.host.name).role,
        roles=list(run.member(task.host.name).roles),
        os=facts.system.os_name,
        kernel=facts.system.kernel,
        arch=facts.system.arch,
        addresses=[one.cidr for one in facts.addresses],
        packages=dict(facts.packages),
        units={name: unit.active for name, unit in facts.units.items()},
        ready=_ready(run, task.host.name),
        nodes={node.name: node.ready for node in facts.api.nodes or ()},
    )
    return Result(host=task.host, result=result)


def _ready(run: Run, name: str) -> bool:
    member, facts = run.member(name), run.facts[name]
    if ("servers" in member.roles and not facts.ready) or ("datastore" in member.roles and not facts.database.alive):
        return False
    by_units = set(member.roles) & {"agents", "lb"}
    if by_units and (not facts.units or any(unit.active != "active" for unit in facts.units.values())):
        return False
    listed = left.listed(run.cluster, run.facts) if member.role == "agents" else None
    return listed is None or any(node.name == member.node_name and node.ready for node in listed)


@_step
def k3s_preflight(task: Task, shared: Shared) -> Result:
    """Run the preflight checks of a host against all hosts read so far; `result` is its findings, one line each.

    The task fails if a finding is an error.
    """
    alone.facts_of(task, shared.run)
    own = [one for one in preflight.check(shared.run.cluster, shared.run.facts) if one.host == task.host.name]
    failed = any(one.severity == "error" for one in own)
    return Result(host=task.host, failed=failed, result=[f"{one.level}: {one}" for one in own])


@_step
def k3s_plan(task: Task, shared: Shared) -> Result:
    """Plan the changes of a host; `changed` says whether there are any, `result` is one line per change."""
    run = shared.run
    alone.facts_of(task, run)
    return alone.plan_host(task, run)


@_step
def k3s_converge(task: Task, shared: Shared, *, dry_run: bool | None = None) -> Result:
    """Bring a host to its desired state and wait until it is ready; servers one at a time, whatever the runner.

    Whatever restarts K3s does it as in `deploy`: a server leaves the rotation of the load balancers, while all others
    are ready; one agent is first, the others follow as `rolling_update` says, and are drained before K3s is replaced.
    For that, other hosts of this Nornir object and its copies are asked, also those that a filter left out.

    Arguments:
        dry_run: Change nothing, but return `changed` and `diff` as planned; Nornir's own setting by default.
    """
    return alone.converge_host(task, shared, shared.run.member(task.host.name).roles, dry_run=dry_run)


@_step
def k3s_join(task: Task, shared: Shared, *, dry_run: bool | None = None) -> Result:
    """Join a server or an agent to a running cluster; unlike `k3s_converge` it never starts a first server."""
    run = shared.run
    if run.member(task.host.name).role not in NODES:
        return Result(host=task.host, result="not a node", severity_level=logging.DEBUG)
    others = [name for name in run.ready_servers if name != task.host.name]
    if not others and not servers.has_data(run):
        raise UsageError(f"{task.host.name}: no other ready server was read", hint="run k3s_facts on the servers first")
    return _call(k3s_converge, task, shared, dry_run=dry_run)


@_step
def k3s_load_balancer(task: Task, shared: Shared, *, dry_run: bool | None = None) -> Result:
    """Bring a load balancer to its desired state; other hosts are skipped."""
    if "lb" not in shared.run.member(task.host.name).roles:
        return Result(host=task.host, result="not a load balancer", severity_level=logging.DEBUG)
    return alone.converge_host(task, shared, ("lb",), dry_run=dry_run)


def _call(step: Callable[..., Result], task: Task, shared: Shared, **more: object) -> Result:
    return step.__wrapped__(task, shared, **more)  # type: ignore[attr-defined, no-any-return]  # set by `wraps`


@_step
def k3s_remove(task: Task, shared: Shared, *, lost: bool = False, dry_run: bool | None = None) -> Result:
    """Take a host out of the cluster, as `remove` does; one host at a time, whatever the runner.

    Arguments:
        lost: The host is dead or gone for good: everything is done but its own part.
        dry_run: Change nothing, but return what would be done; Nornir's own setting by default.
    """
    with shared.restarts.servers:
        run = shared.whole(task)
        run.facts = {}
        leaving = removal.read(run, [task.host.name], lost=lost)
        planned = removal.planned(run, leaving, lost=lost)
        said = [f"{name}: {summary}" for name, summaries in planned.changes.items() for summary in summaries]
        if not task.is_dry_run(dry_run):
            with task_lock.together(shared).changing(run):
                removal.carry_out_removal(run, leaving, lost=lost)
            shared.run.facts.clear()
    return Result(host=task.host, changed=True, result=said)


@_step
def k3s_backup(task: Task, shared: Shared, *, dry_run: bool | None = None) -> Result:
    """Make a backup, as `backup` does, with the options of config.yaml; `result` is its `Backup`.

    It is made on one host of the datastore, or with an external one on a server; others are skipped.

    Arguments:
        dry_run: Change nothing, but return the plan; Nornir's own setting by default.
    """
    run = shared.whole(task)
    roles = ("datastore",) if run.cluster.is_managed else ("servers",)
    own = [member.name for role in roles for member in run.cluster.of(role) if member.name in run.present]
    if task.host.name not in own[:1]:
        return Result(host=task.host, result="not the host that backups are made on", severity_level=logging.DEBUG)
    arguments: dict[str, Any] = {
        "base": run.store.base,
        "state": run.store.folder.parent,
        "options": {"whole": not run.away},
    }
    with shared.restarts.servers:
        report = (plan_backup if task.is_dry_run(dry_run) else backup)(run.nr, **arguments)
    return Result(host=task.host, changed=not report.planned, result=report)


@_step
def k3s_reset(task: Task, shared: Shared, *, dry_run: bool | None = None) -> Result:
    """Make this host what it was before, as `reset` does; a datastore stays.

    Arguments:
        dry_run: Change nothing, but return what would be done; Nornir's own setting by default.
    """
    run = shared.run
    resets.read_host(task, run)
    steps = reset.steps(run, data_stay=True).hosts[task.host.name]
    if steps and not task.is_dry_run(dry_run):
        with task_lock.together(shared).changing(run) as lock:
            lock.require(run)
            resets.apply_to_host(task, run, steps)
    run.facts.pop(task.host.name)
    return Result(host=task.host, changed=bool(steps), result=[step.summary for step in steps])


@_step
def k3s_rotate(task: Task, shared: Shared, *, what: str, dry_run: bool | None = None) -> Result:
    """Rotate a secret of the cluster, as `rotate` does; `result` is its `Report`, of a dry run its `Rotation`.

    It is done once, by the first server of this inventory; others are skipped.

    Arguments:
        what: As for `rotate`.
        dry_run: Change nothing, but return the plan; Nornir's own setting by default.
    """
    run = shared.whole(task)
    if task.host.name not in [m.name for m in run.cluster.of("servers") if m.name in run.present][:1]:
        return Result(host=task.host, result="not the first server", severity_level=logging.DEBUG)
    arguments: dict[str, Any] = {
        "base": run.store.base,
        "state": run.store.folder.parent,
        "options": {"whole": not run.away},
    }
    if task.is_dry_run(dry_run):
        return Result(host=task.host, changed=True, result=plan_rotation(run.nr, what, **arguments))
    with shared.restarts.servers:
        try:
            report = rotate(run.nr, what, **arguments)
        finally:
            forget(shared)
    return Result(host=task.host, changed=True, result=report)


@_step
def k3s_ready(task: Task, shared: Shared) -> Result:
    """Wait until a server is ready or an agent has joined; on timeout the task fails, with the journal."""
    run = shared.run
    role = run.member(task.host.name).role
    if role not in NODES:
        return Result(host=task.host, result="not a node", severity_level=logging.DEBUG)
    if role == "servers":
        host_tasks.wait_for_server(task, run)
    else:
        host_tasks.wait_for_agent(task, run)
    return Result(host=task.host, result="ready")


@_step
def k3s_kubeconfig(task: Task, shared: Shared) -> Result:
    """Fetch the kubeconfig from a server and set the registration address in it; `result` is its path, mode 0600.

    Other hosts are skipped.
    """
    run = shared.run
    if run.member(task.host.name).role != "servers":
        return Result(host=task.host, result="not a server", severity_level=logging.DEBUG)
    facts = alone.facts_of(task, run)
    if not facts.kubeconfig:
        raise NotReady(task.host.name, "no kubeconfig yet", hint="run k3s_converge on it first")
    with shared.restarts.servers:  # all servers give the same
        before = run.store.read(kubeconfig.FILE)
        path = kubeconfig.keep(run.store, facts.kubeconfig, server=run.cluster.url, name=run.cluster.name)
    return Result(host=task.host, changed=run.store.read(kubeconfig.FILE) != before, result=str(path))
