"""All differences of a cluster: plans and facts of its hosts in, findings out. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from nornir_k3s.checks import preflight
from nornir_k3s.compare import datastore, effective_config, encryption, host, load_balancers, nodes
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.settings import KnownDifference
from nornir_k3s.planner import PlannedHost
from nornir_k3s.roles import left

_ORDER = ("error", "warning", "note")
_NEED_CA = {"agents", "lb"}


def differences(
    cluster: Cluster,
    hosts: Mapping[str, PlannedHost],
    all_facts: Mapping[str, HostFacts],
    limits: Limits,
    *,
    has_ca: bool,
    address: AddressAnswer | None = None,
) -> list[Finding]:
    """Return everything that does not match on the hosts that were read, the most severe first.

    Arguments:
        hosts: The plans of the hosts to compare.
        all_facts: The facts of all hosts that were read, by host name.
        limits: Thresholds above which a value counts as drift.
        address: What was found at the registration address.
        has_ca: The cluster's CA was read from a server; without it some files cannot be compared.
    """
    listed = left.listed(cluster, all_facts)
    found: list[Finding] = []
    for name, planned in hosts.items():
        compared = planned
        if set(planned.member.roles) & _NEED_CA and not has_ca:
            compared = _without_ca(planned)
            found.append(_unread(name))
        found += host.differences(cluster, compared)
    started = [name for name, planned in hosts.items() if planned.starts_k3s]
    found += nodes.differences(cluster, all_facts, listed, started=started, address=address)
    found += encryption.differences(cluster, all_facts)
    found += effective_config.differences(cluster, all_facts, listed or ())
    loaded = [name for name, planned in hosts.items() if planned.acts_on(load_balancers.HAPROXY)]
    found += load_balancers.differences(cluster, all_facts, loaded=loaded)
    found += datastore.differences(cluster, all_facts, limits)
    checks = preflight.check(cluster, all_facts, address)
    # What stops a deploy; those that have left the inventory are told as strangers.
    found += (one for one in checks if one.severity != "note" and one.subject != "left")
    return ordered(found)


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """Return the differences, each once, the most severe first."""
    once = {(difference.id, difference.found): difference for difference in reversed(found)}
    return sorted(once.values(), key=lambda d: (_ORDER.index(d.severity), d.host == CLUSTER, d.host, d.kind, d.subject))


def _without_ca(host: PlannedHost) -> PlannedHost:
    return replace(host, desired=replace(host.desired, files=(), gone=()), by_role={}, tidy=())


def _unread(name: str) -> Finding:
    return Finding(
        host=name, kind="unread", subject="files", found="configuration not compared: no server could be read",
        expected="the cluster's CA, read from a server", remedy="check the servers first", severity="note",
    )  # fmt: skip


def accepted(
    found: Sequence[Finding], known: Sequence[KnownDifference], today: date
) -> tuple[list[Finding], list[str]]:
    """Return the differences, known ones marked as accepted, and a note for each `known_drift` that matches nothing.

    Arguments:
        known: `known_drift` of the inventory; an entry whose last day has passed no longer accepts anything.
        today: The day to compare the last day with.
    """
    matched: set[str] = set()
    result = []
    for difference in found:
        match = next((one for one in known if fnmatch.fnmatchcase(difference.id, one.id)), None)
        if match is None or difference.accepted:
            result.append(difference)
            continue
        matched.add(match.id)
        if match.until < today:
            again = f"{difference.found} (accepted until {match.until}: {match.reason})"
            result.append(difference.model_copy(update={"found": again, "until": match.until}))
        else:
            result.append(difference.model_copy(update={"accepted": match.reason, "until": match.until}))
    notes = [f"known_drift {one.id} matches nothing: remove it" for one in known if one.id not in matched]
    return result, notes
