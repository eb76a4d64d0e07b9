"""A host of group datastore: what it must look like, and what is wrong inside its database."""

from __future__ import annotations

from nornir_k3s.cluster import Cluster, Member
from nornir_k3s.datastores import mysql
from nornir_k3s.datastores.endpoint import parse
from nornir_k3s.schema import ManagedDatastore
from nornir_k3s.secret import Secret
from nornir_k3s.spec import HostSpec


def spec(cluster: Cluster, member: Member) -> HostSpec:
    """Return what the datastore host must look like."""
    return mysql.managed_spec(address=member.address, servers=len(cluster.of("servers")))


def endpoint(cluster: Cluster) -> Secret:
    """Return the datastore endpoint every server gets."""
    if isinstance(cluster.datastore, ManagedDatastore):
        return mysql.endpoint(
            user=cluster.datastore.user,
            password=cluster.datastore_password,
            address=cluster.of("datastore")[0].address,
            port=mysql.PORT,
            database=cluster.datastore.database,
        )
    if cluster.endpoint is None:
        raise ValueError("an external datastore always has an endpoint")
    return cluster.endpoint


def reach(cluster: Cluster) -> str:
    """Return shell lines for a server that print which addresses of an external datastore it cannot connect to."""
    if cluster.endpoint is None:
        return ""
    lines = [
        f"timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null || say unreachable {host}:{port}"
        for host, port in parse(cluster.endpoint).hosts
    ]
    return "\n".join(lines)


def look(cluster: Cluster) -> str:
    """Return the shell lines that look inside the managed database."""
    if not isinstance(cluster.datastore, ManagedDatastore):
        return ""
    return mysql.look(
        database=cluster.datastore.database, user=cluster.datastore.user, password=cluster.datastore_password
    )


def prepare(cluster: Cluster) -> Secret:
    """Return the SQL that makes database, users and rights."""
    if not isinstance(cluster.datastore, ManagedDatastore):
        return Secret("")
    return mysql.prepare(
        database=cluster.datastore.database,
        user=cluster.datastore.user,
        password=cluster.datastore_password,
        hosts=[server.address for server in cluster.of("servers")],
    )


def missing(cluster: Cluster, records: tuple[tuple[str, str, str], ...]) -> list[str]:
    """Return in words what `look` did not find: database, users with the right password, rights."""
    if not isinstance(cluster.datastore, ManagedDatastore):
        return []
    database, user = cluster.datastore.database, cluster.datastore.user
    have = {(kind, name): value for kind, name, value in records}
    found = []
    if ("database", database) not in have:
        found.append(f"database {database}")
    for server in cluster.of("servers"):
        if ("user", server.address) not in have:
            found.append(f"user {user}@{server.address}")
        elif have["user", server.address] != "1":
            found.append(f"password of {user}@{server.address}")
        if ("grant", server.address) not in have:
            found.append(f"rights of {user}@{server.address}")
    return found
