"""Preflight: every problem of every host before the first change. Pure: cluster and facts in, findings out."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping

from nornir_k3s.checks import (
    arguments,
    before_upgrade,
    datastore,
    encryption,
    feature_gates,
    for_ever,
    host,
    left,
    load_balancers,
    moving,
    named_files,
    names,
    network,
    other_installs,
    registration,
    state,
    token,
    upgrade,
)
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
)
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts

# Beyond this K3s takes files of another server as newer than the datastore's (k3s: pkg/cluster/bootstrap.go).
MAX_SKEW = 3.0
_ORDER = ("error", "warning", "accepted", "note")


def check(
    cluster: Cluster,
    all_facts: Mapping[str, HostFacts],
    address: AddressAnswer | None = None,
    *,
    limit: Collection[str] | None = None,
) -> list[Finding]:
    """Return every finding of every host, errors first.

    Arguments:
        cluster: The desired state.
        all_facts: By host name; members without facts are not checked.
        address: What was found at the registration address.
        limit: The hosts that may be changed; None for all of them.
    """
    findings: list[Finding] = []
    for member in cluster.members:
        facts = all_facts.get(member.name)
        if facts is None:
            continue
        findings += host.check(cluster, member, facts)
        findings += network.check(cluster, member, facts)
        if member.role in NODES:
            findings += state.check(member, facts)
            findings += other_installs.check(cluster, member, facts)
            findings += named_files.check(cluster, member, facts)
            findings += arguments.check(cluster, member)
            findings += feature_gates.check(cluster, member)
    findings += _same_machine(cluster, all_facts)
    findings += _clocks(all_facts)
    findings += network.cni(cluster)
    findings += load_balancers.vip_taken(cluster, all_facts)
    findings += load_balancers.router_id_taken(cluster, all_facts)
    findings += names.check(cluster, all_facts, address)
    findings += registration.check(cluster, all_facts, address)
    findings += datastore.check(cluster, all_facts)
    findings += state.files(cluster, all_facts)
    findings += token.check(cluster, all_facts)
    findings += for_ever.check(cluster, all_facts)
    findings += encryption.check(cluster, all_facts, limit)
    findings += arguments.settings(cluster)
    findings += arguments.manifests(cluster)
    findings += upgrade.check(cluster, all_facts, limit=limit)
    findings += before_upgrade.check(cluster, all_facts)
    findings += state.reimaged(cluster, all_facts)
    findings += left.check(cluster, all_facts)
    findings += moving.check(cluster, all_facts)
    findings += _workloads(cluster)
    findings = [finding.accept(cluster.accept) for finding in findings]
    return sorted(findings, key=lambda f: _ORDER.index(f.level))


def _same_machine(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for what, check_id, attribute in (("machine-id", "machine", "machine_id"), ("host name", "hostname", "hostname")):
        first: dict[str, str] = {}
        for member in cluster.members:
            value = getattr(all_facts[member.name].system, attribute) if member.name in all_facts else ""
            if what == "host name" and member.role not in NODES:
                continue
            if value and value in first:
                found = f"same {what} as {first[value]} ({value})"
                remedy = "one machine twice, or a clone? Give it its own (systemd-machine-id-setup, hostnamectl)"
                severity: Severity = "error" if check_id == "machine" else "warning"
                yield problem(member.name, check_id, found, f"a unique {what}", remedy, severity)
            first.setdefault(value, member.name)


def _clocks(all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    # The hosts' clocks were read at different times: `skew` is relative to the controller's clock at that time, which
    # was between question and answer. On a busy machine these are seconds apart, for this host or for the others.
    if not all_facts:
        return
    middle = statistics.median(facts.skew for facts in all_facts.values())
    least = statistics.median(facts.skew - facts.skew_error for facts in all_facts.values())
    most = statistics.median(facts.skew + facts.skew_error for facts in all_facts.values())
    for name, facts in all_facts.items():
        if max(facts.skew - most, least - facts.skew) - facts.skew_error > MAX_SKEW:
            found = f"its clock is {facts.skew - middle:+.1f} s off the others'"
            yield problem(name, "clock", found, f"within {MAX_SKEW:.0f} s", "run an NTP client on every host")


def _workloads(cluster: Cluster) -> Iterator[Finding]:
    if cluster.server_taint and not cluster.of("agents"):
        found = "no agents, and the servers' taint keeps workloads off them"
        remedy = "add agents, or set server_taint: false"
        yield problem(cluster.of("servers")[0].name, "no-agents", found, "a host for workloads", remedy, "warning")
