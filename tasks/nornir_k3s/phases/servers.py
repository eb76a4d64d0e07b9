"""Phases first-server and servers: one server alone until it is ready, then the others; running ones one at a time."""

from __future__ import annotations

from nornir_k3s import k3s
from nornir_k3s.errors import UsageError
from nornir_k3s.phases import check_certificate, datastore, drain, encryption, rolling, running_server
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run


def start_first(run: Run) -> None:
    """Start one server alone and wait until it is ready; skipped if the cluster has a ready server."""
    if not run.ready_servers:
        encryption.resume(run)
    if run.ready_servers:
        return
    if run.away and not run.of("servers"):
        return  # this inventory has no server
    require_all_servers(run)
    first = first_server(run)
    if not first:
        raise UsageError("no server is ready, and the run is limited to other hosts", hint="add a server to --limit")
    run.phase("first server", [first], rolling.change_node, width=1)
    run.phase("bootstrap data", [m.name for m in run.of("datastore")], datastore.wait_for_bootstrap)


def require_all_servers(run: Run) -> None:
    """Check that no server outside this inventory could be the first server already: a cluster has only one.

    Raises:
        UsageError: A server was filtered out, and the datastore is not known to have the cluster's data.
    """
    away = [m.name for m in run.cluster.of("servers") if m.name in run.away]
    if away and not has_data(run):
        text = f"no ready server, and {', '.join(away)} cannot be read: not in this inventory"
        raise UsageError(text, hint="run with the whole inventory: only one server may start alone")


def has_data(run: Run) -> bool:
    """Return whether the datastore has this cluster's data: a server that starts then joins the cluster."""
    key = k3s.bootstrap_key(run.cluster.token)
    return any(facts.database.bootstrap.get(key, 0) > 0 for facts in run.facts.values())


def first_server(run: Run) -> str:
    """Return the server that starts alone; nothing if a server is ready or none may be changed."""
    if run.ready_servers:
        return ""
    servers = run.of("servers")
    # A server that was in this cluster before goes first: it has the cluster's files.
    earlier = [m for m in servers if run.facts[m.name].server.token == run.cluster.token.fingerprint()]
    return next(iter(run.chosen(m.name for m in (earlier or servers))), "")


def require_ready(run: Run) -> str:
    """Return a ready server.

    Raises:
        UsageError: None is ready.
    """
    if not run.ready_servers:
        raise UsageError("no server is ready", hint="run the phase first-server before this one")
    return run.ready_servers[0]


def converge_others(run: Run) -> None:
    """Start servers that do not run together, then change the others one at a time: never two of them down."""
    if run.away and not run.of("servers"):
        return
    encryption.converge(run)
    names = [m.name for m in run.of("servers") if run.planned(m.name).by_role["servers"] or not run.facts[m.name].ready]
    names = [name for name in run.chosen(names) if name not in run.done]
    down = [name for name in names if not _runs(run, name)]
    require_ready(run)
    run.phase("servers", down, rolling.change_node)
    if any(run.planned(name).starts_k3s for name in names if name not in down):
        check_certificate.renew_ended(run)
    for name in sorted(names, key=lambda one: run.facts[one].ready):  # a ready one waits for the others
        if name not in down:
            running_server.change(run, name)
    drain.put_back(run)


def _runs(run: Run, name: str) -> bool:
    """Return whether a server is ready, or would be restarted: with expired certificates it may still serve others."""
    plan, active = run.planned(name), run.facts[name].unit(k3s.UNITS["server"]).active == "active"
    return run.facts[name].ready or (active and plan.starts_k3s)


def changes_running(run: Run) -> bool:
    """Return whether a server that is ready would be changed."""
    changed = any(run.planned(name).by_role["servers"] for name in run.ready_servers if name not in run.done)
    return changed or encryption.pending(run)


FIRST = Phase("first-server", "start one server alone, until it is ready", start_first)
PHASE = Phase("servers", "join the others; change running ones one at a time", converge_others)
