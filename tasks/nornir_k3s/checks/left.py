"""Hosts that left the inventory and not the cluster: they still run K3s and are nodes, or hold the VIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import CLUSTER, Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.roles import left

EXPECTED_OTHERS = "hosts of the inventory only"
EXPECTED = "nodes of the inventory only"


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield each of them."""
    nodes = left.listed(cluster, all_facts)
    by_name = {node.name: node for node in nodes or ()}
    for member in left.members(cluster, all_facts):
        found = describe(cluster, member, by_name.get(member.node_name), known=nodes is not None)
        yield problem(CLUSTER, "left", found, EXPECTED, remedy(member), "warning")
    for member in cluster.left_others:
        yield problem(CLUSTER, "left", describe_other(member), EXPECTED_OTHERS, remedy_other(member), "warning")


def describe_other(member: Member) -> str:
    """Return what a load balancer or a host of the datastore may go on with that has left the inventory."""
    if "lb" in member.roles:
        return f"load balancer {member.name} is not in the inventory, and was not removed: it may hold the VIP, too"
    return f"{member.name} is not in the inventory, and was a host of the datastore: service and data are still there"


def remedy_other(member: Member) -> str:
    """Return what to do about it."""
    gone = f"`nornir-k3s remove --lost {member.name}`"
    if "lb" in member.roles:
        now = f"`nornir-k3s remove {member.name}` takes it down"
        return f"{now}, {gone} if the host is gone for good; or put it back into the inventory"
    return f"if its data are not needed any more, stop the service there; {gone} ends this warning"


def describe(cluster: Cluster, member: Member, node: NodeState | None, *, known: bool = True) -> str:
    """Return what is still there of a host that has left the inventory.

    Arguments:
        node: As a server lists it; None if it is not listed.
        known: A server lists the nodes.
    """
    name, what = member.node_name, member.role.removesuffix("s")
    if node:
        state = "K3s runs there" if node.ready else "it is not Ready"
        found = f"{what} {name} is not in the inventory, and still a node of the cluster: {state}"
    elif known:
        found = f"server {name} is not in the inventory and no node, but HAProxy sees its K3s up"
    else:
        found = (
            f"{what} {name} is not in the inventory, and was not taken out of the cluster; no server lists the nodes"
        )
    kept = [*(["in HAProxy"] if cluster.of("lb") else []), *(["a database user"] if _has_user(cluster) else [])]
    return f"{found}; deploy leaves it {' and '.join(kept)}" if kept and member.role == "servers" else found


def remedy(member: Member) -> str:
    """Return what to do about it."""
    name = member.name
    return (
        f"`nornir-k3s remove {name}` takes it out, `nornir-k3s remove --lost {name}` if the host is gone for good; "
        "or put it back into the inventory"
    )


def _has_user(cluster: Cluster) -> bool:
    return cluster.is_managed and cluster.managed.kind != "etcd"
