"""Phases of a removal: drain, out of the load balancers, uninstall, delete the node, drop the database user."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s.apply import removal as scripts
from nornir_k3s.apply import reset as resets
from nornir_k3s.errors import NotReady
from nornir_k3s.model.cluster import NODES, Member
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.step import Step
from nornir_k3s.phases import datastore, drain, load_balancers, reset
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.run.context import Run

_HINT = "see what keeps its pods (a PodDisruptionBudget, pods without controller), or change rolling_update.drain"


def phases(leaving: Collection[Member], *, lost: bool, anew: bool = False) -> tuple[Phase, ...]:
    """Return the phases that take these hosts out, in order; each may be killed and run again.

    Arguments:
        lost: They are dead or gone: nothing is done on them.
        anew: Their hosts may register the nodes again at once, with other passwords.
    """

    def on_hosts(run: Run) -> None:
        names = [] if lost else [member.name for member in leaving if is_node(member)]
        run.phase("uninstall", names, _uninstall)

    def nodes(run: Run) -> None:
        steps = [scripts.of_node(member.node_name, anew=anew) for member in leaving if is_node(member)]
        if not steps:
            return
        run.phase("node", [require_ready(without(run, leaving))], _applies(steps))

    return (
        Phase("drain", "move the pods to other nodes", lambda run: None if lost else _drain(run, leaving)),
        Phase("load-balancers", "take servers out of HAProxy", lambda run: _leave_balancers(run, leaving, lost=lost)),
        Phase("uninstall", "uninstall K3s, remove this tool's files", on_hosts),
        Phase("node", "delete the node and its password", nodes),
        Phase("datastore", "remove the database user", lambda run: _leave_datastore(run, leaving)),
    )


def without(run: Run, leaving: Collection[Member]) -> Run:
    """Return the run of the cluster that is left when these hosts have gone."""
    names, nodes = {member.name for member in leaving}, {member.node_name for member in leaving}
    members = tuple(member for member in run.cluster.members if member.name not in names)
    gone = tuple(member for member in run.cluster.left if member.name not in names)
    others = tuple(member for member in run.cluster.left_others if member.name not in names)
    facts = {name: _forgetting(one, nodes) for name, one in run.facts.items() if name not in names}
    cluster = replace(run.cluster, members=members, left=gone, left_others=others)
    return replace(run, cluster=cluster, facts=facts, _planned={})


def _forgetting(facts: HostFacts, nodes: Collection[str]) -> HostFacts:
    if facts.api.nodes is None:
        return facts
    listed = tuple(node for node in facts.api.nodes if node.name not in nodes)
    return replace(facts, api=replace(facts.api, nodes=listed))


def drained(run: Run, leaving: Collection[Member]) -> list[Member]:
    """Return those of the hosts whose nodes are drained: others run no pods."""
    return [member for member in leaving if run.is_node_ready(member.name)]


def _drain(run: Run, leaving: Collection[Member]) -> None:
    """Drain the nodes; nothing is changed if that fails: they are uncordoned again.

    Raises:
        NotReady: One cannot be drained.
    """
    names = [member.name for member in drained(run, leaving)]
    if not names:
        return
    failed = {name: why for name, why in drain.empty(run, names).items() if why}
    if failed:
        drain.release(run, [name for name in names if name not in failed])
        name, why = next(iter(failed.items()))
        lines = "\n".join("    " + line for line in why.strip().splitlines())
        raise NotReady(name, f"not removed, because its node could not be drained\n{lines}", hint=_HINT)


def is_node(member: Member) -> bool:
    """Return whether a host is a server or an agent."""
    return member.role in NODES


def balancers(leaving: Collection[Member]) -> list[str]:
    """Return those of the hosts that are load balancers, and nothing else."""
    return [member.name for member in leaving if member.roles == ("lb",)]


def changes_balancers(leaving: Collection[Member]) -> bool:
    """Return whether the load balancers that stay must know of it."""
    return any(member.role == "servers" for member in leaving) or bool(balancers(leaving))


def _leave_balancers(run: Run, leaving: Collection[Member], *, lost: bool) -> None:
    """Take load balancers down: they give the VIP away; then those that stay learn who has gone."""
    if not lost:
        run.phase("uninstall", balancers(leaving), _take_down)
    if changes_balancers(leaving):
        load_balancers.converge(without(run, leaving))


def _leave_datastore(run: Run, leaving: Collection[Member]) -> None:
    if not any(member.role == "servers" for member in leaving):
        return
    later = without(run, leaving)
    datastore.prepare(later)
    for member in later.of("datastore"):
        later.phase("datastore", [member.name], _applies(later.planned(member.name).tidy))


def _take_down(task: Task, run: Run) -> Result:
    facts = run.facts[task.host.name]
    return reset.apply_to_host(task, run, resets.on_host(run.cluster, facts, data_stay=True))


def _uninstall(task: Task, run: Run) -> Result:
    return apply_steps(task, run, scripts.on_host(run.member(task.host.name)), deadline=run.deadlines["apply"])


def _applies(steps: Collection[Step]) -> Callable[[Task, Run], Result]:
    def apply_them(task: Task, run: Run) -> Result:
        return apply_steps(task, run, list(steps), deadline=run.deadlines["apply"])

    return apply_them
