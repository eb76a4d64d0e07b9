"""Phase datastore: the managed datastore of this cluster."""

from __future__ import annotations

from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.facts.database import Database
from nornir_k3s.phases.host_tasks import converge_host
from nornir_k3s.phases.phase import Phase
from nornir_k3s.retry import wait_until
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, session_of


def prepare(run: Run) -> None:
    """Set up the managed datastore, with a database and a user for this cluster only."""
    names = run.chosen(m.name for m in run.of("datastore") if run.planned(m.name).by_role["datastore"])
    # Members of a new etcd wait for each other; those of a running one must not be down together.
    run.phase("datastore", names, _converge, width=1 if run.ready_servers else len(names) or 1)


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
