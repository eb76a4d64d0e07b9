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
from nornir_k3s.model.difference import Difference
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.host_facts import Observed

_MIB = 1 << 20


def differences(cluster: Cluster, observed: Mapping[str, Observed], limits: Limits) -> Iterator[Difference]:
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
            if member.role == "datastore" or (difference.kind, difference.what) not in told:
                told.add((difference.kind, difference.what))
                yield difference


def _latency(host: str, seen: Observed, limits: Limits) -> Iterator[Difference]:
    for place, took in seen.facts.get("latency", []):
        milliseconds = float(took) if took.replace(".", "", 1).isdigit() else 0
        if milliseconds > limits.latency_ms:
            yield Difference(
                host=host, kind="latency", what=place,
                found=f"a round trip to the datastore takes {milliseconds:.1f} ms",
                expected=f"{limits.latency_ms} ms at most", todo="look at the network between them, and its load",
            )  # fmt: skip


def _connections(host: str, seen: Observed, limits: Limits) -> Iterator[Difference]:
    for used, allowed in seen.facts.get("connections", []):
        if not (used.isdigit() and allowed.isdigit()) or int(allowed) == 0:
            continue
        percent = 100 * int(used) // int(allowed)
        if percent >= limits.connections_percent:
            yield Difference(
                host=host, kind="connections", what="datastore", found=f"{used} of {allowed} connections are in use",
                expected=f"less than {limits.connections_percent} %",
                todo="raise max_connections, or bound K3s' pool with `datastore_pool`",
                severity="error" if percent >= 95 else "warning",
            )  # fmt: skip


def _table(host: str, seen: Observed, limits: Limits) -> Iterator[Difference]:
    for rows, size in seen.facts.get("table", []):
        mib = _number(size) // _MIB
        if _number(rows) > limits.rows or _number(size) > limits.table_mib * _MIB:
            yield Difference(
                host=host, kind="table", what="kine", found=f"table kine has about {rows} rows, {mib} MiB",
                expected=f"{limits.rows} rows and {limits.table_mib} MiB at most",
                todo="is it compacted? What writes so much? docs/datastores.md",
            )  # fmt: skip
    for newest, compacted in seen.facts.get("revisions", []):
        lag = _number(newest) - _number(compacted)
        if lag > limits.revisions:
            yield Difference(
                host=host, kind="compaction", what="revisions", found=f"{lag} revisions are not compacted",
                expected=f"{limits.revisions} at most: K3s compacts every five minutes",
                todo="look for `Compact failed` in the servers' journals: the datastore may be too slow for it",
            )  # fmt: skip


def _etcd(host: str, seen: Observed, limits: Limits) -> Iterator[Difference]:
    for (alarm,) in seen.facts.get("alarm", []):
        yield Difference(
            host=host, kind="table", what="alarm", found=f"etcd raises an alarm: {alarm}", expected="no alarm",
            todo="compact, defragment, then `etcdctl alarm disarm`", severity="error",
        )  # fmt: skip
    try:
        status: dict[str, Any] = json.loads(seen.fact("status") or "[]")[0]["Status"]
    except (ValueError, IndexError, KeyError, TypeError):
        return
    size = int(status.get("dbSize", 0))
    mib = size // _MIB
    if size > limits.table_mib * _MIB:
        used = int(status.get("dbSizeInUse", 0)) // _MIB
        yield Difference(
            host=host, kind="table", what="etcd", found=f"its data take {mib} MiB, {used} MiB of them in use",
            expected=f"{limits.table_mib} MiB at most", todo="defragment it, one member at a time: `etcdctl defrag`",
        )  # fmt: skip


def _number(text: str) -> int:
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0
