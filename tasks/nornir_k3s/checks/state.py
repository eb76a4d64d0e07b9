"""Checks of what earlier installations left on the hosts: other roles, other clusters, failed starts.

Sources: k3s `pkg/cluster/managed.go` (files of an embedded etcd win over an external endpoint) and
`pkg/cluster/storage.go` (the bootstrap key); docs.k3s.io `cli/server.md` and k3s#3967 (what can never change).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.checks import token
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import running as running_k3s

_LEFT = f"If the host has left that cluster: move {k3s.DATA}/server to another folder, and keep it"


def check(member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield what does not fit the host's role in this cluster: another role's unit, embedded etcd."""
    other = k3s.UNITS["agent" if member.role == "servers" else "server"]
    if f"/etc/systemd/system/{other}" in facts.present or other in facts.foreign_units:
        group = "agents" if member.role == "servers" else "servers"
        uninstall = f"{other.removesuffix('.service')}-uninstall.sh"
        remedy = (
            f"move the host back to group {group}; or take it out of its cluster: kubectl delete node "
            f"{member.node_name}, then {uninstall} on the host, which deletes its data: keep a copy first"
        )
        yield problem(member.name, "role", f"{other} is installed: the host has the other role", "one role", remedy)
    if f"{k3s.DATA}/server/db/etcd/member/wal" in facts.present:
        found = "files of an embedded etcd in server/db/etcd: K3s would use it and ignore the datastore endpoint"
        remedy = (
            "if its objects are needed, `nornir-k3s move --plan` says whether they can be taken along; else use other "
            f"hosts. If that cluster is no longer needed, move {k3s.DATA}/server/db to another folder, and keep it"
        )
        yield problem(member.name, "embedded-etcd", found, "no embedded etcd", remedy)


def files(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers and agents whose files belong to another token or another CA."""
    servers = [member for member in cluster.of("servers") if member.name in all_facts]
    running = [ca for m in servers if (o := all_facts[m.name]).ready and (ca := o.server.ca_certificate)]
    # After a rotation, a server from before starts with this token, and takes its files from the datastore.
    rotated = token.stored(all_facts) == cluster.token.fingerprint()
    for member in servers:
        facts = all_facts[member.name]
        if facts.server.token and facts.server.token != cluster.token.fingerprint():
            if _is_another_cluster(cluster, facts, servers, all_facts):
                found = "it is a server of another cluster: its token and its CA are not those of the others"
                remedy = f"correct its address in the inventory. {_LEFT}"
                yield problem(member.name, "token", found, "a server of this cluster, or none", remedy)
            elif not rotated:
                yield _token(cluster, member, facts)
        elif running and facts.server.ca_certificate:
            yield from _server_ca(member, facts, running)
    seen = running or [one for m in servers if (one := all_facts[m.name].server.ca_certificate)]
    for member in cluster.of("agents"):
        if member.name in all_facts and (seen or len(servers) == len(cluster.of("servers"))):
            yield from _agent_files(cluster, member, all_facts[member.name], seen)


def _is_another_cluster(
    cluster: Cluster, facts: HostFacts, servers: Sequence[Member], all_facts: Mapping[str, HostFacts]
) -> bool:
    """Return whether a server with another token has no certificate in common with the CA of those with ours."""
    own, token_ = _certificates(facts.server.ca_certificate), cluster.token.fingerprint()
    ours = [one.ca_certificate for m in servers if (one := all_facts[m.name].server).token == token_]
    known = frozenset[str]().union(*map(_certificates, ours))
    return bool(own and known) and not own & known


def _token(cluster: Cluster, member: Member, facts: HostFacts) -> Finding:
    found = f"the server was set up with another token, of fingerprint {facts.server.token}"
    remedy = "set that token in the inventory; to change it, `nornir-k3s rotate token`"
    if not facts.ready:
        remedy += f". {_LEFT}"
    return problem(member.name, "token", found, f"fingerprint {cluster.token.fingerprint()}", remedy)


def _server_ca(member: Member, facts: HostFacts, running: Sequence[str]) -> Iterator[Finding]:
    # A rotated CA comes with the old one, until all certificates are of the new one (docs: cli/certificate.md).
    own, newest = _certificates(facts.server.ca_certificate), max(map(_certificates, running), key=len)
    if own == newest:
        return
    if facts.ready or own & newest:
        found = "it has another CA than other servers, as from before a rotation of the CA"
        remedy = (
            "run nornir-k3s rotate ca again if it was interrupted; or restart k3s on one server after the other: "
            "each takes the CA from the datastore when it starts"
        )
        yield problem(member.name, "leftovers", found, "the same CA on all servers", remedy, "warning")
        return
    found = f"{k3s.DATA}/server/tls has another CA than the running cluster: files of a failed start"
    remedy = f"move {k3s.DATA}/server/tls and {k3s.DATA}/server/cred to another folder; K3s fetches the right ones"
    yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy)


def _certificates(text: str) -> frozenset[str]:
    return frozenset(one.strip() for one in text.split("-----END CERTIFICATE-----") if one.strip())


def _agent_files(cluster: Cluster, member: Member, facts: HostFacts, running: Sequence[str]) -> Iterator[Finding]:
    known = {hashlib.sha256(ca.encode()).hexdigest() for ca in running}
    if not facts.agent_ca or facts.agent_ca in known:
        return
    if k3s.UNITS["agent"] in facts.foreign_units and not _has_token(cluster, facts):
        found = "it is an agent of another cluster: its CA and its token are not those of the servers"
        remedy = (
            "use another host; if that cluster no longer needs this one: kubectl delete node there, then "
            "k3s-agent-uninstall.sh on the host, which deletes its data"
        )
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy)
    elif known:
        found = f"{k3s.DATA}/agent has another CA than the servers"
        remedy = (
            "nothing to do after a rotation of the CA; "
            f"if it comes from another cluster and does not join, move {k3s.DATA}/agent to another folder"
        )
        yield problem(member.name, "leftovers", found, "the cluster's CA or none", remedy, "warning")


def _has_token(cluster: Cluster, facts: HostFacts) -> bool:
    """Return whether the agent of others has a token of this cluster; yes where it is not known."""
    one = running_k3s.installation(facts, "agent")
    if one is None or not one.text("token"):
        return True
    tokens = [token.reveal() for token in (cluster.token, cluster.agent_token) if token]
    return running_k3s.token_password(one.text("token")) in tokens


def reimaged(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield hosts whose node is registered with a password that they do not have any more (docs: architecture.md)."""
    server = next((facts for facts in all_facts.values() if facts.ready and facts.api.nodes), None)
    nodes = {node.name for node in server.api.nodes or ()} if server else set()
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        facts, name = all_facts.get(member.name), member.node_name
        if server is None or facts is None or facts.node_password or name not in nodes:
            continue
        found = f"the host was reinstalled: node {name} exists, but not its password, /etc/rancher/node/password"
        remedy = (
            f"restore that file; or `nornir-k3s replace {member.name}`; or on {server.host}: "
            f"k3s kubectl delete node {name}; "
            f"k3s kubectl -n kube-system delete secret {name}.node-password.k3s --ignore-not-found"
        )
        yield problem(member.name, "reimaged", found, "the node's password, or no such node", remedy)
