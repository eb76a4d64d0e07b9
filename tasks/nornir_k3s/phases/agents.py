"""Phase agents: join them through the registration address; restart running ones one first, then in batches."""

from __future__ import annotations

from nornir_k3s.phases import batches, drain, registration, window
from nornir_k3s.phases.host_tasks import settle_agent
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.rolling import change_node, change_one_of_many
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.run.context import Run


def join(run: Run) -> None:
    """Join new agents together, beside the first one that restarts; the others restart in batches when it is ready.

    Raises:
        K3sError: The first one that restarts failed, or more of the others did than may.
    """
    names = run.chosen(m.name for m in run.of("agents") if run.planned(m.name).by_role["agents"])
    if names and run.of("servers"):
        require_ready(run)
    running = [name for name in names if run.facts[name].in_service]
    registration.await_address(run, running, [name for name in names if name not in running])
    first, *left = batches.restarting(run, names) or [""]
    beside = [name for name in names if name not in (first, *left)]
    drain.put_back(run)
    window.require_open(run, window.restarting(run, ["agents"]))
    with drain.drained(run, [first] if first else []) as drained:
        run.phase("agents", [*beside, *drained], change_node, width=run.widths["agents"], spare=beside)
    drain.put_back(run)
    if first in run.left_out:
        batches.raise_failed(run)
    batches.require_few_failures(run, left)
    while left:
        window.require_open(run, left)
        batch, left = batches.take(run, left)
        with drain.drained(run, batch) as drained:
            run.phase("agents", drained, change_one_of_many, width=run.widths["agents"], spare=drained)
        batches.require_few_failures(run, left)


def settle(run: Run) -> None:
    """Wait until the services of agents are active that were not when their nodes were Ready."""
    run.phase("verify", sorted(run.awaited), settle_agent, width=run.widths["agents"])


PHASE = Phase("agents", "join the agents through that address; restart running ones in batches", join, beside="servers")
