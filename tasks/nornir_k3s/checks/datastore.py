"""Checks of the datastore: connections, the owner of its data, versions, and the members of an etcd.

Sources: k3s `pkg/cluster/storage.go` (the bootstrap key, and the empty row that locks it); docs.k3s.io
`datastore/datastore.md` (versions); etcd `op-guide/runtime-configuration.md` (members change one at a time, and one
that has lost its data is a new one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.checks import shared_database, stored
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts

# What K3s is tested with; others usually work.
CERTIFIED = {
    "MySQL": ("5.7", "8.0"),
    "MariaDB": ("10.6",),
    "PostgreSQL": ("12", "13", "14", "15"),
    "etcd": ("3.5",),
}


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield the problems of the datastore: connections, content, versions and members."""
    asked = {facts.host: facts for facts in probed(cluster, all_facts)}
    for name, facts in asked.items():
        yield from _unreachable(name, facts)
        yield from facts.datastore
        yield from _bootstrap(cluster, name, facts, all_facts)
        for package in facts.repositories.unavailable:
            remedy = "use another kind of datastore, or a distribution that has the package"
            found = f"package {package} is not available from {facts.family.manager}"
            yield problem(name, "packages", found, package, remedy)
        if cluster.is_managed:
            yield from stored.check(cluster, name, facts)
            yield from shared_database.check(cluster, cluster.member(name), facts)
    yield from emptied(cluster, asked, all_facts)
    yield from _certified(asked)
    yield from single_host(cluster)
    if cluster.is_managed and cluster.managed.kind == "etcd":
        yield from _members(asked)


def probed(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[HostFacts]:
    """Return the facts of the hosts that know what is in the datastore: an external one is probed from every server."""
    role = "datastore" if cluster.is_managed else "servers"
    return [all_facts[m.name] for m in cluster.of(role) if m.name in all_facts]


def is_empty(cluster: Cluster, facts: HostFacts) -> bool:
    """Return whether a host that knows it tells that the datastore has no data of a cluster.

    One that is down cannot be queried; a managed one that was never set up is certainly empty.
    """
    known = facts.database.alive or (cluster.is_managed and not facts.packages)
    return known and not facts.database.bootstrap


def single_host(cluster: Cluster) -> Iterator[Finding]:
    """Yield a note where the loss of one datastore host stops the cluster."""
    members = cluster.of("datastore")
    if not cluster.is_managed or (cluster.managed.kind == "etcd" and len(members) > 2):
        return
    found = f"the datastore ({cluster.managed.kind}) has no host that takes over: without it, the API does not answer"
    remedy = "keep dumps elsewhere; an etcd of three members, or an external database with a failover, survives it"
    yield problem(members[0].name, "datastore-single", found, "a datastore that survives a host", remedy, "note")


def _unreachable(host: str, facts: HostFacts) -> Iterator[Finding]:
    for address, reason in facts.unreachable:
        found = f"cannot connect to the datastore at {address}: {reason or 'no answer'}"
        remedy = "check that the datastore is running, its address in the inventory, routes and firewalls"
        if "not known" in reason or "resolution" in reason:
            remedy = "check the datastore's host name and this host's name server"
        # K3s uses another address where the endpoint has several.
        yield problem(host, "datastore", found, "a connection", remedy, "warning" if facts.database.alive else "error")


def _bootstrap(cluster: Cluster, host: str, facts: HostFacts, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    own = k3s.bootstrap_key(cluster.token)
    for name, size in facts.database.bootstrap.items():
        if name != own:
            found = f"the datastore has the data of a cluster with another token (bootstrap key {name})"
            remedy = (
                "give that cluster's token (`token: {file: PATH}`), restore a backup of it, or use another database"
            )
            if holders := [one.host for one in all_facts.values() if one.server.token == name.rpartition("/")[2]]:
                remedy = f"set the token that {holders[0]} has in {k3s.DATA}/server/token"
            yield problem(host, "foreign-data", found, f"bootstrap key {own}, this token's, or no data", remedy)
        elif size == 0 and not _running(cluster, all_facts):
            found = "an interrupted first start left an empty lock in the datastore"
            remedy = "nothing to do: K3s takes over the lock within 30 s of its next start"
            yield problem(host, "bootstrap", found, "bootstrap data, or none", remedy, "note")


def _running(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    return [m.name for m in cluster.of("servers") if m.name in all_facts and all_facts[m.name].ready]


def emptied(cluster: Cluster, probed: Mapping[str, HostFacts], all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield the addresses of the datastore that lack the data of servers that run."""
    running = _running(cluster, all_facts)
    if not running or not probed:
        return
    if any(facts.database.bootstrap for facts in probed.values()):
        return  # `_bootstrap` tells of data with another token
    alive = any(facts.database.alive for facts in probed.values())
    for name, facts in probed.items():
        if alive or is_empty(cluster, facts):
            text = f"{', '.join(running)} run, but this datastore has no data of their cluster"
            remedy = "use the datastore that they use, or take the data along with `nornir-k3s move`"
            yield problem(name, "datastore-moved", text, "the cluster's data", remedy)


def _certified(probed: Mapping[str, HostFacts]) -> Iterator[Finding]:
    reported: set[tuple[str, str]] = set()
    for name, facts in probed.items():
        for product, version in facts.database.versions:
            fits = any(re.match(rf"{re.escape(one)}(\.|$)", version) for one in CERTIFIED.get(product, ()))
            if fits or (product, version) in reported:
                continue
            reported.add((product, version))
            text = f"K3s is not certified for {product} {version.partition(' ')[0]}"
            remedy = "nothing to do: other versions usually work; test upgrades of K3s and the database elsewhere first"
            yield problem(name, "datastore-version", text, ", ".join(CERTIFIED.get(product, ())), remedy, "note")


def _members(probed: Mapping[str, HostFacts]) -> Iterator[Finding]:
    wanted = set(probed)
    for name, facts in probed.items():
        members = facts.database.members
        if members and members != wanted:
            names = ", ".join(sorted(member or "an unstarted member" for member in members))
            text = f"the etcd members are {names}"
            remedy = "add or remove one member at a time (`etcdctl member add`, `remove`), then change the inventory"
            yield problem(name, "datastore-members", text, ", ".join(sorted(wanted)), remedy)
        if facts.database.has_data is False and any(name in other.database.members for other in probed.values()):
            text = "this etcd member has lost its data"
            remedy = "replace the member as described in docs/datastores/etcd.md: etcd does not accept it without data"
            yield problem(name, "datastore-members", text, "its data", remedy)
