"""Phase agents: join them through the registration address; change running ones behind a canary."""

from __future__ import annotations

from nornir_k3s.phases import registration
from nornir_k3s.phases.host_tasks import settle_agent
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.rolling import change_node
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.run.context import Run


def join(run: Run) -> None:
    """Join new agents together, beside the first of those that run: the others change when it is ready again."""
    names = run.chosen(m.name for m in run.of("agents") if run.planned(m.name).by_role["agents"])
    if names and run.of("servers"):
        require_ready(run)
    running = [name for name in names if run.facts[name].in_service]
    registration.await_address(run, running, [name for name in names if name not in running])
    first = [name for name in names if name not in running[1:]]
    for together in (first, running[1:]):
        run.phase("agents", together, change_node, width=run.widths["agents"])


def settle(run: Run) -> None:
    """Wait until the services of agents are active that were not when their nodes were Ready."""
    run.phase("verify", sorted(run.awaited), settle_agent, width=run.widths["agents"])


PHASE = Phase("agents", "join the agents through that address", join, beside="servers")
