"""Verification: what does not work yet in the finished cluster, from the facts of its hosts. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence

from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.roles.server import names as server_names


def problems(
    cluster: Cluster,
    all_facts: Mapping[str, HostFacts],
    only: Collection[str] | None = None,
    address: AddressAnswer | None = None,
    left_out: Collection[str] = (),
) -> list[str]:
    """Return what does not work yet, one sentence each; nothing when the cluster works.

    Arguments:
        all_facts: By host name: one server's API, what every agent reaches, every load balancer's addresses.
        only: The hosts whose nodes are checked; all of them by default.
        address: What was found at the registration address.
        left_out: Hosts that the run went on without: their nodes are not checked.
    """
    found: list[str] = []
    members = [member for role in NODES for member in cluster.of(role)]
    checked = [one for one in members if (only is None or one.name in only) and one.name not in left_out]
    for member in cluster.of("servers"):
        if member.name in all_facts:
            proven = reached_by_others(all_facts, address)
            found += _nodes(cluster, member.name, all_facts[member.name], checked, proven=proven)
    servers = {member.name for member in cluster.of("servers")}
    for member in cluster.of("agents"):
        lost = (
            [one.name for one in all_facts[member.name].reach if one.outcome != "open" and one.name in servers]
            if member.name in all_facts
            else []
        )
        found += [f"{member.name} cannot connect to server {server} directly" for server in lost]
    found += unreached(cluster, all_facts)
    if only is None and address:
        missing = missing_names(cluster, address.names)
        found += [f"the API's certificate does not contain {name}" for name in missing]
    balancers = [m.name for m in cluster.of("lb") if m.name in all_facts]
    for vip in cluster.vips if balancers else ():
        holders = [name for name in balancers if all_facts[name].interface_of(vip)]
        if problem := vip_problem(vip, holders):
            found.append(problem)
    return found


def unreached(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return which agents do not reach the API through the registration address, one sentence each."""
    asked = ((m.name, all_facts[m.name].registration) for m in cluster.of("agents") if m.name in all_facts)
    return [f"{name} cannot reach the API at {cluster.url}: {why}" for name, why in asked if why]


def reached_by_others(all_facts: Mapping[str, HostFacts], address: AddressAnswer | None) -> bool:
    """Return whether the registration address works for those who need it, all agents that were asked, or else here.

    Many load balancers in clouds do not lead a server back to itself, and no server needs it.
    """
    answers = [facts.registration for facts in all_facts.values() if facts.registration is not None]
    return not any(answers) if answers else bool(address and address.answers)


def missing_names(cluster: Cluster, names: Sequence[str]) -> list[str]:
    """Return what clients use and the API's certificate does not have; nothing if its names are not known.

    Arguments:
        names: Those in the certificate.
    """
    wanted = server_names(cluster) if names else []
    known = {_normalized(name) for name in names}
    # K3s leaves out what is neither an address nor a name (dynamiclistener: factory/gen.go).
    return [one for one in wanted if _normalized(one) not in known and "*" not in one]


def _normalized(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _nodes(cluster: Cluster, server: str, facts: HostFacts, members: Sequence[Member], *, proven: bool) -> list[str]:
    api = facts.api
    if api.nodes is None or not (api.through_address or proven):
        return [f"{server} cannot reach the API at {cluster.url}: {api.error or 'no answer'}"]
    nodes = {node.name: node for node in api.nodes}
    found = (node_problem(cluster, member, nodes.get(member.node_name)) for member in members)
    return [problem for problem in found if problem]


def node_problem(cluster: Cluster, member: Member, node: NodeState | None) -> str:
    """Return what is wrong with a member's node, or nothing; None stands for a node that is not listed."""
    name = member.node_name
    if node is None:
        return f"node {name} is not listed"
    if not node.ready and not (cluster.own_cni and node.lacks_cni):
        return f"node {name} is not Ready"
    if node.version != cluster.version:
        return f"node {name} runs {node.version}, expected {cluster.version}"
    if (member.role == "servers") != ("control-plane" in node.roles):
        return f"node {name} has the roles {', '.join(node.roles) or 'none'}, expected those of group {member.role}"
    return ""


def vip_problem(vip: str, holders: Sequence[str]) -> str:
    """Return what is wrong with this VIP being on these load balancers, or nothing."""
    if len(holders) == 1:
        return ""
    names = " and ".join(holders) or "no load balancer"
    return f"the VIP {vip} is on {names}, expected on exactly one load balancer"
