"""The parts of a restore that change hosts: servers stop, the datastore's content is replaced."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nornir.core.task import Result, Task

from nornir_k3s import k3s, shell
from nornir_k3s.apply import removal as scripts
from nornir_k3s.apply import restore as apply
from nornir_k3s.apply.script import wrapped
from nornir_k3s.model.backup import Manifest
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.roles import datastore
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import session_of


def stop(run: Run, manifest: Manifest, *, number: str) -> None:
    """Stop K3s on all servers, all of them before the data change."""

    def stop_host(task: Task, run: Run) -> Result:
        script = apply.stop(manifest, task.host.name, number=number)
        session_of(task, run).run(script, what="stopping K3s", timeout=run.deadlines["apply"])
        return Result(host=task.host, changed=True)

    run.phase("stop", [member.name for member in run.cluster.of("servers")], stop_host)


def replace(run: Run, dump: Path, sha256: str, *, number: str) -> None:
    """Put the dump in place of the datastore's content, on each of its hosts; the old content is kept."""

    def replace_host(task: Task, run: Run) -> Result:
        member, link = run.member(task.host.name), session_of(task, run)
        recipe = datastore.kind(run.cluster).dump(run.cluster, member)
        file = f"{apply.FOLDER}/dump.{recipe.suffix}"
        run.tell(member.name, "sending the dump")
        link.push(dump, file, sha256=sha256, timeout=run.deadlines["push"])
        run.tell(member.name, "restoring the datastore")
        script = apply.replace(recipe, file, database=run.cluster.managed.database, number=number)
        link.run(script, what="restoring the datastore", timeout=run.deadlines["dump"], secrets=run.cluster.secrets())
        return Result(host=task.host, changed=True)

    run.phase("datastore", [member.name for member in run.cluster.of("datastore")], replace_host)


def forget_nodes(run: Run, names: Collection[str]) -> None:
    """Let hosts join that were bare: agents' nodes are deleted, and the passwords of servers.

    A server registers its node's password when it starts (k3s: pkg/nodepassword): one that runs already is stopped, and
    the deploy that comes next starts it again.
    """
    members = [run.member(name) for name in names]
    agents = [scripts.of_node(one.node_name, anew=True) for one in members if one.role == "agents"]
    secrets = [f"{one.node_name}.node-password.k3s" for one in members if one.role == "servers"]

    def forget(task: Task, run: Run) -> Result:
        if secrets:
            call = shell.call("timeout", 60, k3s.BINARY, "kubectl", "-n", "kube-system", "delete", "secret", *secrets)
            script = wrapped("node passwords", f"{call} --ignore-not-found >&2")
            session_of(task, run).run(script, what="deleting node passwords", timeout=run.deadlines["apply"])
        return apply_steps(task, run, agents, deadline=run.deadlines["apply"])

    def stop_host(task: Task, run: Run) -> Result:
        script = wrapped("stop K3s", shell.call("systemctl", "stop", k3s.UNITS["server"]))
        session_of(task, run).run(script, what="stopping K3s", timeout=run.deadlines["apply"])
        return Result(host=task.host, changed=True)

    run.phase("nodes", [require_ready(run)] if members else [], forget)
    run.phase("stop", [name for name in names if name in run.ready_servers], stop_host)
