"""Checks of the datastore: can it be reached, whose data does it hold, is it a living cluster's, and its members.

Sources: k3s `pkg/cluster/storage.go` (the bootstrap key, and the empty row that locks it); docs.k3s.io
`datastore/datastore.md` (versions); etcd `op-guide/runtime-configuration.md` (members change one at a time, and one
that has lost its data is a new one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts

# What K3s is tested with; others usually work.
CERTIFIED = {
    "MySQL": ("5.7", "8.0"),
    "MariaDB": ("10.6",),
    "PostgreSQL": ("12", "13", "14", "15"),
    "etcd": ("3.5",),
}


def check(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield what is wrong inside, with its members, and on the way to it."""
    role = "datastore" if cluster.is_managed else "servers"  # an external one is asked from every server
    seen = {m.name: facts[m.name] for m in cluster.of(role) if m.name in facts}
    for name, found in seen.items():
        yield from _unreachable(name, found)
        yield from found.datastore
        yield from _bootstrap(cluster, name, found, facts)
        for package in found.apt.unavailable:
            remedy = "use another kind, or a host whose distribution has it"
            yield problem(name, "packages", f"its packages have no {package}", package, remedy)
    yield from _emptied(cluster, seen, facts)
    yield from _certified(seen)
    if cluster.is_managed and cluster.managed.kind == "etcd":
        yield from _members(seen)


def _unreachable(host: str, seen: HostFacts) -> Iterator[Finding]:
    for address, why in seen.unreachable:
        found = f"it cannot connect to the datastore at {address}: {why or 'no answer'}"
        remedy = "check that it runs, the address in the inventory, routes and firewalls"
        if "not known" in why or "resolution" in why:
            remedy = "check the name, and the nameserver of this host"
        # Of several, K3s uses another.
        yield problem(host, "datastore", found, "a connection", remedy, "warning" if seen.database.alive else "error")


def _bootstrap(cluster: Cluster, host: str, seen: HostFacts, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    own = k3s.bootstrap_key(cluster.token)
    for name, size in seen.database.bootstrap.items():
        if name != own:
            found = f"the datastore holds a cluster made with another token (its key is {name})"
            remedy = "give that cluster's token, or another database"
            yield problem(host, "foreign-data", found, f"{own}, this token's key, or nothing", remedy)
        elif size == 0 and not _running(cluster, facts):
            found = "a first start was cut off: it has left an empty lock in the datastore"
            remedy = "nothing: K3s takes the lock over within half a minute of its next start"
            yield problem(host, "bootstrap", found, "data, or nothing", remedy, "note")


def _running(cluster: Cluster, facts: Mapping[str, HostFacts]) -> list[str]:
    return [m.name for m in cluster.of("servers") if m.name in facts and facts[m.name].ready]


def _emptied(cluster: Cluster, seen: Mapping[str, HostFacts], facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    running = _running(cluster, facts)
    if not running or not seen:
        return
    if any(k3s.bootstrap_key(cluster.token) in found.database.bootstrap for found in seen.values()):
        return
    alive = any(found.database.alive for found in seen.values())
    for name, found in seen.items():
        # One that is down cannot be asked; a managed one that was never set up holds nothing for certain.
        if alive or (cluster.is_managed and not found.packages):
            text = f"{', '.join(running)} run, but this datastore holds nothing of their cluster"
            remedy = "put the old datastore back, or bring its data here first (docs/datastores.md): all would be lost"
            yield problem(name, "datastore-moved", text, "the cluster's data", remedy)


def _certified(seen: Mapping[str, HostFacts]) -> Iterator[Finding]:
    told: set[tuple[str, str]] = set()
    for name, found in seen.items():
        for product, version in found.database.versions:
            fits = any(re.match(rf"{re.escape(one)}(\.|$)", version) for one in CERTIFIED.get(product, ()))
            if fits or (product, version) in told:
                continue
            told.add((product, version))
            text = f"K3s is not certified for this {product}, {version.partition(' ')[0]}"
            remedy = "nothing: others usually work; try an upgrade of either elsewhere first"
            yield problem(name, "datastore-version", text, ", ".join(CERTIFIED.get(product, ())), remedy, "note")


def _members(seen: Mapping[str, HostFacts]) -> Iterator[Finding]:
    wanted = set(seen)
    for name, found in seen.items():
        have = found.database.members
        if have and have != wanted:
            text = f"etcd's members are {', '.join(sorted(member or 'one that has not started' for member in have))}"
            remedy = "change them one at a time with `etcdctl member add` or `remove`, then the inventory"
            yield problem(name, "datastore-members", text, ", ".join(sorted(wanted)), remedy)
        if found.database.has_data is False and any(name in other.database.members for other in seen.values()):
            text = "it is a member of the etcd, but its data are gone"
            remedy = (
                "replace the member by hand, as docs/datastores/etcd.md says: it would not be let in again as it is"
            )
            yield problem(name, "datastore-members", text, "its data", remedy)
