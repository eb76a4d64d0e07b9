"""Phase datastore: the managed datastore of this cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.facts.database import Database
from nornir_k3s.facts.k3s_server import DirectApi
from nornir_k3s.phases.host_tasks import converge_host
from nornir_k3s.phases.phase import Phase
from nornir_k3s.retry import wait_until
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, session_of


def prepare(run: Run) -> None:
    """Set up the managed datastore, with a database and a user for this cluster only.

    Under a running cluster one host changes after the other, and the next one only when the servers are ready again.
    """
    names = run.chosen(m.name for m in run.of("datastore") if run.planned(m.name).by_role["datastore"])
    if not run.ready_servers:
        run.phase("datastore", names, _converge)  # members of a new etcd wait for each other
        return
    for name in names:
        begin, restarts = time.monotonic(), _restarts(run, name)
        run.phase("datastore", [name], _converge)
        if restarts:
            run.phase("servers", run.ready_servers, _wait_until_ready)
            seconds = time.monotonic() - begin
            run.report.notes.append(
                f"{name}: {restarts} has restarted; all servers were ready again {seconds:.0f} s later"
            )


def announced(run: Run) -> Iterator[str]:
    """Yield what a restart of the datastore means to a running cluster.

    K3s' leaders end themselves when they could not renew their leases for 10 s (kube-controller-manager,
    `--leader-elect-renew-deadline`), and K3s with them.
    """
    hosts = run.of("datastore")
    for name in run.chosen(member.name for member in hosts):
        if not run.ready_servers or not (unit := _restarts(run, name)):
            continue
        if len(hosts) > 2:
            yield f"{name}: {unit} would restart, one member at a time: the others serve meanwhile"
        else:
            yield (
                f"{name}: {unit} would restart: the API does not answer as long as that takes, 1 to 7 s; K3s survives "
                "about 5 s without its datastore, but not 10 s: the server with the leader lease exits and restarts"
            )


def _restarts(run: Run, name: str) -> str:
    """Return the unit of the datastore that would restart on a host, or nothing."""
    steps = run.planned(name).by_role["datastore"]
    return next((step.target for step in steps if step.action == "restart"), "")


def _wait_until_ready(task: Task, run: Run) -> Result:
    """Wait until a server that was ready is so again; one that led may have ended, and starts by itself."""
    wait_until(
        lambda: read_facts(task, run, [DirectApi()]).ready,
        what="the server is ready again after the restart of its datastore",
        host=task.host.name,
        deadline=run.deadlines["server"],
        stop=session_of(task, run).stop,
    )
    return Result(host=task.host)


def _converge(task: Task, run: Run) -> Result:
    return converge_host(task, run, "datastore")


def wait_for_bootstrap(task: Task, run: Run) -> Result:
    """Wait until the datastore has the cluster's bootstrap data: before that no other server may start."""
    key, name = k3s.bootstrap_key(run.cluster.token), task.host.name

    def filled() -> bool:
        inside = read_facts(task, run, [Database()]).database
        run.facts[name] = replace(run.facts[name], database=inside)
        return inside.bootstrap.get(key, 0) > 0

    wait_until(
        filled,
        what=f"the datastore has the bootstrap data {key}",
        host=name,
        deadline=run.deadlines["verify"],
        stop=session_of(task, run).stop,
    )
    return Result(host=task.host)


PHASE = Phase("datastore", "set up the managed datastore for this cluster", prepare)
