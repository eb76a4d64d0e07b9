"""What the servers of a cluster run on, and whether its data can be moved to the datastore of the inventory.

Sources: k3s `pkg/cluster/managed.go` (SQLite without an endpoint).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nornir_k3s import k3s
from nornir_k3s.checks import datastore as datastore_checks
from nornir_k3s.checks import other_installs
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.paths import MOVING, SYSTEMD
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore, left

FILES = ("datastore-cafile", "datastore-certfile", "datastore-keyfile")
_AGAIN = "run `nornir-k3s move` again, which finishes it, or `nornir-k3s move --back`"


@dataclass(frozen=True)
class Origin:
    """What a server runs on.

    Arguments:
        endpoint: None for SQLite.
        files: The paths of its TLS files on the server, by K3s' setting.
    """

    endpoint: Endpoint | None
    files: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """Return its kind and where it is, without a secret."""
        return describe(self.endpoint)

    @property
    def identity(self) -> tuple[object, ...]:
        """What two servers on the same datastore have alike."""
        return () if self.endpoint is None else _identity(self.endpoint)


def describe(endpoint: Endpoint | None) -> str:
    """Return the kind of a datastore and where it is, without a secret."""
    if endpoint is None:
        return f"SQLite, {other_installs.SQLITE}"
    where = ", ".join(f"{host}:{port}" for host, port in endpoint.hosts)
    name = {"mysql": "MariaDB or MySQL", "postgresql": "PostgreSQL", "etcd": "etcd"}[endpoint.kind]
    return f"{name} at {where}" + (f", database {endpoint.database}" if endpoint.database else "")


def _identity(endpoint: Endpoint) -> tuple[object, ...]:
    return (endpoint.kind, endpoint.hosts, endpoint.database)


def wanted(cluster: Cluster) -> Endpoint:
    """Return the endpoint of the inventory."""
    return parse(datastore.endpoint(cluster))


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers whose K3s was stopped by a move that did not end."""
    for name in stopped(cluster, all_facts):
        found = "a move of the datastore was interrupted while it was copied: K3s is stopped"
        yield problem(name, "moving", found, "no move that has not ended", _AGAIN)
    holders = [name for name, facts in all_facts.items() if facts.database.unfinished]
    if holders and not stopped(cluster, all_facts):
        found = "a move or a restore of the datastore was interrupted: this etcd has a part of the keys"
        remedy = f"after a restore, run `nornir-k3s restore FILE` again; after a move, {_AGAIN}"
        remedy += "; only if none of it is needed, remove its keys: etcdctl del --prefix ''"
        yield problem(holders[0], "moving", found, "no move or restore that has not ended", remedy)
    yield from abandoned(cluster, all_facts)


def stopped(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers that a move has stopped, whose copy is not known to be whole."""
    return [m.name for m in cluster.of("servers") if m.name in all_facts and MOVING in all_facts[m.name].present]


def abandoned(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers that are stopped, and would become another cluster on a datastore without their data."""
    if any(facts.ready or facts.database.bootstrap for facts in all_facts.values()):
        return
    if not any(datastore_checks.is_empty(cluster, facts) for facts in datastore_checks.probed(cluster, all_facts)):
        return
    for name, origin in origins(cluster, all_facts).items():
        facts = all_facts[name]
        if origin.endpoint and facts.server.token == cluster.token.fingerprint():
            found = f"K3s is stopped, and used {origin}; this datastore has no data of its cluster"
            remedy = "start K3s and take the data along with `nornir-k3s move`; or use that datastore again"
            yield problem(name, "datastore-moved", found, "the cluster's data", remedy)


def installed(facts: HostFacts) -> bool:
    """Return whether a server has K3s, running or not."""
    return f"{SYSTEMD}/{k3s.UNITS['server']}" in facts.present or k3s.UNITS["server"] in facts.foreign_units


def runs(facts: HostFacts) -> bool:
    """Return whether a server's K3s runs, or is about to."""
    return facts.unit(k3s.UNITS["server"]).active in ("active", "activating")


def origins(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> dict[str, Origin]:
    """Return what each server runs on that has K3s, and is not on the datastore of the inventory yet."""
    read = [m.name for m in cluster.of("servers") if m.name in all_facts]
    found = {name: one for name in read if (one := _origin(all_facts[name]))}
    return {name: one for name, one in found.items() if one.endpoint is None or not _on(cluster, one)}


def switched(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers whose files name the datastore of the inventory already."""
    found = []
    for name in [m.name for m in cluster.of("servers") if m.name in all_facts]:
        state, origin = all_facts[name].files.get(k3s.CONFIG), _origin(all_facts[name])
        as_wanted = state is not None and state.kind == "file" and state.text is None
        if (as_wanted and k3s.CONFIG in all_facts[name].ledger.files) or (origin and _on(cluster, origin)):
            found.append(name)
    return found


def _origin(facts: HostFacts) -> Origin | None:
    """Return what a server's files say that it runs on; None without K3s, and where the files are as wanted."""
    if not installed(facts):
        return None
    settings = other_installs.running(facts, {})
    text = str(settings.get("datastore-endpoint") or "")
    if other_installs.on_sqlite(facts):
        return Origin(None)
    return (
        Origin(parse(Secret(text)), {key: str(settings[key]) for key in FILES if settings.get(key)}) if text else None
    )


def _on(cluster: Cluster, origin: Origin) -> bool:
    return origin.identity == _identity(wanted(cluster))


def refusals(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[str]:
    """Yield why the data cannot be moved now."""
    servers = {m.name: all_facts[m.name] for m in cluster.of("servers") if m.name in all_facts}
    found = origins(cluster, all_facts)
    on_new = switched(cluster, all_facts)
    if not found:
        there = [name for name, facts in servers.items() if installed(facts)]
        what = f"no file of {', '.join(there)} says what K3s runs on" if there else "no server has K3s"
        if on_new:
            what = f"{', '.join(on_new)} use the datastore of the inventory already"
        yield f"{what}: there is nothing to move; deploy does the rest"
    for name, facts in servers.items():
        if names := [path for path, keys, _ in facts.extra_settings if "K3S_DATASTORE_ENDPOINT" in keys]:
            yield f"{name}: {names[0]} sets the endpoint: write it into {k3s.CONFIG} as datastore-endpoint, and restart"
    unknown = [name for name, facts in servers.items() if runs(facts) and name not in {*found, *on_new}]
    if found and unknown:
        yield f"no file of {', '.join(unknown)} says what K3s runs on, and it would go on writing: stop K3s there"
    yield from _one_origin(found)
    running = [name for name in found if all_facts[name].unit(k3s.UNITS["server"]).active == "active"]
    if on_new and running:
        yield f"{', '.join(on_new)} use the new datastore, and {', '.join(running)} run on the old one: stop K3s there"
    gone = [one.name for one in left.members(cluster, all_facts) if one.role == "servers"]
    if gone:
        yield f"{', '.join(gone)} left the inventory and may run on the old datastore: remove them first"
    nodes = left.listed(cluster, all_facts) or ()
    if older := [f"{node.name} runs {node.version}" for node in nodes if node.version != cluster.version]:
        yield f"the inventory has K3s {cluster.version}, and {', '.join(older)}: move first, upgrade afterwards"


def _one_origin(found: Mapping[str, Origin]) -> Iterator[str]:
    sqlite = [name for name, one in found.items() if one.endpoint is None]
    if len({one.identity for one in found.values()}) > 1:
        yield "the servers are on different datastores: " + "; ".join(f"{name}: {one}" for name, one in found.items())
    elif len(sqlite) > 1:
        yield f"{', '.join(sqlite)} have an SQLite each: they are different clusters"
