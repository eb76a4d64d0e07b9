"""The nodes as a server lists them, held against the inventory.

Sources: docs.k3s.io `cli/agent.md` (labels and taints are set when a node registers; later with kubectl); Kubernetes'
well-known taints (the node controller's own).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.compare.host import at
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts, NodeState
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import server as server_role

# Taints that Kubernetes sets by itself, for as long as their cause lasts.
_AUTOMATIC = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


def listed(cluster: Cluster, facts: Mapping[str, HostFacts]) -> tuple[NodeState, ...] | None:
    """Return the nodes as a ready server lists them, or None where none does."""
    seen = [facts[m.name] for m in cluster.of("servers") if m.name in facts]
    return next(
        (one.api.nodes for one in sorted(seen, key=lambda one: not one.ready) if one.api.nodes is not None), None
    )


def differences(
    cluster: Cluster, facts: Mapping[str, HostFacts], nodes: Sequence[NodeState] | None
) -> Iterator[Finding]:
    """Yield what is wrong with the nodes, and with those who list them."""
    yield from _servers(cluster, facts)
    if nodes is None:
        if any(member.name in facts for member in cluster.of("servers")):
            yield Finding(
                host=CLUSTER, kind="api", subject="nodes", found="no server lists the nodes",
                expected="a server whose API answers", remedy="look at the servers below", severity="error",
            )  # fmt: skip
        return
    have = {node.name: node for node in nodes}
    for role in NODES:
        for member in cluster.of(role):
            yield from _node(cluster, member, have.get(member.node_name))
    known = {member.node_name for role in NODES for member in cluster.of(role)}
    for name in sorted(set(have) - known):
        yield Finding(
            host=CLUSTER, kind="stranger", subject=name,
            found=f"node {name} is listed, and no host of the inventory is it", expected="nodes of the inventory only",
            since=at(have[name].since) if not have[name].ready else None,
            remedy=f"add it to the inventory, or drain it and `kubectl delete node {name}`",
        )  # fmt: skip


def _servers(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for member in cluster.of("servers"):
        seen = facts.get(member.name)
        if seen is None or seen.unit(k3s.UNITS["server"]).active != "active":
            continue  # told by the unit
        if not seen.ready:
            yield Finding(
                host=member.name, kind="api", subject="readyz", found="its /readyz is not ok",
                expected="ok", remedy=f"look why: journalctl -u {k3s.UNITS['server']}; is the datastore well?",
                severity="error",
            )  # fmt: skip
        elif not seen.api.through_address:
            yield Finding(
                host=member.name, kind="api", subject="address",
                found=f"the API does not answer it through {cluster.url}",
                expected="an answer, with a certificate it trusts",
                remedy="look at the load balancers, the VIP and tls-san", severity="error",
            )  # fmt: skip


def _node(cluster: Cluster, member: Member, node: NodeState | None) -> Iterator[Finding]:
    name = member.node_name

    def differs(found: str, expected: str, remedy: str, **more: Any) -> Finding:  # noqa: ANN401 - of Finding
        since = at(node.since) if node and not node.ready else None
        fields = {"severity": "error", "since": since, **more}
        return Finding(
            host=member.name, kind="node", subject=name, found=found, expected=expected, remedy=remedy, **fields
        )

    unit = k3s.UNITS["server" if member.role == "servers" else "agent"]
    if node is None:
        yield differs(f"node {name} is not listed", "a node", f"deploy.py, or restart {unit}: it registers again")
        return
    if not node.ready:
        yield differs(f"node {name} is not Ready", "Ready", f"look at {unit} on it, and at its network")
    if not node.schedulable:
        remedy = f"`kubectl uncordon {name}` when the work on it is done"
        yield differs(f"node {name} is cordoned", "schedulable", remedy, severity="warning")
    if node.version != cluster.version:
        yield differs(
            f"node {name} runs {node.version}", cluster.version, f"deploy.py, or restart {unit}", fixed_by="deploy"
        )
    if (member.role == "servers") != ("control-plane" in node.roles):
        roles = ", ".join(node.roles) or "none"
        yield differs(f"node {name} has the roles {roles}", f"those of group {member.role}", "is it the right host?")
    yield from _labels(cluster, member, node)
    yield from _taints(cluster, member, node)


def _asked(cluster: Cluster, member: Member, key: str) -> list[str]:
    wanted = (
        server_role.settings(cluster, member) if member.role == "servers" else agent_role.settings(cluster, member, "")
    )
    value = wanted.get(key, [])
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _labels(cluster: Cluster, member: Member, node: NodeState) -> Iterator[Finding]:
    have = dict(node.labels)
    for label in _asked(cluster, member, "node-label"):
        key, _, value = label.partition("=")
        if have.get(key) != value:
            found = f"label {key} is {have[key] or 'empty'}" if key in have else f"there is no label {key}"
            yield Finding(
                host=member.name, kind="label", subject=key, found=found, expected=label,
                remedy=f"`kubectl label --overwrite node {node.name} {label}`: K3s sets it at a start only",
            )  # fmt: skip


def _taints(cluster: Cluster, member: Member, node: NodeState) -> Iterator[Finding]:
    wanted = {_taint(text) for text in _asked(cluster, member, "node-taint")}
    have = {_taint(text) for text in node.taints if not text.startswith(_AUTOMATIC)}
    for taint in sorted(wanted - have):
        yield Finding(
            host=member.name, kind="taint", subject=taint.partition("=")[0].partition(":")[0],
            found=f"there is no taint {taint}", expected=taint,
            remedy=f"`kubectl taint node {node.name} {taint}`: K3s sets it at registration only",
        )  # fmt: skip
    for taint in sorted(have - wanted):
        if node.schedulable or "unschedulable" not in taint:
            yield Finding(
                host=member.name, kind="taint", subject=taint.partition("=")[0].partition(":")[0],
                found=f"somebody has set the taint {taint}", expected="no such taint",
                remedy=f"`kubectl taint node {node.name} {taint}-`, or put it into the inventory",
            )  # fmt: skip


def _taint(text: str) -> str:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return f"{key}={value}:{effect}" if value else f"{key}:{effect}"
