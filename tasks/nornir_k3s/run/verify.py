"""Proof that the finished cluster works: scripts that only read, and what their answers say."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nornir_k3s import k3s
from nornir_k3s.facts.observe import KUBECONFIG, nodes
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.host_facts import NodeState, Observed

PATIENCE = 30


@dataclass
class Seen:
    """What one host answered.

    Arguments:
        nodes: The nodes, asked for through the registration address with the cluster's CA; None when it did not answer.
        error: Why not.
        kubeconfig: The server's own kubeconfig.
        unreachable: Servers this agent cannot reach directly.
        holds_vip: Whether this load balancer has the VIP.
    """

    nodes: list[NodeState] | None = None
    error: str = ""
    kubeconfig: str = field(default="", repr=False)
    unreachable: tuple[str, ...] = ()
    holds_vip: bool = False


def through_address(cluster: Cluster, only: Collection[str] | None = None) -> str:
    """Return a server's script that asks the API for the nodes through the registration address.

    It waits there, for `PATIENCE` seconds at the most, until every node is Ready; what it then prints is judged here.
    """
    nodes_ = (*cluster.of("servers"), *cluster.of("agents"))
    names = [member.node_name for member in nodes_ if only is None or member.name in only]
    return f"""
ask() {{ timeout 15 {k3s.BINARY} kubectl --server={cluster.url} get nodes "$@"; }}
ready() {{
  list=$(ask --no-headers 2>/dev/null) || return 1
  for name in {" ".join(names)}; do
    printf '%s\\n' "$list" | grep -qE "^$name +Ready" || return 1
  done
}}
begin=$(date +%s)
until ready || [ $(( $(date +%s) - begin )) -ge {PATIENCE} ]; do sleep 0.3; done
printf 'kubeconfig\\t%s\\n' "$(base64 -w0 <{KUBECONFIG})"
if out=$(ask -o json 2>/dev/null); then printf 'nodes\\t%s\\n' "$(printf '%s' "$out" | base64 -w0)"
else printf 'error\\t%s\\n' "$(ask 2>&1 | tail -n 1)"; fi
"""


def to_servers(cluster: Cluster) -> str:
    """Return an agent's script that opens a connection to every server directly: its tunnels need that."""
    port = cluster.server.get("https-listen-port", k3s.API_PORT)
    lines = [
        f"timeout 5 bash -c 'exec 3<>/dev/tcp/{server.address}/{port}' 2>/dev/null || lost {server.name}"
        for server in cluster.of("servers")
    ]
    return "lost() { printf 'unreachable\\t%s\\n' \"$1\"; }\n" + "\n".join(lines) + "\n"


def vip(cluster: Cluster) -> str:
    """Return a load balancer's script that says whether it holds the VIP."""
    address = cluster.registration.address
    return f"ip -o addr show to {address} 2>/dev/null | grep -q . && printf 'vip\\n'; :\n"


def parse(text: str) -> Seen:
    """Return what the answer says."""
    seen = Seen()
    for line in text.splitlines():
        match line.split("\t"):
            case ["nodes", encoded]:
                seen.nodes = nodes(json.loads(base64.b64decode(encoded))["items"])
            case ["kubeconfig", encoded]:
                seen.kubeconfig = base64.b64decode(encoded).decode()
            case ["error", text_]:
                seen.error = text_
            case ["unreachable", name]:
                seen.unreachable = (*seen.unreachable, name)
            case ["vip"]:
                seen.holds_vip = True
    return seen


def observed(cluster: Cluster, seen: Mapping[str, Observed]) -> dict[str, Seen]:
    """Return the same answers from what was observed at the start of a run."""
    vip = str(cluster.registration.address or "")
    answers = {}
    for name, state in seen.items():
        lost = tuple(words[0] for words in state.facts.get("reach", []) if words[2] != "open")
        answers[name] = Seen(
            nodes=state.nodes if state.through else None,
            error="not looked at",
            kubeconfig=state.kubeconfig,
            unreachable=lost if cluster.member(name).role == "agents" else (),
            holds_vip=bool(state.interface_of(vip)),
        )
    return answers


def problems(cluster: Cluster, seen: dict[str, Seen], only: Collection[str] | None = None) -> list[str]:
    """Return in words what is not yet as it must be; nothing when the cluster works.

    Arguments:
        seen: By host name: one server, every agent, every load balancer.
        only: The hosts whose nodes must be right; all of them by default.
    """
    found: list[str] = []
    for member in cluster.of("servers"):
        if member.name in seen:
            found += _nodes(cluster, member.name, seen[member.name], only)
    for member in cluster.of("agents"):
        lost = seen[member.name].unreachable if member.name in seen else ()
        found += [f"{member.name} does not reach server {server} directly" for server in lost]
    balancers = [m.name for m in cluster.of("lb") if m.name in seen]
    holders = [name for name in balancers if seen[name].holds_vip]
    if balancers and (problem := vip_problem(cluster, holders)):
        found.append(problem)
    return found


def _nodes(cluster: Cluster, server: str, answer: Seen, only: Collection[str] | None) -> list[str]:
    if answer.nodes is None:
        return [f"the API does not answer {server} through {cluster.url}: {answer.error}"]
    have = {node.name: node for node in answer.nodes}
    found = []
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        if only is not None and member.name not in only:
            continue
        if problem := node_problem(cluster, member, have.get(member.node_name)):
            found.append(problem)
    return found


def node_problem(cluster: Cluster, member: Member, node: NodeState | None) -> str:
    """Return in words what is wrong with a member's node, if anything; None stands for one that is not listed."""
    name = member.node_name
    if node is None:
        return f"node {name} is not listed"
    if not node.ready:
        return f"node {name} is not Ready"
    if node.version != cluster.version:
        return f"node {name} runs {node.version}, the inventory asks for {cluster.version}"
    if (member.role == "servers") != ("control-plane" in node.roles):
        return f"node {name} has the roles {', '.join(node.roles) or 'none'}, it is in group {member.role}"
    return ""


def vip_problem(cluster: Cluster, holders: Sequence[str]) -> str:
    """Return in words what is wrong with the VIP being on these load balancers, if anything."""
    if len(holders) == 1:
        return ""
    where = " and ".join(holders) or "no load balancer"
    return f"the VIP {cluster.registration.address} is on {where}; exactly one must hold it"
