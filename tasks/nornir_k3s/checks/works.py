"""Proof that the finished cluster works: what is not yet as it must be, seen from its hosts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_facts import HostFacts, NodeState


def problems(cluster: Cluster, facts: Mapping[str, HostFacts], only: Collection[str] | None = None) -> list[str]:
    """Return in words what is not yet as it must be; nothing when the cluster works.

    Arguments:
        facts: By host name: one server's API, every agent's reach, every load balancer's addresses.
        only: The hosts whose nodes must be right; all of them by default.
    """
    found: list[str] = []
    for member in cluster.of("servers"):
        if member.name in facts:
            found += _nodes(cluster, member.name, facts[member.name], only)
    for member in cluster.of("agents"):
        lost = [one.name for one in facts[member.name].reach if one.outcome != "open"] if member.name in facts else []
        found += [f"{member.name} does not reach server {server} directly" for server in lost]
    balancers = [m.name for m in cluster.of("lb") if m.name in facts]
    holders = [name for name in balancers if facts[name].interface_of(str(cluster.registration.address or ""))]
    if balancers and (problem := vip_problem(cluster, holders)):
        found.append(problem)
    return found


def _nodes(cluster: Cluster, server: str, facts: HostFacts, only: Collection[str] | None) -> list[str]:
    api = facts.api
    if api.nodes is None or not api.through_address:
        return [f"the API does not answer {server} through {cluster.url}: {api.error or 'no answer'}"]
    have = {node.name: node for node in api.nodes}
    members = [member for role in NODES for member in cluster.of(role) if only is None or member.name in only]
    found = (node_problem(cluster, member, have.get(member.node_name)) for member in members)
    return [problem for problem in found if problem]


def node_problem(cluster: Cluster, member: Member, node: NodeState | None) -> str:
    """Return in words what is wrong with a member's node, if anything; None stands for one that is not listed."""
    name = member.node_name
    if node is None:
        return f"node {name} is not listed"
    if not node.ready:
        return f"node {name} is not Ready"
    if node.version != cluster.version:
        return f"node {name} runs {node.version}, the inventory asks for {cluster.version}"
    if (member.role == "servers") != ("control-plane" in node.roles):
        return f"node {name} has the roles {', '.join(node.roles) or 'none'}, it is in group {member.role}"
    return ""


def vip_problem(cluster: Cluster, holders: Sequence[str]) -> str:
    """Return in words what is wrong with the VIP being on these load balancers, if anything."""
    if len(holders) == 1:
        return ""
    where = " and ".join(holders) or "no load balancer"
    return f"the VIP {cluster.registration.address} is on {where}; exactly one must hold it"
