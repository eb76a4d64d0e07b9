"""Phase tidy: remove what no host needs any more, when all hosts have what comes instead of it."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s.phases import load_balancers, registration
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.phase import Phase
from nornir_k3s.roles import left
from nornir_k3s.roles.former_address import former_vips
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster


def tidy(run: Run) -> None:
    """Remove users of earlier passwords of the datastore, and load balancers that the cluster has left."""
    servers = run.of("servers")
    current = all(m.name in run.done or not run.planned(m.name).by_role["servers"] for m in servers)
    moved = all(m.name in run.done or not registration.moves(run, m.name) for m in run.of("agents"))
    whole = all(len(run.of(role)) == len(run.cluster.of(role)) for role in ("servers", "agents", "lb"))
    if left.listed(run.cluster, run.facts) is not None:
        gone = left.members(run.cluster, run.facts)
        known_cluster.save_left(run.store, [*gone, *run.cluster.left_others])
    if run.limit is None and current and moved and whole:
        run.phase("tidy", [name for name in run.names if run.planned(name).tidy], _tidy_host, width=1)
        _release_vips(run)


def _release_vips(run: Run) -> None:
    """Let load balancers give away VIPs that no host uses any more."""
    before, now = (former_vips(run.cluster, run.facts, moved) for moved in ((), run.done))
    if set(before) - set(now):
        run.phase("tidy", [m.name for m in run.of("lb")], gather.gather_host, reads=True)
        load_balancers.converge(run)


def _tidy_host(task: Task, run: Run) -> Result:
    return apply_steps(task, run, run.planned(task.host.name).tidy, deadline=run.deadlines["apply"])


PHASE = Phase("tidy", "remove datastore users, load balancers and VIPs that no host needs any more", tidy)
