"""How the datastore is doing: answers, connections, size, compaction.

Sources: kine (rows before `compact_rev_key` are compacted every five minutes, but for the last 1000 revisions; a
compaction that times out leaves the table growing without end); Kubernetes' API server compacts etcd likewise; etcd
`op-guide/maintenance.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import Observed

_MIB = 1 << 20


def differences(cluster: Cluster, observed: Mapping[str, Observed], limits: Limits) -> Iterator[Finding]:
    """Yield what will soon be wrong with the datastore: its own hosts tell it, or the servers of an external one."""
    told: set[tuple[str, str]] = set()
    for member in cluster.members:
        seen = observed.get(member.name)
        if seen is None or member.role not in ("datastore", "servers"):
            continue
        yield from _latency(member.name, seen, limits)
        for difference in (
            *_connections(member.name, seen, limits),
            *_table(member.name, seen, limits),
            *_etcd(member.name, seen, limits),
        ):
            # Every server asks an external one, and gets the same answers.
            if member.role == "datastore" or (difference.kind, difference.subject) not in told:
                told.add((difference.kind, difference.subject))
                yield difference


def _latency(host: str, seen: Observed, limits: Limits) -> Iterator[Finding]:
    for place, took in seen.facts.get("latency", []):
        milliseconds = float(took) if took.replace(".", "", 1).isdigit() else 0
        if milliseconds > limits.latency_ms:
            yield Finding(
                host=host, kind="latency", subject=place,
                found=f"a round trip to the datastore takes {milliseconds:.1f} ms",
                expected=f"{limits.latency_ms} ms at most", remedy="look at the network between them, and its load",
            )  # fmt: skip


def _connections(host: str, seen: Observed, limits: Limits) -> Iterator[Finding]:
    for used, allowed in seen.facts.get("connections", []):
        if not (used.isdigit() and allowed.isdigit()) or int(allowed) == 0:
            continue
        percent = 100 * int(used) // int(allowed)
        if percent >= limits.connections_percent:
            yield Finding(
                host=host, kind="connections", subject="datastore", found=f"{used} of {allowed} connections are in use",
                expected=f"less than {limits.connections_percent} %",
                remedy="raise max_connections, or bound K3s' pool with `datastore_pool`",
                severity="error" if percent >= 95 else "warning",
            )  # fmt: skip


def _table(host: str, seen: Observed, limits: Limits) -> Iterator[Finding]:
    for rows, size in seen.facts.get("table", []):
        mib = _number(size) // _MIB
        if _number(rows) > limits.rows or _number(size) > limits.table_mib * _MIB:
            yield Finding(
                host=host, kind="table", subject="kine", found=f"table kine has about {rows} rows, {mib} MiB",
                expected=f"{limits.rows} rows and {limits.table_mib} MiB at most",
                remedy="is it compacted? What writes so much? docs/datastores.md",
            )  # fmt: skip
    for newest, compacted in seen.facts.get("revisions", []):
        lag = _number(newest) - _number(compacted)
        if lag > limits.revisions:
            yield Finding(
                host=host, kind="compaction", subject="revisions", found=f"{lag} revisions are not compacted",
                expected=f"{limits.revisions} at most: K3s compacts every five minutes",
                remedy="look for `Compact failed` in the servers' journals: the datastore may be too slow for it",
            )  # fmt: skip


def _etcd(host: str, seen: Observed, limits: Limits) -> Iterator[Finding]:
    for (alarm,) in seen.facts.get("alarm", []):
        yield Finding(
            host=host, kind="table", subject="alarm", found=f"etcd raises an alarm: {alarm}", expected="no alarm",
            remedy="compact, defragment, then `etcdctl alarm disarm`", severity="error",
        )  # fmt: skip
    try:
        status: dict[str, Any] = json.loads(seen.fact("status") or "[]")[0]["Status"]
    except (ValueError, IndexError, KeyError, TypeError):
        return
    size = int(status.get("dbSize", 0))
    mib = size // _MIB
    if size > limits.table_mib * _MIB:
        used = int(status.get("dbSizeInUse", 0)) // _MIB
        yield Finding(
            host=host, kind="table", subject="etcd", found=f"its data take {mib} MiB, {used} MiB of them in use",
            expected=f"{limits.table_mib} MiB at most", remedy="defragment it, one member at a time: `etcdctl defrag`",
        )  # fmt: skip


def _number(text: str) -> int:
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0
