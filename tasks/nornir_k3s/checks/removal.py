"""What speaks against taking hosts out of a cluster. Pure: cluster and facts in, sentences out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from nornir_k3s.checks import token
from nornir_k3s.model.cluster import NODES, ROLES, Cluster, Member
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.suggest import closest
from nornir_k3s.roles import left, load_balancer


def find(cluster: Cluster, all_facts: Mapping[str, HostFacts], name: str) -> Member | None:
    """Return the server, agent or load balancer of this name, also one that has left the inventory.

    Of hosts of the datastore only those that have left it: they can be forgotten.
    """
    gone = (*left.members(cluster, all_facts), *cluster.left)
    members = (*cluster.members, *gone)
    nodes = (member for member in members if set(member.roles) & set(NODES))
    balancers = (member for member in cluster.members if member.roles == ("lb",))
    found = (*nodes, *balancers, *cluster.left_others)
    return next((one for one in found if name in (one.name, one.node_name)), None)


def unknown(cluster: Cluster, all_facts: Mapping[str, HostFacts], names: Sequence[str]) -> Iterator[str]:
    """Yield why names are none that can be removed from this cluster."""
    known = [member.name for role in (*NODES, "lb") for member in cluster.of(role)]
    for name in names:
        if find(cluster, all_facts, name):
            continue
        other = next((member for member in cluster.members if member.name == name), None)
        near = closest(name, known)
        if other:
            yield f"{name} has the datastore: without it there is no cluster; `reset` takes the whole one down"
        else:
            yield f"{name} is not in this cluster{f'; did you mean {near}?' if near else ''}"


def refusals(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], leaving: Collection[Member], *, lost: bool, anew: bool = False
) -> Iterator[str]:
    """Yield what speaks against it.

    Arguments:
        leaving: The hosts to take out.
        lost: They are dead or gone: nothing is done on them.
        anew: They join again at once, with all their roles.
    """
    yield from _balancers(cluster, all_facts, leaving, lost=lost)
    if not any(set(member.roles) & set(NODES) for member in leaving):
        return
    names = {member.name for member in leaving}
    servers = [member.name for member in leaving if member.role == "servers"]
    staying = [member for member in cluster.of("servers") if member.name not in names]
    ready = [member for member in staying if member.name in all_facts and all_facts[member.name].ready]
    if not staying:
        yield f"{', '.join(servers)}: no server would be left"
    elif not ready:
        yield f"no server that stays is ready ({', '.join(one.name for one in staying)}): bring one back first"
    elif servers and len(ready) < len(staying):
        away = ", ".join(one.name for one in staying if one not in ready)
        yield f"{', '.join(servers)}: server {away} is not ready: bring it back first, two servers are never away"
    keys = [one.name for one in leaving if one.name in all_facts and all_facts[one.name].encryption.goal]
    if keys and not lost:
        text = "the keys of secrets are changed from there, and the others may not have them yet"
        yield f"{', '.join(keys)}: {text}: run deploy first, which ends that"
    yield from _token(cluster, all_facts, servers)
    yield from () if anew else _others(cluster, leaving, lost=lost)
    yield from _address(cluster, all_facts, leaving, ready)
    if lost:
        nodes = {node.name for node in left.listed(cluster, all_facts) or () if node.ready}
        alive = [member.name for member in leaving if member.node_name in nodes]
        if alive:
            yield f"{', '.join(alive)} is Ready, so K3s runs there: --lost is only for hosts that are gone for good"


def _balancers(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], leaving: Collection[Member], *, lost: bool
) -> Iterator[str]:
    """Yield what speaks against it for load balancers, and for hosts of the datastore that have left."""
    balancers = [member.name for member in leaving if member.roles == ("lb",)]
    staying = [member for member in cluster.of("lb") if member.name not in balancers]
    active = [one for one in staying if one.name in all_facts and _serves(all_facts[one.name])]
    if balancers and not staying:
        yield f"{', '.join(balancers)}: no load balancer would be left"
    elif balancers and not active:
        yield f"HAProxy or keepalived is down on {', '.join(one.name for one in staying)}: bring them back first"
    if balancers and not any(facts.ready for facts in all_facts.values()):
        yield "no server is ready, whose CA the load balancers need: bring one back first"
    for member in leaving:
        if member.role == "datastore" and not lost:
            yield f"{member.name} was a host of the datastore: what is there is yours to stop; --lost forgets it"


def _serves(facts: HostFacts) -> bool:
    return all(facts.unit(name).active == "active" for name in load_balancer.UNITS)


def _token(cluster: Cluster, all_facts: Mapping[str, HostFacts], servers: Collection[str]) -> Iterator[str]:
    """Yield servers that alone have the token which the datastore's data are encrypted with."""
    stored = token.stored(all_facts)
    holders = [name for name, facts in all_facts.items() if stored and facts.server.token == stored]
    if stored != cluster.token.fingerprint() and holders and set(holders) <= set(servers):
        text = "the token was rotated there, and nobody else has the new one: no server would ever start again"
        yield f"{', '.join(holders)}: {text}: run deploy first, which takes it over"


def _others(cluster: Cluster, leaving: Collection[Member], *, lost: bool) -> Iterator[str]:
    for member in [one for one in leaving if set(one.roles) & set(NODES)]:
        if also := ", ".join(role for role in ROLES if role in member.roles and role not in NODES):
            here = member.name in {one.name for one in cluster.members}
            if lost and "datastore" in member.roles:
                text = "replace that member first, with its line in the inventory, as docs/datastores/etcd.md says"
                yield f"{member.name} is also of group {also}: {text}"
            elif here and lost:
                yield f"{member.name} is also of group {also}: take it out of the inventory, then remove it with --lost"
            elif here:
                yield f"{member.name} is also of group {also}: take it out of that, deploy, then remove it"
            elif not lost:
                text = f"put it back into the inventory, not in {also}, deploy, then remove it"
                yield f"{member.name} was also of group {also}, and that service still runs: {text}"
        if member.address == str(cluster.registration.address or ""):
            yield f"{member.name} has the registration address {member.address}: move that first"


def _address(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], leaving: Collection[Member], ready: Collection[Member]
) -> Iterator[str]:
    """Yield load balancers that would have no server that is up."""
    if not any(member.role == "servers" for member in leaving) or not ready:
        return
    for balancer in cluster.of("lb"):
        facts = all_facts.get(balancer.name)
        if facts is None or not facts.backends:
            continue
        up = [one for one in ready if facts.backends.get(one.node_name, ("",))[0].startswith("UP")]
        if not up:
            yield f"HAProxy on {balancer.name} sees none of {', '.join(one.name for one in ready)} up"
