"""Waits until the registration address answers, before agents are told to use it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from nornir.core.task import Result, Task

from nornir_k3s.checks import registration
from nornir_k3s.errors import K3sError, NotReady
from nornir_k3s.facts.k3s_node import ThroughAddress
from nornir_k3s.facts.network import REGISTRATION, Reach
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.retry import wait_until
from nornir_k3s.roles.former_address import registered
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, session_of

ANSWERS = 60  # seconds until the address must answer an agent
HERE = 15  # seconds until it should answer the controller, which may be outside its network


def moves(run: Run, name: str) -> bool:
    """Return whether an agent's file has another registration address."""
    return registered(run.facts[name]) not in ("", run.cluster.url)


def await_address(run: Run, running: Sequence[str], new: Sequence[str]) -> None:
    """Wait until the address answers agents that have another one, and those that join by a load balancer of others.

    Raises:
        K3sError: It does not, or it does not lead to the cluster.
    """
    width = run.widths["agents"]
    run.phase("agents", [name for name in running if moves(run, name)], _answers, width=width, reads=True)
    if not new or run.cluster.registration.way != "external":
        return
    run.phase("agents", new, _connects, width=width, reads=True)
    with contextlib.suppress(NotReady):
        _wait(run, lambda: _look(run), host=CLUSTER, seconds=HERE)
    found = [one for one in registration.check(run.cluster, run.facts, run.address) if one.severity == "error"]
    if found:
        raise K3sError(f"agents cannot join: {found[0].found}", hint=found[0].remedy)


def _look(run: Run) -> bool:
    gather.look_at_address(run)
    return run.address is None or run.address.failure != "connection"


def _wait(run: Run, ready: Callable[[], bool], *, host: str, seconds: float) -> None:
    what, stop = f"{run.cluster.url} answers", run.stop
    wait_until(ready, what=what, host=host, deadline=min(seconds, run.deadlines["verify"]), stop=stop)


def _answers(task: Task, run: Run) -> Result:
    """Wait until the new registration address answers this agent, which has the old one until then.

    Raises:
        NotReady: It does not.
    """
    why = ""

    def answers() -> bool:
        nonlocal why
        why = read_facts(task, run, [ThroughAddress()]).registration or ""
        return not why

    return _waited(
        task, run, answers, lambda: f"{run.cluster.url}, its new registration address, does not answer: {why}"
    )


def _connects(task: Task, run: Run) -> Result:
    """Wait until this agent, which joins now, can connect to the load balancer.

    Raises:
        NotReady: It cannot.
    """
    outcome = ""

    def connects() -> bool:
        nonlocal outcome
        outcomes = {one.name: one.outcome for one in read_facts(task, run, [Reach()]).reach}
        outcome = outcomes.get(REGISTRATION, "open")  # not asked: there is no bash
        return outcome == "open"

    return _waited(task, run, connects, lambda: f"it cannot connect to {run.cluster.url}: {outcome}")


def _waited(task: Task, run: Run, ready: Callable[[], bool], text: Callable[[], str]) -> Result:
    name = task.host.name
    session_of(task, run)
    run.tell(name, f"waiting until {run.cluster.url} answers")
    try:
        _wait(run, ready, host=name, seconds=ANSWERS)
    except NotReady:
        hint = "correct the address, or what it leads to, then run deploy again; agents keep an old one until then"
        raise NotReady(name, text(), hint=hint) from None
    return Result(host=task.host)
