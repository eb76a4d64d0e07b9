"""status: the cluster at a glance, read-only: nodes, servers, load balancers and the VIP, datastore, certificates."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.artifacts import channels
from nornir_k3s.checks import at_work, datastore, skew, works
from nornir_k3s.checks import left as left_hosts
from nornir_k3s.compare import certificate_expiry, load_balancers
from nornir_k3s.compare.datastore import kept_aside
from nornir_k3s.errors import Interrupted, K3sError
from nornir_k3s.facts import Fact
from nornir_k3s.facts.database import Database
from nornir_k3s.facts.files import AtWork
from nornir_k3s.facts.k3s_node import Certificates, ThroughAddress
from nornir_k3s.facts.k3s_server import Api, ClusterLease
from nornir_k3s.facts.load_balancer import Backends
from nornir_k3s.facts.network import Addresses, UnreachableDatastore
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.status import Balancer, Certificate, NodeStatus, Status
from nornir_k3s.roles import left
from nornir_k3s.run import gather, kubectl, paths, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backups, revision

CONNECT = 5.0  # seconds to wait for a host that is down
SOON = 30  # days; K3s renews certificates when it starts with fewer than 120 days left (docs: cli/certificate.md)


def status(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Status:
    """Return the state of the cluster; one round trip per host, nothing is changed.

    Arguments:
        nr, base, state, options: As for `deploy`.

    Raises:
        UsageError: The inventory or an option is wrong. Hosts that cannot be reached are part of the result.
    """
    folders = paths.of(nr, base, state)
    options = complete(nr, options)
    options = {**options, "deadlines": {**options.get("deadlines", {}), "connect": CONNECT}}
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=options, choice=Choice(), keep=False)
    minor = k3s.minor(run.cluster.version)
    with ThreadPoolExecutor(2, thread_name_prefix="versions") as pool:
        newest, client = pool.submit(channels.newest, run.cluster.artifacts, minor), pool.submit(kubectl.version)
        found = read(run)
    found.newest, found.kubectl = newest.result(), client.result()
    servers = [node.version for node in found.nodes if "control-plane" in node.roles]
    found.notes += filter(None, [skew.kubectl(found.kubectl, servers)])
    return found


def read(run: Run) -> Status:
    """Return the state of the cluster of a run."""
    names, disagree = run.present, ""
    try:
        run.begin()
    except Interrupted:
        raise
    except K3sError as error:  # another controller may be rotating something now
        disagree, run.first = error.message, None
    results = run.phase("status", names, _read, width=run.widths["stage"], lenient=names, reads=True)
    all_facts = {name: value for name, value in results.items() if isinstance(value, HostFacts)}
    result = Status(cluster=run.cluster.name, version=run.cluster.version, url=run.cluster.url)
    result.at_work = at_work.owners(all_facts)
    taken_back = (note for note in run.report.notes if note.startswith(take_back.NOTE))
    result.notes = [*result.at_work, *run.cluster.notes, *taken_back]
    result.backups = backups.last(run.store)
    result.unreachable = [name for name in names if name not in all_facts]
    _fill(result, run.cluster, all_facts)
    result.problems = [f"{name} is unreachable" for name in result.unreachable]
    result.problems += [disagree] if disagree else []
    result.problems += _problems(result, run.cluster, all_facts)
    newest = max((one.database.newest for one in all_facts.values()), default=0)
    if back := revision.look(run.store, run.cluster, newest, now=run.started).back:
        result.problems.append(f"{back}: run drift")
    result.problems += works.unreached(run.cluster, all_facts)
    result.problems += [f"{one.found}: {one.remedy}" for one in left_hosts.check(run.cluster, all_facts)]
    result.problems += [
        f"{one.path} on {one.host} {certificate_expiry.when(one)}: {certificate_expiry.remedy(run.cluster, one)}"
        for one in certificate_expiry.expiries(all_facts)
        if one.days < SOON
    ]
    result.notes += [str(one) for one in datastore.single_host(run.cluster)]
    result.notes += kept_aside(run.cluster, all_facts)
    return result


_FACTS: Mapping[str, tuple[Fact[Any], ...]] = {
    "servers": (AtWork(), Api(), ClusterLease(), Certificates(), UnreachableDatastore()),
    "agents": (AtWork(), Certificates(), ThroughAddress()),
    "lb": (AtWork(), Addresses(), Backends(), Certificates()),
    "datastore": (AtWork(), Database(), Certificates()),
}


def _read(task: Task, run: Run) -> Result:
    wanted = {type(fact): fact for role in run.member(task.host.name).roles for fact in _FACTS[role]}
    return Result(host=task.host, result=gather.read_facts(task, run, list(wanted.values()), timeout=30))


def _fill(result: Status, cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> None:
    result.servers = {m.name: all_facts[m.name].ready for m in cluster.of("servers") if m.name in all_facts}
    result.nodes = [_node(node) for node in left.listed(cluster, all_facts) or []]
    holders = load_balancers.holders(cluster, all_facts)
    for name in (m.name for m in cluster.of("lb") if m.name in all_facts):
        result.balancers[name] = Balancer(holds_vip=name in holders, servers=load_balancers.states(all_facts[name]))
    for member in cluster.of("datastore"):
        result.datastore[member.name] = _datastore(all_facts.get(member.name))
    if cluster.endpoint:
        unreachable = {one.address for facts in all_facts.values() for one in facts.unreachable}
        for host, port in parse_endpoint(cluster.endpoint).hosts:
            result.datastore[f"{host}:{port}"] = "unreachable" if f"{host}:{port}" in unreachable else "active"
    result.certificates = [
        Certificate(host=one.host, path=one.path, days=one.days, authority=one.authority)
        for one in certificate_expiry.expiries(all_facts)
    ]


def _datastore(facts: HostFacts | None) -> str:
    if facts is None:
        return "unreachable"
    return "active" if facts.database.alive else "inactive"


def _node(node: NodeState) -> NodeStatus:
    return NodeStatus(
        name=node.name,
        ready=node.ready,
        version=node.version,
        roles=list(node.roles),
        schedulable=node.schedulable,
    )


def _problems(result: Status, cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    found = [f"server {name} is not ready" for name, ready in result.servers.items() if not ready]
    by_name = {node.name: node for node in left.listed(cluster, all_facts) or []}
    members = (*cluster.of("servers"), *cluster.of("agents"))
    found += filter(None, (works.node_problem(cluster, member, by_name.get(member.node_name)) for member in members))
    found += skew.problems(cluster, list(by_name.values()))
    if result.balancers:
        held = ((vip, load_balancers.holders(cluster, all_facts, vip)) for vip in cluster.vips)
        found += filter(None, (works.vip_problem(vip, names) for vip, names in held))
    for name, balancer in result.balancers.items():
        down = [server for server, state in balancer.servers.items() if not state.startswith("UP")]
        found += [f"HAProxy on {name} reports server {server} as {balancer.servers[server]}" for server in down]
        if not balancer.servers:
            found.append(f"HAProxy on {name} does not answer")
    found += [f"datastore {name} is {state}" for name, state in result.datastore.items() if state != "active"]
    return found
