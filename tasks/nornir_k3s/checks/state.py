"""Checks of what earlier installations left on the hosts: other roles, other clusters, failed starts.

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


def check(member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield what does not fit the host's role in this cluster: another role's unit, embedded etcd, a foreign K3s."""
    other = k3s.UNITS["agent" if member.role == "servers" else "server"]
    if f"/etc/systemd/system/{other}" in facts.present:
        remedy = "uninstall that K3s first, or move the host back to the other group"
        yield problem(member.name, "role", f"{other} is installed: the host has the other role", "one role", remedy)
    if f"{k3s.DATA}/server/db/etcd/member/wal" in facts.present:
        found = "files of an embedded etcd in server/db/etcd: K3s would use it and ignore the datastore endpoint"
        remedy = "back them up and remove them, if that cluster is no longer needed"
        yield problem(member.name, "embedded-etcd", found, "no embedded etcd", remedy)
    for name in facts.foreign_units:
        if name != other:
            found = f"{name} was not installed by nornir-k3s"
            remedy = (
                "uninstall it first if it belongs to another cluster; deploy keeps copies of files that it replaces"
            )
            yield problem(member.name, "foreign-k3s", found, "a K3s of nornir-k3s, or none", remedy, "warning")


def files(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers and agents whose files belong to another token or another CA."""
    servers = [member for member in cluster.of("servers") if member.name in all_facts]
    cluster_ca = next((o.server.ca_certificate for m in servers if (o := all_facts[m.name]).ready), "")
    for member in servers:
        yield from _server_files(cluster, member, all_facts[member.name], cluster_ca)
    for member in cluster.of("agents"):
        if member.name in all_facts:
            yield from _agent_files(member, all_facts[member.name], cluster_ca)


def _server_files(cluster: Cluster, member: Member, facts: HostFacts, cluster_ca: str) -> Iterator[Finding]:
    wanted = cluster.token.fingerprint()
    if facts.server.token and facts.server.token != wanted:
        found = f"the server was set up with another token, of fingerprint {facts.server.token}"
        remedy = f"set that token in the inventory, or remove {k3s.DATA}/server if that cluster is gone"
        yield problem(member.name, "token", found, f"fingerprint {wanted}", remedy)
    elif facts.server.ca_certificate and cluster_ca and facts.server.ca_certificate != cluster_ca:
        found = f"{k3s.DATA}/server/tls has another CA than the running cluster: files of a failed start"
        remedy = f"remove {k3s.DATA}/server/tls and {k3s.DATA}/server/cred on this host; K3s fetches the right ones"
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy)


def _agent_files(member: Member, facts: HostFacts, cluster_ca: str) -> Iterator[Finding]:
    if facts.agent_ca and cluster_ca and facts.agent_ca != hashlib.sha256(cluster_ca.encode()).hexdigest():
        found = f"{k3s.DATA}/agent has the CA of another cluster"
        remedy = f"remove {k3s.DATA}/agent and /etc/rancher/node, if it has left that cluster"
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy, "warning")


_IMMUTABLE = {
    **dict.fromkeys(rules.CIDRS, "it cannot be changed after the first start"),
    # Each server would create a key of its own: the next one cannot read the cluster's secrets any more.
    "secrets-encryption": "a running cluster breaks when it is turned on or off",
}


def immutable_settings(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield settings that differ from the running servers' and cannot be changed after the first start."""
    for member in cluster.of("servers"):
        facts = all_facts.get(member.name)
        state = facts.files.get(k3s.CONFIG) if facts else None
        if not facts or not facts.ready or state is None or state.text is None:
            continue
        for key, why in _IMMUTABLE.items():
            running = _in_force(cluster, _settings(state.text), key)
            wanted = _in_force(cluster, cluster.server, key)
            if running != wanted:
                found = f"the running cluster has {key} {running}"
                remedy = f"restore the old value in the inventory: {why}"
                yield problem(member.name, "for-ever", found, f"the inventory's {wanted}", remedy)


def _settings(text: str) -> Mapping[str, object]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _in_force(cluster: Cluster, settings: Mapping[str, object], key: str) -> str:
    """Return a setting, or K3s' default, in one form however it was written."""
    if key in rules.CIDRS:
        return ",".join(map(str, rules.networks(settings, key, cluster.ip_version)))
    return str(k3s.boolean(settings.get(key, False))).lower()


def versions(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield nodes for which the wanted version is a downgrade, or skips a minor version."""
    wanted = k3s.parse_version(cluster.version)
    listed = next((facts.api.nodes for facts in all_facts.values() if facts.ready and facts.api.nodes), ())
    running = {node.name: node.version for node in listed}
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        try:
            current = k3s.parse_version(running.get(member.node_name, ""))
        except ValueError:
            continue
        if wanted < current:
            found = f"the node runs {running[member.node_name]}"
            remedy = "K3s cannot be downgraded: restore a backup instead"
            yield problem(member.name, "version", found, f"not newer than {cluster.version}", remedy)
        elif wanted.release[0] == current.release[0] and wanted.release[1] > current.release[1] + 1:
            found = f"the node runs {running[member.node_name]}: {cluster.version} skips a minor version"
            remedy = f"upgrade to 1.{current.release[1] + 1} first"
            yield problem(member.name, "version", found, "one minor version at a time", remedy)
