"""Checks of what lies on the hosts and in the datastore already: other roles, other clusters, false starts.

Sources: k3s `pkg/cluster/managed.go` (files of an embedded etcd win over an external endpoint) and
`pkg/cluster/storage.go` (the bootstrap key); docs.k3s.io `cli/server.md` and k3s#3967 (what can never change),
`upgrades/manual.md` (version skew).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import yaml

from nornir_k3s import k3s
from nornir_k3s.inventory import rules
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts


def check(member: Member, seen: HostFacts) -> Iterator[Finding]:
    """Yield what a server or agent holds that does not belong to its place in this cluster."""
    other = k3s.UNITS["agent" if member.role == "servers" else "server"]
    if f"/etc/systemd/system/{other}" in seen.present:
        remedy = "uninstall that K3s first, or move it back"
        yield problem(member.name, "role", f"{other} is installed: it was in the other group", "one role", remedy)
    if f"{k3s.DATA}/server/db/etcd/member/wal" in seen.present:
        found = "files of an embedded etcd lie below server/db/etcd: K3s would use it and ignore the datastore endpoint"
        remedy = "back up and remove them, if that cluster is no longer needed"
        yield problem(member.name, "embedded-etcd", found, "none", remedy)
    for name in seen.foreign_units:
        if name != other:
            found = f"{name} is installed, and not by this tool"
            remedy = "its files are kept beside ours; uninstall it first where it is another cluster's"
            yield problem(member.name, "foreign-k3s", found, "a K3s of this tool or none", remedy, "warning")


def files(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield what does not fit between the files of servers and agents and the token."""
    servers = [member for member in cluster.of("servers") if member.name in facts]
    cluster_ca = next((o.server.ca_certificate for m in servers if (o := facts[m.name]).ready), "")
    for member in servers:
        yield from _server_files(cluster, member, facts[member.name], cluster_ca)
    for member in cluster.of("agents"):
        if member.name in facts:
            yield from _agent_files(member, facts[member.name], cluster_ca)


def _server_files(cluster: Cluster, member: Member, seen: HostFacts, cluster_ca: str) -> Iterator[Finding]:
    wanted = cluster.token.fingerprint()
    if seen.server.token and seen.server.token != wanted:
        found = f"it has been a server with another token, of fingerprint {seen.server.token}"
        remedy = f"give that token, or remove {k3s.DATA}/server if that cluster is gone"
        yield problem(member.name, "token", found, f"fingerprint {wanted}", remedy)
    elif seen.server.ca_certificate and cluster_ca and seen.server.ca_certificate != cluster_ca:
        found = f"{k3s.DATA}/server/tls holds another CA than the running cluster's: files of a false start"
        remedy = f"remove {k3s.DATA}/server/tls and {k3s.DATA}/server/cred on it; K3s fetches the right ones"
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy)


def _agent_files(member: Member, seen: HostFacts, cluster_ca: str) -> Iterator[Finding]:
    have = seen.agent_ca
    if have and cluster_ca and have != hashlib.sha256(cluster_ca.encode()).hexdigest():
        found = f"{k3s.DATA}/agent holds the CA of another cluster"
        remedy = f"remove {k3s.DATA}/agent and /etc/rancher/node, if it has left that cluster"
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy, "warning")


def living(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Measure the inventory by the servers that are up: a new file does not change what a cluster was started with."""
    for member in cluster.of("servers"):
        seen = facts.get(member.name)
        state = seen.files.get(k3s.CONFIG) if seen else None
        if not seen or not seen.ready or state is None or state.text is None:
            continue
        for key, default in rules.CIDRS.items():
            live = _setting(state.text, key, default)
            wanted = ",".join(rules.listed(cluster.server.get(key, default)))
            if live != wanted:
                found = f"the running cluster has {key} {live}"
                remedy = "put the old value back: it cannot be changed after the first start"
                yield problem(member.name, "for-ever", found, f"the inventory's {wanted}", remedy)


def _setting(text: str, key: str, default: str) -> str:
    try:
        value = (yaml.safe_load(text) or {}).get(key, default)
    except (yaml.YAMLError, AttributeError):
        return default
    return ",".join(str(v) for v in value) if isinstance(value, list) else str(value)


def versions(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield nodes that the wanted version is a downgrade for, or too far ahead of."""
    wanted = k3s.parse_version(cluster.version)
    listed = next((seen.api.nodes for seen in facts.values() if seen.ready and seen.api.nodes), ())
    running = {node.name: node.version for node in listed}
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        try:
            have = k3s.parse_version(running.get(member.node_name, ""))
        except ValueError:
            continue
        if wanted < have:
            found, remedy = f"it runs {running[member.node_name]}", "K3s cannot go back: restore a backup instead"
            yield problem(member.name, "version", found, f"not newer than {cluster.version}", remedy)
        elif wanted.release[0] == have.release[0] and wanted.release[1] > have.release[1] + 1:
            found = f"it runs {running[member.node_name]}, and {cluster.version} leaves out a minor version"
            remedy = f"upgrade to 1.{have.release[1] + 1} first"
            yield problem(member.name, "version", found, "one minor version at a time", remedy)
