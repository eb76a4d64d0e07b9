"""Phases first-server and servers: one alone until it is ready, then the others; running ones one at a time."""

from __future__ import annotations

from nornir_k3s import k3s
from nornir_k3s.errors import UsageError
from nornir_k3s.phases import datastore, rolling
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run


def start_first(run: Run) -> None:
    """Start one server alone until it is ready; skipped when the cluster has a ready server already."""
    if run.ready_servers:
        return
    if run.away and not run.of("servers"):
        return  # none is to be started
    refuse_second_first(run)
    first = first_server(run)
    if not first:
        raise UsageError("no server is ready, and the run is limited to other hosts", hint="add a server to --limit")
    run.phase("first server", [first], rolling.change_server, width=1)
    run.phase("bootstrap data", [m.name for m in run.of("datastore")], datastore.wait_for_bootstrap)


def refuse_second_first(run: Run) -> None:
    """Refuse to start a first server while another one may be it, and cannot be read.

    Raises:
        UsageError: A server was filtered away, and the datastore was not seen to hold the cluster.
    """
    away = [m.name for m in run.cluster.of("servers") if m.name in run.away]
    if away and not has_data(run):
        text = f"no server here is ready, and {', '.join(away)} cannot be read: this Nornir does not have it"
        raise UsageError(text, hint="run it with the whole inventory: a cluster has one first server")


def has_data(run: Run) -> bool:
    """Say whether the datastore holds this cluster already: a server that starts then joins it."""
    key = k3s.bootstrap_key(run.cluster.token)
    return any(facts.database.bootstrap.get(key, 0) > 0 for facts in run.facts.values())


def first_server(run: Run) -> str:
    """Return the server that starts alone, or nothing where one is ready already or none may be changed."""
    if run.ready_servers:
        return ""
    servers = run.of("servers")
    # One that has been a server of this cluster before goes first: it has the cluster's files.
    known = [m for m in servers if run.facts[m.name].server.token == run.cluster.token.fingerprint()]
    return next(iter(run.chosen(m.name for m in (known or servers))), "")


def require_ready(run: Run) -> str:
    """Return a ready server.

    Raises:
        UsageError: None is ready.
    """
    if not run.ready_servers:
        raise UsageError("no server is ready", hint="run the phase first-server before this one")
    return run.ready_servers[0]


def converge_others(run: Run) -> None:
    """Bring servers that have never joined up together, then change running ones one at a time: never two down."""
    if run.away and not run.of("servers"):
        return
    todo = [m.name for m in run.of("servers") if run.planned(m.name).converge or not run.facts[m.name].ready]
    todo = [name for name in run.chosen(todo) if name not in run.done]
    down = [name for name in todo if not run.facts[name].ready]
    require_ready(run)
    run.phase("servers", down, rolling.change_server)
    for name in todo:
        if name not in down:
            run.phase("servers", [name], rolling.change_server, width=1)


def changes_running(run: Run) -> bool:
    """Say whether a server that is ready would be changed."""
    return any(run.planned(name).converge for name in run.ready_servers if name not in run.done)


FIRST = Phase("first-server", "start one server alone, until it is ready", start_first)
PHASE = Phase("servers", "join the others; change running ones one at a time", converge_others)
