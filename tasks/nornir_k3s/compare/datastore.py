"""How the datastore is doing: answers, connections, size, compaction.

Sources: kine (rows before `compact_rev_key` are compacted every five minutes, but for the last 1000 revisions; a
compaction that times out leaves the table growing without end); Kubernetes' API server compacts etcd likewise; etcd
`op-guide/maintenance.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts

_MIB = 1 << 20


def differences(cluster: Cluster, facts: Mapping[str, HostFacts], limits: Limits) -> Iterator[Finding]:
    """Yield what will soon be wrong with the datastore: its own hosts tell it, or the servers of an external one."""
    told: set[tuple[str, str]] = set()
    for member in cluster.members:
        seen = facts.get(member.name)
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


def _latency(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    for place, milliseconds in facts.latency.items():
        if milliseconds > limits.latency_ms:
            yield Finding(
                host=host, kind="latency", subject=place,
                found=f"a round trip to the datastore takes {milliseconds:.1f} ms",
                expected=f"{limits.latency_ms} ms at most", remedy="look at the network between them, and its load",
            )  # fmt: skip


def _connections(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    used, allowed = facts.datastore_health.connections or (0, 0)
    percent = 100 * used // allowed if allowed else 0
    if percent >= limits.connections_percent:
        yield Finding(
            host=host, kind="connections", subject="datastore", found=f"{used} of {allowed} connections are in use",
            expected=f"less than {limits.connections_percent} %",
            remedy="raise max_connections, or bound K3s' pool with `datastore_pool`",
            severity="error" if percent >= 95 else "warning",
        )  # fmt: skip


def _table(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    rows, size = facts.datastore_health.table or (0, 0)
    if rows > limits.rows or size > limits.table_mib * _MIB:
        yield Finding(
            host=host, kind="table", subject="kine", found=f"table kine has about {rows} rows, {size // _MIB} MiB",
            expected=f"{limits.rows} rows and {limits.table_mib} MiB at most",
            remedy="is it compacted? What writes so much? docs/datastores.md",
        )  # fmt: skip
    newest, compacted = facts.datastore_health.revisions or (0, 0)
    if newest - compacted > limits.revisions:
        yield Finding(
            host=host, kind="compaction", subject="revisions",
            found=f"{newest - compacted} revisions are not compacted",
            expected=f"{limits.revisions} at most: K3s compacts every five minutes",
            remedy="look for `Compact failed` in the servers' journals: the datastore may be too slow for it",
        )  # fmt: skip


def _etcd(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    for alarm in facts.datastore_health.alarms:
        yield Finding(
            host=host, kind="table", subject="alarm", found=f"etcd raises an alarm: {alarm}", expected="no alarm",
            remedy="compact, defragment, then `etcdctl alarm disarm`", severity="error",
        )  # fmt: skip
    size, used = facts.datastore_health.etcd_size or (0, 0)
    if size > limits.table_mib * _MIB:
        yield Finding(
            host=host, kind="table", subject="etcd",
            found=f"its data take {size // _MIB} MiB, {used // _MIB} MiB of them in use",
            expected=f"{limits.table_mib} MiB at most", remedy="defragment it, one member at a time: `etcdctl defrag`",
        )  # fmt: skip
