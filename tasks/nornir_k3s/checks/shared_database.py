"""Checks of a database server that others use, too: this tool adds a database and users, and sets nothing for all.

Sources: as of `datastore_probe`: k3s#11816 (increments), kine#721 (snapshot isolation), docs.k3s.io `datastore/ha.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import datastore
from nornir_k3s.roles.datastore_login import server_connections

ID = "datastore-shared"
# Settings of the whole server that K3s does not work with: which values it takes, and why.
_NEEDED = {
    "auto_increment_increment": ("1", "K3s loses changes otherwise"),
    "innodb_snapshot_isolation": ("OFF", "K3s' compaction fails with error 1020 otherwise"),
    "read_only": ("OFF", "K3s writes"),
    "transaction_read_only": ("off", "K3s writes"),
    "wsrep_on": ("OFF", "K3s needs one writer"),
}


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield what keeps K3s from using a database server beside others; nothing of it is changed by a deploy."""
    managed = cluster.managed
    if not managed.shared:
        return
    package = facts.family.service(managed.kind).packages[:1]
    if not set(package) & set(facts.packages):
        remedy = f"install {managed.kind} as its users need it; or remove `shared: true`, and deploy installs it"
        yield problem(member.name, ID, f"there is no {managed.kind} on this host", "one that others use", remedy)
        return
    if not facts.database.alive:
        remedy = "start it; this tool logs in as root or postgres over its socket, without a password"
        yield problem(
            member.name, ID, f"{managed.kind} refuses this tool's login, or does not run", "an answer", remedy
        )
        return
    yield from _address(cluster, member, facts)
    yield from _settings(cluster, member, facts)
    yield from _database(cluster, member, facts)


def _address(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    port = str(datastore.kind(cluster).ports[0])
    found = [local.rpartition(":")[0].strip("[]") for local, _ in facts.sockets if local.rpartition(":")[2] == port]
    every = {"*", "::", *(("0.0.0.0",) if ip_address(member.address).version == 4 else ())}  # noqa: S104 - of others
    if not {member.address, *every} & set(found):
        said = f"it listens on {', '.join(sorted(set(found)))} only" if found else f"nothing listens on port {port}"
        remedy = "let it listen there in its own configuration, and restart it when its other users allow that"
        yield problem(member.name, ID, said, f"it listens on {member.address}:{port} for the servers", remedy)


def _settings(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    settings = facts.database.settings
    for name, (wanted, why) in _NEEDED.items():
        value = settings.get(name, wanted)
        if value.upper() != wanted.upper():
            remedy = f"set it for all of its users if they allow it, or use another server: {why}"
            yield problem(member.name, ID, f"{name} is {value}", wanted, remedy)
    limit, needed = settings.get("max_connections", ""), server_connections(cluster)
    if limit.isdigit() and int(limit) <= needed:
        found = f"max_connections is {limit}, and K3s' servers open up to {needed}"
        remedy = "raise it; or lower what the servers open: `datastore_pool: {max_open: NUMBER}`"
        yield problem(member.name, ID, found, f"more than {needed}, for the others, too", remedy, "warning")


def _database(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """A database of this name may be somebody else's: K3s would put its table into it."""
    if facts.database.bootstrap and facts.database.databases:
        return  # check `foreign-data` tells of other clusters
    for found, remedy in of_others(cluster, facts):
        yield problem(member.name, ID, found, "none of this name, or this cluster's", remedy)


def of_others(cluster: Cluster, facts: HostFacts) -> Iterator[tuple[str, str]]:
    """Yield what has the name of this cluster's database or user, and is somebody else's; and what to do."""
    content, user = facts.database, cluster.managed.user
    ours = set(content.grants) & set(content.users) or k3s.bootstrap_key(cluster.token) in content.bootstrap
    if content.databases and not ours:
        found = f"database {cluster.managed.database} is there already, and no user of this cluster has rights in it"
        yield found, "choose another name: `datastore: {database: NAME}`; or drop it if nobody needs it"
    # Nobody logs in as the owner of this cluster's database.
    if cluster.managed.kind == "postgresql" and any(one.what == f"user {user}" for one in facts.others):
        found = f"{user} is a user of others, who log in with it: this cluster's users would get its rights"
        yield found, "choose another name: `datastore: {user: NAME}`"
