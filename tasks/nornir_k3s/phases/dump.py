"""Phase dump: dump the managed datastore before a run changes it or replaces K3s on a running cluster."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import datastore_dump
from nornir_k3s.apply import script as apply
from nornir_k3s.phases.phase import Phase
from nornir_k3s.roles import datastore
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of


def needed(run: Run) -> bool:
    """Return whether this run could damage the data of a running cluster in its managed datastore."""
    if not run.cluster.is_managed or not run.ready_servers:
        return False
    for plan in (run.planned(name) for name in run.chosen(m.name for m in run.of("datastore"))):
        packages = [step for step in plan.stage if step.kind == "packages"]
        if packages or any(step.kind != "database" for step in (*plan.by_role["datastore"], *plan.tidy)):
            return True
    servers = [m.name for m in run.of("servers") if run.facts[m.name].ledger.installed]
    return any(step.target == k3s.BINARY for name in run.chosen(servers) for step in run.planned(name).stage)


def dump(run: Run) -> None:
    """Dump the managed datastore if the run could damage it."""
    if not needed(run):
        return
    # Every member of an etcd has all data; one that is down cannot be dumped.
    hosts = [m.name for m in run.of("datastore") if run.facts[m.name].database.alive][:1]
    if not hosts:
        run.report.notes.append("the datastore was not dumped: none of its hosts answers")
    for name, (path, size) in run.phase("dump", hosts, _dump_host).items():
        run.report.notes.append(f"{name}: dump of the datastore: {path} ({size / 1024:.0f} KiB)")


def _dump_host(task: Task, run: Run) -> Result:
    """Dump the datastore on its own host; the result is the file's path and its size in bytes."""
    cluster, member = run.cluster, run.member(task.host.name)
    lines = datastore_dump.script(
        datastore.kind(cluster).dump(cluster, member),
        database=cluster.managed.database,
        cluster=cluster.name,
        token_fingerprint=cluster.token.fingerprint(),
    )
    answer = session_of(task, run).run(
        apply.wrapped("the dump", lines), what="dumping the datastore", timeout=run.deadlines["packages"]
    )
    with readable(member.name):
        return Result(host=task.host, result=datastore_dump.parse(answer.stdout))


PHASE = Phase("dump", "dump the managed datastore before a change that could damage it", dump)
