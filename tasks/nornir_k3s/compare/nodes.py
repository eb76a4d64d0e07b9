"""The nodes as a server lists them, compared with the inventory.

Sources: docs.k3s.io `cli/agent.md` (labels and taints are set when a node registers; later with kubectl); Kubernetes'
well-known taints (the node controller's own).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.checks import left as left_hosts
from nornir_k3s.checks import works
from nornir_k3s.compare.host import at
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import left
from nornir_k3s.roles import server as server_role

# Taints that Kubernetes itself sets and removes.
_AUTOMATIC = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


def differences(
    cluster: Cluster,
    all_facts: Mapping[str, HostFacts],
    nodes: Sequence[NodeState] | None,
    *,
    started: Collection[str] = (),
    address: AddressAnswer | None = None,
) -> Iterator[Finding]:
    """Yield the problems of the nodes, and of the servers' API.

    Arguments:
        started: The hosts whose K3s the next deploy starts or restarts.
        address: What was found at the registration address.
    """
    yield from _strange_others(cluster)
    yield from _servers(cluster, all_facts, needed=not works.reached_by_others(all_facts, address))
    yield from _agents(cluster, all_facts)
    if nodes is None:
        if any(member.name in all_facts for member in cluster.of("servers")):
            yield Finding(
                host=CLUSTER, kind="api", subject="nodes", found="no server lists the nodes",
                expected="a server whose API answers", remedy="check the servers below", severity="error",
            )  # fmt: skip
        return
    by_name = {node.name: node for node in nodes}
    for role in NODES:
        for member in cluster.of(role):
            yield from _node(cluster, member, by_name.get(member.node_name), deploys=member.name in started)
    yield from _strangers(cluster, all_facts, by_name)


def _strangers(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], by_name: Mapping[str, NodeState]
) -> Iterator[Finding]:
    expected = {member.node_name for role in NODES for member in cluster.of(role)}
    hosts = {member.node_name: member for member in left.members(cluster, all_facts)}
    for name in sorted({*by_name, *hosts} - expected):
        node = by_name.get(name)
        found, remedy = f"node {name} is not in the inventory", f"if its host has left: `kubectl delete node {name}`"
        if name in hosts:
            found, remedy = left_hosts.describe(cluster, hosts[name], node), left_hosts.remedy(hosts[name])
        yield Finding(
            host=CLUSTER, kind="stranger", subject=name, found=found, expected=left_hosts.EXPECTED, remedy=remedy,
            since=at(node.since) if node and not node.ready else None,
        )  # fmt: skip


def _strange_others(cluster: Cluster) -> Iterator[Finding]:
    """Yield load balancers and hosts of the datastore that have left the inventory."""
    for one in cluster.left_others:
        yield Finding(
            host=CLUSTER, kind="stranger", subject=one.name, found=left_hosts.describe_other(one),
            expected=left_hosts.EXPECTED_OTHERS, remedy=left_hosts.remedy_other(one),
        )  # fmt: skip


def _servers(cluster: Cluster, all_facts: Mapping[str, HostFacts], *, needed: bool) -> Iterator[Finding]:
    for member in cluster.of("servers"):
        facts = all_facts.get(member.name)
        if facts is None or facts.unit(k3s.UNITS["server"]).active != "active":
            continue  # reported as a unit
        if facts.password_refused >= facts.unit(k3s.UNITS["server"]).started > 0:
            yield _password(member)
        if not facts.ready:
            yield Finding(
                host=member.name, kind="api", subject="readyz", found="/readyz is not ok", expected="ok",
                remedy=f"check the datastore, and journalctl -u {k3s.UNITS['server']}", severity="error",
            )  # fmt: skip
        elif not facts.api.through_address:
            yield Finding(
                host=member.name, kind="api", subject="address",
                found=f"cannot reach the API at {cluster.url}", expected="an answer, with a trusted certificate",
                remedy="check what the address leads to, and tls-san" if needed else
                "nothing to do if the address leads a server to itself: agents, or the controller, reach it",
                severity="error" if needed else "note",
            )  # fmt: skip


def _agents(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for member in cluster.of("agents"):
        if member.name in all_facts and (why := all_facts[member.name].registration):
            yield Finding(
                host=member.name, kind="api", subject="address",
                found=f"cannot reach the API at {cluster.url}: {why}",
                expected="an answer, with a trusted certificate",
                remedy="check the network from this host to the address: it cannot join again", severity="error",
            )  # fmt: skip


def _password(member: Member) -> Finding:
    name = member.node_name
    return Finding(
        host=member.name, kind="node", subject="password", severity="error",
        found=f"the node password is not that with which node {name} was registered: was the host reinstalled?",
        expected="its password in /etc/rancher/node/password",
        # docs.k3s.io `architecture.md`: the entry is made again by the next start.
        remedy=f"put the old file back, or `k3s kubectl -n kube-system delete secret {name}.node-password.k3s`; "
        f"then restart {k3s.UNITS['server']} on this host",
    )  # fmt: skip


def _node(cluster: Cluster, member: Member, node: NodeState | None, *, deploys: bool) -> Iterator[Finding]:
    name = member.node_name

    def differs(found: str, expected: str, remedy: str, **more: Any) -> Finding:  # noqa: ANN401 - of Finding
        since = at(node.since) if node and not node.ready else None
        fields = {"severity": "error", "since": since, **more}
        return Finding(
            host=member.name, kind="node", subject=name, found=found, expected=expected, remedy=remedy, **fields
        )

    unit = k3s.UNITS["server" if member.role == "servers" else "agent"]
    restart, by = (f"the next deploy starts {unit} again", "deploy") if deploys else (f"restart {unit}", "person")
    if node is None:
        yield differs(f"node {name} is not listed", "a node", f"{restart}: the node registers then", fixed_by=by)
        return
    if cluster.own_cni and node.lacks_cni:
        remedy = "install a CNI: flannel-backend is none, so K3s brings none"
        yield differs(f"node {name} waits for a CNI; no pods run there", "Ready", remedy, severity="note")
    elif not node.ready:
        yield differs(f"node {name} is not Ready", "Ready", f"check {unit} and the network of this host")
    if not node.schedulable:
        remedy, more = f"`kubectl uncordon {name}` when the maintenance is done", {}
        if node.ours:
            remedy, more = "an interrupted run has cordoned it: the next deploy uncordons it", {"fixed_by": "deploy"}
        yield differs(f"node {name} is cordoned", "schedulable", remedy, severity="warning", **more)
    if node.version != cluster.version:
        yield differs(f"node {name} runs {node.version}", cluster.version, restart, fixed_by=by)
    if (member.role == "servers") != ("control-plane" in node.roles):
        roles = ", ".join(node.roles) or "none"
        yield differs(f"node {name} has the roles {roles}", f"those of group {member.role}", "check which host this is")
    yield from _labels(cluster, member, node)
    yield from _taints(cluster, member, node)


def _expected(cluster: Cluster, member: Member, key: str) -> list[str]:
    wanted = (
        server_role.settings(cluster, member) if member.role == "servers" else agent_role.settings(cluster, member, "")
    )
    value = wanted.get(key, [])
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _labels(cluster: Cluster, member: Member, node: NodeState) -> Iterator[Finding]:
    labels = dict(node.labels)
    for label in _expected(cluster, member, "node-label"):
        key, _, value = label.partition("=")
        if labels.get(key) != value:
            found = f"label {key} is {labels[key] or 'empty'}" if key in labels else f"label {key} is missing"
            yield Finding(
                host=member.name, kind="label", subject=key, found=found, expected=label,
                remedy=f"`kubectl label --overwrite node {node.name} {label}`: K3s sets labels only when it starts",
            )  # fmt: skip


def _taints(cluster: Cluster, member: Member, node: NodeState) -> Iterator[Finding]:
    wanted = {_taint(text) for text in _expected(cluster, member, "node-taint")}
    current = {_taint(text) for text in node.taints if not text.startswith(_AUTOMATIC)}
    for taint in sorted(wanted - current):
        yield Finding(
            host=member.name, kind="taint", subject=taint.partition("=")[0].partition(":")[0],
            found=f"taint {taint} is missing", expected=taint,
            remedy=f"`kubectl taint node {node.name} {taint}`: K3s sets taints only at registration",
        )  # fmt: skip
    for taint in sorted(current - wanted):
        if node.schedulable or "unschedulable" not in taint:
            yield Finding(
                host=member.name, kind="taint", subject=taint.partition("=")[0].partition(":")[0],
                found=f"unexpected taint {taint}", expected="no such taint",
                remedy=f"`kubectl taint node {node.name} {taint}-`, or add it to the inventory",
            )  # fmt: skip


def _taint(text: str) -> str:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return f"{key}={value}:{effect}" if value else f"{key}:{effect}"
