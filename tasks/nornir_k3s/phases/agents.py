"""Phase agents: join them through the registration address; change running ones behind a canary."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s.errors import NotReady
from nornir_k3s.facts.k3s_node import ThroughAddress
from nornir_k3s.phases.host_tasks import settle_agent
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.rolling import change_node
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.retry import wait_until
from nornir_k3s.roles.former_address import registered
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, session_of

ANSWERS = 60  # seconds until a new registration address must answer an agent that has another one


def join(run: Run) -> None:
    """Join new agents together, beside the first of those that run: the others change when it is ready again."""
    names = run.chosen(m.name for m in run.of("agents") if run.planned(m.name).by_role["agents"])
    if names and run.of("servers"):
        require_ready(run)
    running = [name for name in names if run.facts[name].in_service]
    run.phase("agents", [name for name in running if moves(run, name)], _await_address, width=run.widths["agents"])
    first = [name for name in names if name not in running[1:]]
    for together in (first, running[1:]):
        run.phase("agents", together, change_node, width=run.widths["agents"])


def moves(run: Run, name: str) -> bool:
    """Return whether an agent's file has another registration address."""
    return registered(run.facts[name]) not in ("", run.cluster.url)


def _await_address(task: Task, run: Run) -> Result:
    """Wait until the new registration address answers this agent, which has the old one until then.

    Raises:
        NotReady: It does not.
    """
    name, why = task.host.name, ""

    def answers() -> bool:
        nonlocal why
        why = read_facts(task, run, [ThroughAddress()]).registration or ""
        return not why

    run.tell(name, f"waiting until {run.cluster.url} answers")
    try:
        wait_until(
            answers,
            what="the new registration address answers",
            host=name,
            deadline=min(ANSWERS, run.deadlines["verify"]),
            stop=session_of(task, run).stop,
        )
    except NotReady:
        text = f"{run.cluster.url}, its new registration address, does not answer: {why}"
        hint = "correct the address, or what it leads to, then run deploy again; agents keep the old one until then"
        raise NotReady(name, text, hint=hint) from None
    return Result(host=task.host)


def settle(run: Run) -> None:
    """Wait until the services of agents are active that were not when their nodes were Ready."""
    run.phase("verify", sorted(run.awaited), settle_agent, width=run.widths["agents"])


PHASE = Phase("agents", "join the agents through that address", join, beside="servers")
