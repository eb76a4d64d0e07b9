"""Health of the datastore: latency, connections, size, compaction, revisions that were lost.

Sources: kine (rows before `compact_rev_key` are compacted every five minutes, but for the last 1000 revisions; a
compaction that times out leaves the table growing without end); Kubernetes' API server compacts etcd likewise; etcd
`op-guide/maintenance.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.went_back import WentBack
from nornir_k3s.roles.datastore_mysql import MARIADB, MYSQL

_MIB = 1 << 20
_MYSQL = {"mariadb": MARIADB, "mysql": MYSQL}


def differences(cluster: Cluster, all_facts: Mapping[str, HostFacts], limits: Limits) -> Iterator[Finding]:
    """Yield limits that the datastore exceeds, as read on its own hosts, or from the servers if it is external."""
    reported: set[tuple[str, str]] = set()
    for member in cluster.members:
        facts = all_facts.get(member.name)
        if facts is None or not set(member.roles) & {"datastore", "servers"}:
            continue
        yield from _latency(member.name, facts, limits)
        for difference in (
            *_connections(member.name, facts, limits),
            *_table(member.name, facts, limits),
            *_etcd(member.name, facts, limits),
        ):
            # Every server probes an external datastore, with the same results.
            if "datastore" in member.roles or (difference.kind, difference.subject) not in reported:
                reported.add((difference.kind, difference.subject))
                yield difference


def went_back(back: WentBack | None) -> Iterator[Finding]:
    """Yield that the datastore's newest revision is lower than it was."""
    if back:
        yield Finding(
            host=CLUSTER, kind="revision", subject="datastore", found=f"{back}: what was written between is lost",
            expected="a revision that only rises: servers answer from their caches",
            remedy="find out what was restored, or failed over; deploy restarts one server after the other",
            fixed_by="deploy", severity="error",
        )  # fmt: skip


def kept_aside(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return notes of what restores have kept in the datastore, with the command that removes it."""
    notes = []
    for member in cluster.members:
        found = all_facts[member.name].database.aside if member.name in all_facts else {}
        where = member.name if cluster.is_managed else "the datastore"
        for name, what in found.items():
            text = f"{where} keeps what was there before a restore in {what} {name}; to remove it when nobody needs it:"
            notes.append(f"{text} {_removal(cluster, name, what)}")
    return list(dict.fromkeys(notes))


def _removal(cluster: Cluster, name: str, what: str) -> str:
    statement = f"DROP {what.upper()} {name}"
    if what == "folder":
        return f"rm -r {name}"
    if not cluster.is_managed:
        return f"{statement};"
    if cluster.managed.kind == "postgresql":
        return f"runuser -u postgres -- psql {cluster.managed.database} -c '{statement}'"
    return f"{_MYSQL[cluster.managed.kind].client} {cluster.managed.database} -e '{statement}'"


def _latency(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    for address, milliseconds in facts.latency.items():
        if milliseconds > limits.latency_ms:
            yield Finding(
                host=host, kind="latency", subject=address,
                found=f"a round trip to the datastore takes {milliseconds:.1f} ms",
                expected=f"at most {limits.latency_ms} ms", remedy="check the network and the load of the datastore",
            )  # fmt: skip


def _connections(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    used, allowed = facts.datastore_health.connections or (0, 0)
    percent = 100 * used // allowed if allowed else 0
    if percent >= limits.connections_percent:
        yield Finding(
            host=host, kind="connections", subject="datastore", found=f"{used} of {allowed} connections are in use",
            expected=f"less than {limits.connections_percent} %",
            remedy="raise max_connections, or limit K3s' connection pool with `datastore_pool`",
            severity="error" if percent >= 95 else "warning",
        )  # fmt: skip


def _table(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    rows, size = facts.datastore_health.table or (0, 0)
    if rows > limits.rows or size > limits.table_mib * _MIB:
        yield Finding(
            host=host, kind="table", subject="kine", found=f"table kine has about {rows} rows, {size // _MIB} MiB",
            expected=f"at most {limits.rows} rows and {limits.table_mib} MiB",
            remedy="check compaction, and which clients write so much",
        )  # fmt: skip
    newest, compacted = facts.datastore_health.revisions or (0, 0)
    if newest - compacted > limits.revisions:
        yield Finding(
            host=host, kind="compaction", subject="revisions",
            found=f"{newest - compacted} revisions are not compacted",
            expected=f"at most {limits.revisions}: K3s compacts every five minutes",
            remedy="look for `Compact failed` in the servers' journals: the datastore may be too slow",
        )  # fmt: skip


def _etcd(host: str, facts: HostFacts, limits: Limits) -> Iterator[Finding]:
    for alarm in facts.datastore_health.alarms:
        yield Finding(
            host=host, kind="table", subject="alarm", found=f"etcd has the alarm {alarm}", expected="no alarm",
            remedy="compact, defragment, then `etcdctl alarm disarm`", severity="error",
        )  # fmt: skip
    size, used = facts.datastore_health.etcd_size or (0, 0)
    if size > limits.table_mib * _MIB:
        yield Finding(
            host=host, kind="table", subject="etcd",
            found=f"etcd's data take {size // _MIB} MiB, {used // _MIB} MiB of them in use",
            expected=f"at most {limits.table_mib} MiB", remedy="defragment it, one member at a time: `etcdctl defrag`",
        )  # fmt: skip
