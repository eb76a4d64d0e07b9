"""Servers and agents that a Nornir task changes each: with the rotation, the drain and the limits of a deploy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nornir.core.task import Result, Task

from nornir_k3s.errors import HostError, NotReady
from nornir_k3s.host_steps import replaces_binary
from nornir_k3s.model.together import few
from nornir_k3s.phases import batches, drain, encryption, rolling, rotation, window
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.shared import Shared

log = logging.getLogger(__name__)


def change_server(task: Task, shared: Shared) -> Result:
    """Bring a server to its desired state, out of rotation if it was ready; the caller has the servers' turn.

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
    """Bring an agent to its desired state, drained before K3s is replaced; one that restarts waits for its turn.

    Raises:
        K3sError: It did not get ready or could not be drained, or it is not touched because others failed.
    """
    name, run = task.host.name, shared.whole(task)
    if not run.planned(name).starts_k3s or not run.facts[name].in_service:
        return rolling.change_node(task, run)
    _require_servers_first(run, name)
    stop = getattr(run.nr.runner, "stop", None)
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
    """Check the window when the turn has come."""
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
