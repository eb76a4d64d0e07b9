"""Checks of what others have in the network of the load balancers: the VIP, or the virtual router ID."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import keepalived


def vip_taken(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield a finding if a machine other than the load balancers has the VIP."""
    balancers = [member for member in cluster.of("lb") if member.name in all_facts]
    # A host that was a load balancer may have one: the next deploy takes it away.
    own = [facts for facts in all_facts.values() if keepalived.CONFIG in facts.ledger.files]
    own += [all_facts[member.name] for member in balancers]
    known = {vip for vip in cluster.vips if any(facts.interface_of(vip) for facts in own)}
    for member in balancers:
        for address, entry in all_facts[member.name].neighbours:
            if address in known:
                continue
            known.add(address)
            found = f"another machine has the VIP {address}: {entry.strip()}"
            yield problem(
                member.name, "vip", found, "a free address", "choose another VIP, or remove it from that machine"
            )


def router_id_taken(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield a finding if others send VRRP with the load balancers' virtual router ID (RFC 5798)."""
    balancers = cluster.of("lb")
    own = {address for member in balancers for address in member.addresses}
    own |= {cidr.split("/")[0] for m in balancers if m.name in all_facts for _, cidr in all_facts[m.name].addresses}
    for member in balancers:
        seen = all_facts[member.name].vrrp if member.name in all_facts else ()
        others = [one for one in seen if one.address not in own]
        used = {int(one.router_id) for one in others if one.router_id.isdigit()}
        if cluster.lb.virtual_router_id in used:
            wanted = cluster.lb.virtual_router_id
            names = ", ".join(sorted({one.address for one in others if one.router_id == str(wanted)}))
            free = next(number for number in (*range(wanted, 256), *range(1, wanted)) if number not in used)
            found = f"{names} sends VRRP with virtual router ID {wanted}"
            remedy = f"set `lb: {{virtual_router_id: {free}}}`, or another that nobody in this network has"
            yield problem(member.name, "vrid", found, "a virtual router ID of its own", remedy)
            return
