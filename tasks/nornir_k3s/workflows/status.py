"""status: the cluster at a glance, read-only: nodes, servers behind the VIP, who holds it, datastore, certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s.checks import works
from nornir_k3s.compare import certificate_expiry, load_balancers, nodes
from nornir_k3s.facts import Fact
from nornir_k3s.facts.database import Database
from nornir_k3s.facts.k3s_node import Certificates
from nornir_k3s.facts.k3s_server import Api
from nornir_k3s.facts.load_balancer import Backends
from nornir_k3s.facts.network import Addresses, UnreachableDatastore
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.model.host_facts import HostFacts, NodeState
from nornir_k3s.model.status import Balancer, Certificate, NodeStatus, Status
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice

CONNECT = 5.0  # seconds: a glance does not wait for a host that is down
SOON = 30  # days; K3s renews certificates itself where it starts with fewer than 120 left (docs: cli/certificate.md)


def status(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Status:
    """Return the state of the cluster; one round trip a host, nothing is changed.

    Arguments:
        nr, base, state, options: As `deploy` takes them.

    Raises:
        UsageError: The inventory is wrong. Hosts that cannot be reached are part of the result.
    """
    where = paths.of(nr, base, state)
    deadlines = {**(options or {}).get("deadlines", {}), "connect": CONNECT}
    options = {**(options or {}), "deadlines": deadlines}
    run = gather.prepare(nr, base=where.base, state=where.state, options=options, choice=Choice(), keep=False)
    names = run.present
    found: dict[str, HostFacts] = run.phase("status", names, _ask, width=run.widths["stage"], lenient=names)
    seen = {name: value for name, value in found.items() if isinstance(value, HostFacts)}
    result = Status(cluster=run.cluster.name, version=run.cluster.version, url=run.cluster.url)
    result.unreachable = [name for name in names if name not in seen]
    _fill(result, run.cluster, seen)
    result.problems = [f"{name} cannot be reached" for name in result.unreachable]
    result.problems += _problems(result, run.cluster, nodes.listed(run.cluster, seen) or [])
    return result


_ASKED: Mapping[str, tuple[Fact[Any], ...]] = {
    "servers": (Api(), Certificates(), UnreachableDatastore()),
    "agents": (Certificates(),),
    "lb": (Addresses(), Backends()),
    "datastore": (Database(),),
}


def _ask(task: Task, run: Run) -> Result:
    role = run.member(task.host.name).role
    return Result(host=task.host, result=gather.ask(task, run, _ASKED[role], timeout=30))


def _fill(result: Status, cluster: Cluster, seen: Mapping[str, HostFacts]) -> None:
    result.servers = {m.name: seen[m.name].ready for m in cluster.of("servers") if m.name in seen}
    result.nodes = [_node(node) for node in nodes.listed(cluster, seen) or []]
    holders = load_balancers.holders(cluster, seen)
    for name in (m.name for m in cluster.of("lb") if m.name in seen):
        result.balancers[name] = Balancer(holds_vip=name in holders, servers=load_balancers.states(seen[name]))
    for member in cluster.of("datastore"):
        result.datastore[member.name] = _datastore(seen.get(member.name))
    if cluster.endpoint:
        lost = {one.place for facts in seen.values() for one in facts.unreachable}
        for host, port in parse_endpoint(cluster.endpoint).hosts:
            result.datastore[f"{host}:{port}"] = "unreachable" if f"{host}:{port}" in lost else "active"
    result.certificates = [
        Certificate(host=one.host, path=one.path, days=one.days, authority=one.authority)
        for one in certificate_expiry.expiries(seen)
    ]


def _datastore(facts: HostFacts | None) -> str:
    if facts is None:
        return "unreachable"
    return "active" if facts.database.alive else "inactive"


def _node(node: NodeState) -> NodeStatus:
    return NodeStatus(
        name=node.name,
        ready=node.ready,
        version=node.version,
        roles=list(node.roles),
        schedulable=node.schedulable,
    )


def _problems(result: Status, cluster: Cluster, listed: Sequence[NodeState]) -> list[str]:
    found = [f"server {name} is not ready" for name, ready in result.servers.items() if not ready]
    have = {node.name: node for node in listed}
    members = (*cluster.of("servers"), *cluster.of("agents"))
    found += filter(None, (works.node_problem(cluster, member, have.get(member.node_name)) for member in members))
    if result.balancers:
        found += filter(None, [works.vip_problem(cluster, result.holder)])
    for name, balancer in result.balancers.items():
        down = [server for server, state in balancer.servers.items() if not state.startswith("UP")]
        found += [f"{name} sees server {server} {balancer.servers[server]}" for server in down]
        if not balancer.servers:
            found.append(f"HAProxy on {name} does not answer")
    found += [f"datastore {name} is {state}" for name, state in result.datastore.items() if state != "active"]
    for one in result.certificates:
        if one.days < SOON:
            todo = "renew the CA by hand" if one.authority else "restart K3s there, it renews them"
            found.append(f"{one.path} on {one.host} ends in {one.days} days: {todo}")
    return found
