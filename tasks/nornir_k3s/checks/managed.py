"""Checks of a datastore that this tool sets up: whose data it holds, whether a living cluster's, and its members.

Sources: k3s `pkg/cluster/storage.go` (the bootstrap key); etcd `op-guide/runtime-configuration.md` (members change one
at a time, and one that has lost its data is a new one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.cluster import Cluster
from nornir_k3s.findings import Finding
from nornir_k3s.observed import Observed


def check(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Yield what is wrong inside, and with its members."""
    seen = {m.name: observed[m.name] for m in cluster.of("datastore") if m.name in observed}
    for name, found in seen.items():
        yield from _foreign(cluster, name, found)
        for (package,) in found.facts.get("nopackage", []):
            todo = "use another kind, or a host whose distribution has it"
            yield Finding(name, "packages", f"its packages have no {package}", package, todo)
    yield from _emptied(cluster, seen, observed)
    if cluster.is_managed and cluster.managed.kind == "etcd":
        yield from _members(seen)


def _foreign(cluster: Cluster, host: str, seen: Observed) -> Iterator[Finding]:
    key = k3s.bootstrap_key(cluster.token)
    for what, name, _ in seen.database:
        if what == "bootstrap" and name != key:
            found = f"the database holds a cluster made with another token (its key is {name})"
            todo = "give that cluster's token, or another database"
            yield Finding(host, "foreign-data", found, f"{key}, this token's key, or nothing", todo)


def _emptied(cluster: Cluster, seen: Mapping[str, Observed], observed: Mapping[str, Observed]) -> Iterator[Finding]:
    running = [m.name for m in cluster.of("servers") if m.name in observed and observed[m.name].ready]
    if not running or not seen:
        return
    rows = {(what, name) for found in seen.values() for what, name, _ in found.database}
    if ("bootstrap", k3s.bootstrap_key(cluster.token)) in rows:
        return
    for name, found in seen.items():
        # One that is down cannot be asked; one that was never set up holds nothing for certain.
        if ("alive", "yes") in rows or not found.packages:
            text = f"{', '.join(running)} run, but this datastore holds nothing of their cluster"
            todo = "put the old datastore back, or bring its data here first (docs/datastores.md): all would be lost"
            yield Finding(name, "datastore-moved", text, "the cluster's data", todo)


def _members(seen: Mapping[str, Observed]) -> Iterator[Finding]:
    wanted = set(seen)
    for name, found in seen.items():
        have = {member for what, member, _ in found.database if what == "member"}
        if have and have != wanted:
            text = f"etcd's members are {', '.join(sorted(member or 'one that has not started' for member in have))}"
            todo = "change them one at a time with `etcdctl member add` or `remove`, then the inventory"
            yield Finding(name, "datastore-members", text, ", ".join(sorted(wanted)), todo)
        others = [other for other in seen.values() if ("member", name) in _names(other)]
        if others and ("data", "no") in _names(found):
            text = "it is a member of the etcd, but its data are gone"
            todo = "replace the member by hand, as docs/datastores.md says: it would not be let in again as it is"
            yield Finding(name, "datastore-members", text, "its data", todo)


def _names(seen: Observed) -> set[tuple[str, str]]:
    return {(what, name) for what, name, _ in seen.database}
