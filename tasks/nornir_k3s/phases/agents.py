"""Phase agents: join them through the registration address."""

from __future__ import annotations

from nornir_k3s.phases.host_tasks import converge_agent
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.run.context import Run


def join(run: Run) -> None:
    """Join the agents through the registration address."""
    names = [m.name for m in run.of("agents") if run.planned(m.name).converge]
    if names and run.of("servers"):
        require_ready(run)
    run.phase("agents", run.chosen(names), converge_agent, width=run.widths["agents"])


PHASE = Phase("agents", "join the agents through that address", join, beside="servers")
