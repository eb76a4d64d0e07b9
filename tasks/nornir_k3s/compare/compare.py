"""Everything that was read of a cluster in, everything that does not match out. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from nornir_k3s.checks import preflight
from nornir_k3s.compare import datastore, effective_config, host, load_balancers, nodes
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.settings import (
    KnownDifference,
)
from nornir_k3s.planner import PlannedHost

_ORDER = ("error", "warning", "note")
_WAITS = ("agents", "lb")


def differences(
    cluster: Cluster, hosts: Mapping[str, PlannedHost], facts: Mapping[str, HostFacts], limits: Limits, *, has_ca: bool
) -> list[Finding]:
    """Return everything that does not match on the hosts that were read, the worst first.

    Arguments:
        hosts: The plans of the hosts in question.
        facts: Of all hosts that were read.
        limits: From where on something counts.
        has_ca: A server has said what the cluster's CA is; without it some files cannot be compared.
    """
    listed = nodes.listed(cluster, facts)
    found: list[Finding] = []
    for name, planned in hosts.items():
        compared = planned
        if planned.member.role in _WAITS and not has_ca:
            compared = _without_ca(planned)
            found.append(_unread(name))
        found += host.differences(cluster, compared)
    found += nodes.differences(cluster, facts, listed)
    found += effective_config.differences(cluster, facts, listed or ())
    found += load_balancers.differences(cluster, facts)
    found += datastore.differences(cluster, facts, limits)
    found += (one for one in preflight.check(cluster, facts) if one.severity != "note")  # what a deploy would stop at
    return ordered(found)


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """Return the differences, each once, the worst first."""
    once = {difference.id: difference for difference in reversed(found)}
    return sorted(once.values(), key=lambda d: (_ORDER.index(d.severity), d.host == CLUSTER, d.host, d.kind, d.subject))


def _without_ca(host: PlannedHost) -> PlannedHost:
    return replace(host, desired=replace(host.desired, files=(), gone=()), converge=(), tidy=())


def _unread(name: str) -> Finding:
    return Finding(
        host=name, kind="unread", subject="files", found="its configuration was not compared: no server could be read",
        expected="a server that says what the cluster's CA is", remedy="look at the servers first", severity="note",
    )  # fmt: skip


def accepted(
    found: Sequence[Finding], known: Sequence[KnownDifference], today: date
) -> tuple[list[Finding], list[str]]:
    """Return the differences, those that are known marked, and in words which of the known ones were not met.

    Arguments:
        known: What the inventory accepts; one whose end has passed counts again.
        today: What its end is compared with.
    """
    met: set[str] = set()
    result = []
    for difference in found:
        match = next((one for one in known if fnmatch.fnmatchcase(difference.id, one.id)), None)
        if match is None or difference.accepted:
            result.append(difference)
            continue
        met.add(match.id)
        if match.until < today:
            again = f"{difference.found} (accepted until {match.until}: {match.reason})"
            result.append(difference.model_copy(update={"found": again, "until": match.until}))
        else:
            result.append(difference.model_copy(update={"accepted": match.reason, "until": match.until}))
    notes = [f"known_drift {one.id} was not met: remove it from the inventory" for one in known if one.id not in met]
    return result, notes
