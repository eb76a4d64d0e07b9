"""Nornir tasks of single steps, for a team's own workflows: `nr.run(task=k3s_facts, base=…, state=…)`.

They behave as Nornir's own plugins: `Result.changed`, `.diff`, `.result` and `.failed`; dry runs; processors and
filters. An expected error is a failed result that holds the exception and its words, without a traceback. Hosts that
have no role in the cluster are left alone.

What one task has read is known to the next one on the same Nornir object, not on a filtered copy of it: read the
servers (and the datastore) with the object that agents or load balancers are then converged with.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from nornir.core import Nornir
from nornir.core.task import Result, Task
from pydantic import BaseModel, Field

from nornir_k3s.checks import preflight
from nornir_k3s.errors import K3sError, NotReady, UsageError
from nornir_k3s.model.cluster import (
    NODES,
)
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.phases import host_tasks, rolling, servers, stage
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.state import kubeconfig

P = ParamSpec("P")


class Facts(BaseModel):
    """What is true on one host."""

    role: str
    os: str = Field(description="as /etc/os-release names it")
    kernel: str
    arch: str
    addresses: list[str] = Field(description="of the host's interfaces, with prefix length")
    packages: dict[str, str] = Field(description="versions of the packages that the cluster needs on it")
    units: dict[str, str] = Field(description="units that the cluster needs on it, and whether they are active")
    ready: bool = Field(description="of a server: whether /readyz is ok")
    nodes: dict[str, bool] = Field(description="of a server: the nodes it lists, and whether each is Ready")


class _Shared:
    """What the tasks on one Nornir object share."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.turn = threading.Lock()  # servers are changed one at a time


_known: weakref.WeakKeyDictionary[Nornir, _Shared] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _shared(
    task: Task, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None
) -> _Shared:
    with _making:
        found = _known.get(task.nornir)
        if found is None:
            where = paths.of(task.nornir, base, state)
            run = gather.prepare(task.nornir, base=where.base, state=where.state, options=options or {})
            run.nr = weakref.proxy(task.nornir)  # it is the key: held by itself it would stay for ever
            found = _known[task.nornir] = _Shared(run)
        return found


def _step(
    work: Callable[Concatenate[Task, _Shared, P], Result],
) -> Callable[..., Result]:
    """Give a task its arguments, and turn expected errors into failed results."""

    @functools.wraps(work)
    def run_on_host(
        task: Task,
        base: Path | str | None = None,
        state: Path | str | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,  # noqa: ANN401 - the task's own
    ) -> Result:
        try:
            shared = _shared(task, base, state, options)
            if task.host.name not in shared.run.present:
                return Result(host=task.host, result="it has no role in this cluster", severity_level=logging.DEBUG)
            return work(task, shared, **more)  # type: ignore[call-arg]  # each has its own
        except K3sError as error:
            return Result(host=task.host, failed=True, exception=error, result=str(error))

    return run_on_host


def _seen(task: Task, run: Run) -> HostFacts:
    if task.host.name not in run.facts:
        gather.gather_host(task, run)
    if run.member(task.host.name).role in NODES:
        run.source.find(run.facts[task.host.name].system.arch)
    return run.facts[task.host.name]


@_step
def k3s_facts(task: Task, shared: _Shared) -> Result:
    """Read a host, always anew; `result` is its `Facts`."""
    run = shared.run
    run.facts.pop(task.host.name, None)
    seen = _seen(task, run)
    facts = Facts(
        role=run.member(task.host.name).role,
        os=seen.system.os_name,
        kernel=seen.system.kernel,
        arch=seen.system.arch,
        addresses=[one.cidr for one in seen.addresses],
        packages=dict(seen.packages),
        units={name: unit.active for name, unit in seen.units.items()},
        ready=seen.ready,
        nodes={node.name: node.ready for node in seen.api.nodes or ()},
    )
    return Result(host=task.host, result=facts)


@_step
def k3s_preflight(task: Task, shared: _Shared) -> Result:
    """Look for problems of a host, held against the hosts that were read; `result` is its findings in words.

    It fails where one of them is an error.
    """
    _seen(task, shared.run)
    own = [one for one in preflight.check(shared.run.cluster, shared.run.facts) if one.host == task.host.name]
    failed = any(one.severity == "error" for one in own)
    return Result(host=task.host, failed=failed, result=[f"{one.level}: {one}" for one in own])


@_step
def k3s_plan(task: Task, shared: _Shared) -> Result:
    """Say what would be changed on a host; `changed` says whether anything, `result` is one line a change."""
    run = shared.run
    _seen(task, run)
    return _planned(task, run)


def _planned(task: Task, run: Run) -> Result:
    _needs_ca(run, task.host.name)
    todo = run.planned(task.host.name).steps
    diff = "\n".join(step.diff for step in todo if step.diff)
    return Result(host=task.host, changed=bool(todo), diff=diff, result=[step.summary for step in todo])


@_step
def k3s_converge(task: Task, shared: _Shared, *, dry_run: bool | None = None) -> Result:
    """Make a host right, wait until it is ready; servers one at a time, in whatever runner.

    Arguments:
        dry_run: Change nothing; the Nornir's own setting by default. `changed` and `diff` say what would be.
    """
    run, name = shared.run, task.host.name
    _seen(task, run)
    if task.is_dry_run(dry_run):
        return _planned(task, run)
    _needs_ca(run, name)
    role = run.member(name).role
    result = stage.stage_host(task, run)
    if role == "servers":
        with shared.turn:
            changed = _server(task, run)
    elif role == "lb":
        with shared.turn:
            changed = host_tasks.converge_host(task, run)
    else:
        changed = host_tasks.converge_agent(task, run) if role == "agents" else host_tasks.converge_host(task, run)
    diff = "\n".join(one.diff for one in (result, changed) if one.diff)
    done = [*(result.result or []), *(changed.result or [])]
    gather.gather_host(task, run)  # what comes after sees what is now
    return Result(host=task.host, changed=result.changed or changed.changed, diff=diff, result=done)


def _server(task: Task, run: Run) -> Result:
    if not run.ready_servers:
        servers.refuse_second_first(run)
        unseen = [m.name for m in run.cluster.of("servers") if m.name in run.present and m.name not in run.facts]
        if unseen:
            text = f"no server that was read is ready, and {', '.join(unseen)} was not read"
            raise UsageError(text, hint="run k3s_facts on all servers first: a cluster has one first server")
    if not run.planned(task.host.name).converge and run.facts[task.host.name].ready:
        return Result(host=task.host, changed=False)
    return rolling.change_server(task, run)


def _needs_ca(run: Run, name: str) -> None:
    role = run.member(name).role
    if role in ("agents", "lb") and not run.ca_prefix:
        text = f"{name}: the cluster's CA is not known: no server was read that is up"
        raise UsageError(text, hint="run k3s_facts on the servers first, on this same Nornir object")


@_step
def k3s_join(task: Task, shared: _Shared, *, dry_run: bool | None = None) -> Result:
    """Join a server or an agent to a cluster that is up; unlike `k3s_converge` it never makes a first server."""
    run = shared.run
    if run.member(task.host.name).role not in NODES:
        return Result(host=task.host, result="it is no node", severity_level=logging.DEBUG)
    others = [name for name in run.ready_servers if name != task.host.name]
    if not others and not servers.has_data(run):
        raise UsageError(
            f"{task.host.name}: no other server was read that is ready", hint="run k3s_facts on the servers first"
        )
    return _call(k3s_converge, task, shared, dry_run=dry_run)


@_step
def k3s_load_balancer(task: Task, shared: _Shared, *, dry_run: bool | None = None) -> Result:
    """Make a load balancer right; other hosts are left alone."""
    if shared.run.member(task.host.name).role != "lb":
        return Result(host=task.host, result="it is no load balancer", severity_level=logging.DEBUG)
    return _call(k3s_converge, task, shared, dry_run=dry_run)


def _call(step: Callable[..., Result], task: Task, shared: _Shared, **more: object) -> Result:
    return step.__wrapped__(task, shared, **more)  # type: ignore[attr-defined, no-any-return]  # `wraps` made it


@_step
def k3s_ready(task: Task, shared: _Shared) -> Result:
    """Wait until a server is ready, or an agent has joined; fails with the journal where it does not."""
    run = shared.run
    role = run.member(task.host.name).role
    if role not in NODES:
        return Result(host=task.host, result="it is no node", severity_level=logging.DEBUG)
    if role == "servers":
        host_tasks.wait_for_server(task, run)
    else:
        host_tasks.wait_for_agent(task, run)
    return Result(host=task.host, result="ready")


@_step
def k3s_kubeconfig(task: Task, shared: _Shared) -> Result:
    """Fetch the kubeconfig from a server, pointed at the registration address; `result` is its path, mode 0600.

    Other hosts are left alone.
    """
    run = shared.run
    if run.member(task.host.name).role != "servers":
        return Result(host=task.host, result="it is no server", severity_level=logging.DEBUG)
    seen = _seen(task, run)
    if not seen.kubeconfig:
        raise NotReady(task.host.name, "it has no kubeconfig yet", hint="converge it first")
    with shared.turn:  # all servers give the same
        before = run.store.read(kubeconfig.FILE)
        path = kubeconfig.keep(run.store, seen.kubeconfig, server=run.cluster.url, name=run.cluster.name)
    return Result(host=task.host, changed=run.store.read(kubeconfig.FILE) != before, result=str(path))
