"""Registration addresses from before a change: who still has them, and which VIPs load balancers must go on holding."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from nornir_k3s import k3s
from nornir_k3s.model.cluster import NODES, Cluster
from nornir_k3s.model.host_facts import HostFacts


def registered(facts: HostFacts) -> str:
    """Return the registration address in an agent's file, as a URL; empty if it is the inventory's, or not known."""
    file = facts.files.get(k3s.CONFIG)
    found = re.search(r"^server: *[\"']?([^\"'\s]+)", file.text or "", re.MULTILINE) if file else None
    return found[1] if found else ""


def former_vips(cluster: Cluster, all_facts: Mapping[str, HostFacts], moved: Collection[str]) -> tuple[str, ...]:
    """Return the VIPs of before that load balancers hold, and that a host would use if it started now.

    Arguments:
        moved: Agents that have another address since their facts were read.
    """
    used: set[str] = set()
    for member in (member for role in NODES for member in cluster.of(role)):
        facts = all_facts.get(member.name)
        if facts is None:
            continue
        used.update(facts.names.get(cluster.registration.name or "", ()))
        if member.name not in moved:
            used.add(urlsplit(registered(facts)).hostname or "")
    balancers = [(member, all_facts[member.name]) for member in cluster.of("lb") if member.name in all_facts]
    held = {one for _, facts in balancers for one in used if facts.interface_of(one)}
    own = {address for member in cluster.members for address in member.addresses}
    return tuple(sorted(held - own - set(cluster.names)))
