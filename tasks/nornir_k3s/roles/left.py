"""Servers and agents that are not in the inventory any more: until they were removed they belong to the cluster."""

from __future__ import annotations

from collections.abc import Mapping

from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState


def members(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> tuple[Member, ...]:
    """Return those that still are nodes, or servers that HAProxy sees up; all that are remembered if that is not known.

    Arguments:
        cluster: Its `left` are those that the last deploys remember.
    """
    nodes = listed(cluster, all_facts)
    if nodes is None:
        return cluster.left
    present = [member for role in NODES for member in cluster.of(role)]
    known = {name for member in present for name in (member.node_name, *member.addresses)}
    remembered = {member.node_name: member for member in cluster.left}
    up = {name for facts in all_facts.values() for name, one in facts.backends.items() if one.state.startswith("UP")}
    there = {node.name: remembered.get(node.name) or _member(node) for node in nodes}
    there |= {name: member for name, member in remembered.items() if name in up}
    return tuple(one for name, one in there.items() if one.address and not known & {name, one.address})


def listed(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> tuple[NodeState, ...] | None:
    """Return the nodes as a ready server lists them, or None if no server does."""
    servers = [all_facts[m.name] for m in cluster.of("servers") if m.name in all_facts]
    servers.sort(key=lambda facts: not facts.ready)
    return next((facts.api.nodes for facts in servers if facts.api.nodes is not None), None)


def _member(node: NodeState) -> Member:
    """Return the member that this node was: another controller may have deployed it."""
    role = "servers" if "control-plane" in node.roles else "agents"
    return Member(node.name, role, node.address, node.name)
