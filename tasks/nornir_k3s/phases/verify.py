"""Phase verify: check that the cluster works through the registration address, and write the kubeconfig."""

from __future__ import annotations

import contextlib
from typing import Any

from nornir.core.task import Result, Task

from nornir_k3s.checks import before_upgrade, registration, works
from nornir_k3s.errors import K3sError, NotReady
from nornir_k3s.facts import Fact
from nornir_k3s.facts.k3s_node import ThroughAddress
from nornir_k3s.facts.k3s_server import ApiThroughAddress, Kubeconfig
from nornir_k3s.facts.network import Addresses, Reach
from nornir_k3s.facts.upgrade import SystemPods
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.phases import drain
from nornir_k3s.phases.agents import settle
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.retry import wait_until
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts
from nornir_k3s.state import known_cluster

NODES_TIMEOUT = 30  # seconds that one script waits on a server until all nodes are Ready


def verify(run: Run) -> None:
    """Check that the cluster works through the registration address, and write the kubeconfig.

    Raises:
        K3sError: It does not work at the deadline; with every remaining problem.
    """
    if not run.of("servers"):
        settle(run)
        run.report.notes.append("not verified, no kubeconfig: this inventory has no server")
        return
    server = require_ready(run)
    known_cluster.save_ca(run.store, run.ca_prefix, run.ca_certificate)
    known = known_cluster.managers(run.store)
    now = {name: facts.family.manager for name, facts in run.facts.items()}
    known_cluster.save_managers(run.store, known | now)
    if run.limit is None:
        known_cluster.save_packages(run.store, {m.name: run.facts[m.name].versions for m in run.of("datastore")})
    before = None if run.report.changed else run.address
    names = list(dict.fromkeys([server, *(m.name for m in (*run.of("agents"), *run.of("lb")))]))
    # If nothing was changed, the facts from the start are still valid.
    answers = {} if run.report.changed else {name: run.facts[name] for name in names}
    problems = works.problems(run.cluster, answers, run.limit, before, run.left_out) if answers else ["not checked yet"]

    def works_now() -> bool:
        answers.update(
            run.phase("verify", names, verify_host, width=run.widths["stage"], spare=run.agents(names), reads=True)
        )
        lost = run.left_out.intersection(names)
        names[:] = [name for name in names if name not in lost]
        for name in lost:
            answers.pop(name, None)
        gather.look_at_address(run)
        problems[:] = works.problems(run.cluster, answers, run.limit, run.address, run.left_out)
        problems.extend(one.found for one in _address_findings(run) if one.severity == "error")
        problems.extend(_lost_pods(run, answers[server]))
        return not problems

    try:
        if problems:
            wait_until(
                works_now,
                what="the cluster works",
                host=run.cluster.name,
                deadline=run.deadlines["verify"],
                stop=run.stop,
            )
    except NotReady:
        raise K3sError(
            "the cluster does not work yet:\n" + "\n".join(f"  - {p}" for p in problems),
            hint="check the hosts named above, then run deploy again: it resumes",
        ) from None
    run.keep_kubeconfig(answers[server].kubeconfig)
    if run.report.changed:
        _settle_address(run)
    run.report.notes += _notes(run, server, answers[server])
    _after_upgrade(run, answers[server])
    settle(run)


def _lost_pods(run: Run, answer: HostFacts) -> list[str]:
    """Return what of kube-system has lost pods in an upgrade."""
    if run.before_upgrade is None or run.before_upgrade.pods is None or answer.system_pods is None:
        return []
    left_out = [run.member(name).node_name for name in run.left_out]
    return before_upgrade.lost(run.before_upgrade.pods, answer.system_pods, left_out)


def _after_upgrade(run: Run, answer: HostFacts) -> None:
    """Uncordon nodes that this tool has cordoned, and note what else is not as before the upgrade."""
    if run.before_upgrade is None or not run.report.changed:
        return
    before = run.before_upgrade
    new = [node for node in answer.api.nodes or () if not node.schedulable and node.name not in before.cordoned]
    members = [member for role in NODES for member in run.of(role)]
    well = {member.node_name: member.name for member in members if not run.report.hosts[member.name].error}
    drain.release(run, [well[node.name] for node in new if node.ours and node.name in well])
    left = [node.name for node in new if not (node.ours and node.name in well)]
    if left:
        run.report.notes.append(f"cordoned since this run began: {', '.join(left)}; see kubectl uncordon")
    if gone := before_upgrade.gone(before.pods or (), answer.system_pods or ()):
        run.report.notes.append(f"kube-system had pods of {', '.join(gone)} before the upgrade, and has none now")


def _address_findings(run: Run) -> list[Finding]:
    return list(registration.check(run.cluster, run.facts, run.address))


def _settle_address(run: Run) -> None:
    """Wait a little until a load balancer of others leads to all servers, and note what it does not do."""

    def settled() -> bool:
        gather.look_at_address(run)
        return not any(one.severity == "warning" for one in _address_findings(run))

    if any(one.severity == "warning" for one in _address_findings(run)):
        with contextlib.suppress(NotReady):
            stop = run.stop
            wait_until(settled, what="the load balancer leads to every server", host=CLUSTER, deadline=15, stop=stop)
    found = [one for one in _address_findings(run) if one.severity == "warning"]
    run.report.notes += [f"{one.found}: {one.remedy}" for one in found]


def _notes(run: Run, server: str, answer: HostFacts) -> list[str]:
    """Return from where the registration address does not answer although it works."""
    notes, url, address = [], run.cluster.url, run.address
    if not answer.api.through_address:
        notes.append(f"{server} does not reach {url}, which may lead back to this server; agents or this machine do")
    if address and (why := address.unreached or address.error):
        notes.append(f"the kubeconfig does not work on this machine, which cannot connect to {url}: {why}")
    return notes


def verify_host(task: Task, run: Run) -> Result:
    """Read the facts of this host that show whether the cluster works."""
    roles = run.member(task.host.name).roles
    facts: list[Fact[Any]] = [Addresses()] if "lb" in roles else []
    if "agents" in roles:
        facts += [Reach(), ThroughAddress()]
    if "servers" in roles:
        members = [member for part in NODES for member in run.cluster.of(part)]
        chosen = run.chosen(member.name for member in members)
        nodes = [member.node_name for member in members if member.name in chosen]
        awaited = [] if run.cluster.own_cni else nodes  # without their CNI they may never be Ready
        facts += [ApiThroughAddress(awaited, NODES_TIMEOUT), Kubeconfig()]
        facts += [SystemPods()] if run.before_upgrade else []
    return Result(host=task.host, result=read_facts(task, run, facts, timeout=90))


PHASE = Phase("verify", "check that the cluster works, write the kubeconfig", verify, reads=True)
