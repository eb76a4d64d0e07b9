"""status: the cluster at a glance, read-only: nodes, servers behind the VIP, who holds it, datastore, certificates."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from nornir.core import Nornir
from nornir.core.task import Result, Task
from pydantic import BaseModel, Field, computed_field

from nornir_k3s import k3s, observe
from nornir_k3s.cluster import Cluster
from nornir_k3s.datastores.endpoint import parse as parse_endpoint
from nornir_k3s.groups import datastore
from nornir_k3s.observed import NodeState, Observed
from nornir_k3s.workflows import look, places
from nornir_k3s.workflows.choice import Choice
from nornir_k3s.workflows.run import Run

FORMAT = 1
CONNECT = 5.0  # seconds: a glance does not wait for a host that is down
SOON = 30  # days; K3s renews certificates itself where it starts with fewer than 120 left (docs: cli/certificate.md)

_SAY = (
    observe.SAY
    + r"""
certs() { for f in "$1"/*.crt; do [ -f "$f" ] && say fact cert "$f" "$(base64 -w0 <"$f")"; done; }
"""
)
_ASK_HAPROXY = r"""
perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock") or exit;
  print $s "show stat\n"; while (<$s>) { @w = split /,/; print "fact\tbackend\t$w[1]\t$w[17]\n" if $w[0] eq "servers" }'
"""


class Certificate(BaseModel):
    """A certificate of K3s on a host, and the days until it ends."""

    host: str
    path: str
    days: int


class NodeStatus(BaseModel):
    """One Kubernetes node."""

    name: str
    ready: bool
    version: str
    roles: list[str]
    schedulable: bool


class Balancer(BaseModel):
    """A load balancer: whether it has the VIP, and the state of each server as HAProxy sees it."""

    holds_vip: bool
    servers: dict[str, str]


class Status(BaseModel):
    """The cluster at a glance."""

    format: int = Field(FORMAT, description="number of this form; it grows when a field changes its meaning")
    cluster: str
    version: str = Field(description="K3s version the inventory asks for")
    url: str
    nodes: list[NodeStatus] = Field(default_factory=list)
    servers: dict[str, bool] = Field(default_factory=dict, description="whether each one's /readyz is ok")
    balancers: dict[str, Balancer] = Field(default_factory=dict)
    datastore: dict[str, str] = Field(default_factory=dict, description="state of each of its hosts or addresses")
    certificates: list[Certificate] = Field(default_factory=list, description="first the one that ends first")
    unreachable: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)

    @computed_field(description="who has the VIP")  # type: ignore[prop-decorator]
    @property
    def holder(self) -> list[str]:
        """Who has the VIP."""
        return [name for name, balancer in self.balancers.items() if balancer.holds_vip]


def status(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Status:
    """Return the state of the cluster; one round trip a host, nothing is changed.

    Arguments:
        nr, base, state, options: As `deploy` takes them.

    Raises:
        UsageError: The inventory is wrong. Hosts that cannot be reached are part of the result.
    """
    where = places.of(nr, base, state)
    deadlines = {**(options or {}).get("deadlines", {}), "connect": CONNECT}
    options = {**(options or {}), "deadlines": deadlines}
    run = look.prepare(nr, base=where.base, state=where.state, options=options, choice=Choice(), keep=False)
    names = run.present
    found: dict[str, Observed] = run.phase("status", names, _look, width=run.widths["stage"], lenient=names)
    seen = {name: value for name, value in found.items() if isinstance(value, Observed)}
    result = Status(cluster=run.cluster.name, version=run.cluster.version, url=run.cluster.url)
    result.unreachable = [name for name in names if name not in seen]
    _fill(result, run.cluster, seen)
    result.problems = [f"{name} cannot be reached" for name in result.unreachable] + _problems(result, run.cluster)
    return result


def _look(task: Task, run: Run) -> Result:
    member = run.member(task.host.name)
    parts = [_SAY]
    if member.role == "servers":
        parts += [observe.server(run.cluster.url), f"certs {k3s.DATA}/server/tls\n", datastore.reach(run.cluster)]
    elif member.role == "agents":
        parts.append(f"certs {k3s.DATA}/agent\n")
    elif member.role == "lb":
        parts += [f"say fact vip \"$(ip -o addr show to '{run.cluster.registration.address}')\"\n", _ASK_HAPROXY]
    else:
        alive = datastore.kind(run.cluster).alive(member)
        parts.append(f"if {alive}; then say fact datastore active; else say fact datastore inactive; fi\n")
    script = "\n".join([*parts, "say end\n"])
    answer = look.session_of(task, run).run(script, what="looking", timeout=30, secrets=run.cluster.secrets())
    seen = observe.parse(member.name, answer.stdout)
    return Result(host=task.host, result=seen)


def _fill(result: Status, cluster: Cluster, seen: Mapping[str, Observed]) -> None:
    result.servers = {m.name: seen[m.name].ready for m in cluster.of("servers") if m.name in seen}
    lists = [seen[m.name].nodes for m in cluster.of("servers") if m.name in seen]
    result.nodes = [_node(node) for node in next((nodes for nodes in lists if nodes), [])]
    for member in cluster.of("lb"):
        if member.name in seen:
            facts = seen[member.name].facts
            states = {name: state for name, state in facts.get("backend", []) if name != "BACKEND"}
            result.balancers[member.name] = Balancer(holds_vip=bool(seen[member.name].fact("vip")), servers=states)
    for member in cluster.of("datastore"):
        result.datastore[member.name] = seen[member.name].fact("datastore") if member.name in seen else "unreachable"
    if cluster.endpoint:
        lost = {address for observed in seen.values() for address, _ in observed.unreachable}
        for host, port in parse_endpoint(cluster.endpoint).hosts:
            result.datastore[f"{host}:{port}"] = "unreachable" if f"{host}:{port}" in lost else "active"
    result.certificates = sorted(
        (certificate for name, observed in seen.items() for certificate in _certificates(name, observed)),
        key=lambda certificate: certificate.days,
    )


def _node(node: NodeState) -> NodeStatus:
    return NodeStatus(
        name=node.name,
        ready=node.ready,
        version=node.version,
        roles=list(node.roles),
        schedulable=node.schedulable,
    )


def _certificates(host: str, seen: Observed) -> list[Certificate]:
    found = []
    for path, pem in seen.facts.get("cert", []):
        try:
            ends = x509.load_pem_x509_certificate(base64.b64decode(pem)).not_valid_after_utc
        except ValueError:
            continue  # a file that K3s is just writing
        found.append(Certificate(host=host, path=path, days=(ends - datetime.now(UTC)).days))
    return found


def _problems(result: Status, cluster: Cluster) -> list[str]:
    found = [f"server {name} is not ready" for name, ready in result.servers.items() if not ready]
    have = {node.name: node for node in result.nodes}
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        node = have.get(member.node_name)
        if node is None:
            found.append(f"node {member.node_name} is not listed")
        elif not node.ready:
            found.append(f"node {member.node_name} is not Ready")
        elif node.version != cluster.version:
            found.append(f"node {member.node_name} runs {node.version}, the inventory asks for {cluster.version}")
    if result.balancers and len(result.holder) != 1:
        found.append(f"the VIP is on {' and '.join(result.holder) or 'no load balancer'}; exactly one must hold it")
    for name, balancer in result.balancers.items():
        down = [server for server, state in balancer.servers.items() if not state.startswith("UP")]
        found += [f"{name} sees server {server} {balancer.servers[server]}" for server in down]
        if not balancer.servers:
            found.append(f"HAProxy on {name} does not answer")
    found += [f"datastore {name} is {state}" for name, state in result.datastore.items() if state != "active"]
    found += [
        f"{c.path} on {c.host} ends in {c.days} days: restart K3s there, it renews them"
        for c in result.certificates
        if c.days < SOON
    ]
    return found
