"""Preflight: every problem of every host before the first change. Pure: desired and facts state in, findings out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from nornir_k3s.checks import datastore, host, network, state
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
)
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts

# Beyond this K3s takes another server's files for newer than the datastore's (k3s: pkg/cluster/bootstrap.go).
MAX_SKEW = 3.0
_ORDER = ("error", "warning", "accepted", "note")


def check(cluster: Cluster, facts: Mapping[str, HostFacts]) -> list[Finding]:
    """Return every finding of every host, errors first.

    Arguments:
        cluster: What must be true.
        facts: What is true, by host name; members that were not facts are not judged.
    """
    findings: list[Finding] = []
    for member in cluster.members:
        seen = facts.get(member.name)
        if seen is None:
            continue
        findings += host.check(cluster, member, seen)
        findings += network.check(cluster, member, seen)
        if member.role in NODES:
            findings += state.check(member, seen)
    findings += _same_machine(cluster, facts)
    findings += _clocks(facts)
    findings += network.vip_taken(cluster, facts)
    findings += datastore.check(cluster, facts)
    findings += state.files(cluster, facts)
    findings += state.living(cluster, facts)
    findings += state.versions(cluster, facts)
    findings += _workloads(cluster)
    findings = [finding.accept(cluster.accept) for finding in findings]
    return sorted(findings, key=lambda f: _ORDER.index(f.level))


def _same_machine(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for what, check_id, attribute in (("machine-id", "machine", "machine_id"), ("host name", "hostname", "hostname")):
        first: dict[str, str] = {}
        for member in cluster.members:
            value = getattr(facts[member.name].system, attribute) if member.name in facts else ""
            if what == "host name" and member.role not in NODES:
                continue
            if value and value in first:
                found = f"it has the same {what} as {first[value]} ({value})"
                remedy = "is it one machine twice, or a clone? Give it its own (systemd-machine-id-setup, hostnamectl)"
                severity: Severity = "error" if check_id == "machine" else "warning"
                yield problem(member.name, check_id, found, f"a {what} of its own", remedy, severity)
            first.setdefault(value, member.name)


def _clocks(facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    # Each host's clock was read at another moment: `skew` is against the controller's clock at that moment.
    skews = {name: seen.skew for name, seen in facts.items()}
    if not skews:
        return
    middle = statistics.median(skews.values())
    for name, skew in skews.items():
        if abs(skew - middle) > MAX_SKEW:
            found = f"its clock is {skew - middle:+.1f} s off the others'"
            yield problem(name, "clock", found, f"within {MAX_SKEW:.0f} s", "run an NTP client on every host")


def _workloads(cluster: Cluster) -> Iterator[Finding]:
    if cluster.server_taint and not cluster.of("agents"):
        found = "there are no agents, and the servers' taint keeps workloads off them"
        remedy = "add agents, or set server_taint: false"
        yield problem(cluster.of("servers")[0].name, "no-agents", found, "a host for workloads", remedy, "warning")
