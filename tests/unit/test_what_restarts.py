"""What a changed file needs: as docs/changes.md says, for every file of every role; and what a new server restarts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.host_steps import converge
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import FileState, HostFacts, UnitState
from nornir_k3s.model.host_spec import File, HostSpec
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles.desired import Known, desired
from tests.unit.conftest import HOSTS

Load = Callable[..., Cluster]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "changes.md"
PACKAGES = {"postgresql": "15+248"}
KINDS = ("mariadb", "mysql", "postgresql", "etcd")
MEMBERS = {**HOSTS, "db2": ("10.0.0.21", "datastore"), "db3": ("10.0.0.22", "datastore")}
RUNNING = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)
LIVE = ("reload of", "SET GLOBAL", "read again", "for each connection")


def rows() -> list[tuple[str, list[str], str]]:
    """Return host, paths and what a change needs, of each line of the table."""
    found = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| host "):
            host, paths, needs = (cell.strip() for cell in line.strip("|").split(" | "))
            found.append((host, re.findall(r"`(/[^`]+)`", paths), needs))
    return found


def cluster_with(load: Load, kind: str, *, servers: int = 2) -> Cluster:
    hosts: dict[str, Any] = dict(MEMBERS if kind == "etcd" else HOSTS)
    hosts |= {f"s{n}": (f"10.0.0.{40 + n}", "servers") for n in range(3, servers + 1)}
    pool = {} if kind == "etcd" else {"datastore_pool": {"max_open": 50}}
    return load({"datastore": {"kind": kind}} | pool, hosts=hosts)


def spec_of(cluster: Cluster, name: str) -> HostSpec:
    member = cluster.member(name)
    facts = HostFacts(name, packages=PACKAGES if member.role == "datastore" else {})
    return desired(cluster, member, facts, Known())


def has(spec: HostSpec) -> HostFacts:
    """The facts of a host that is as the spec says."""
    files = {f.path: FileState("file", f.mode, f.owner, f.group, 1, 100, f.sha256, written=100) for f in spec.files}
    return HostFacts("x", files=files, units={unit.name: RUNNING for unit in spec.units})


def actions(spec: HostSpec, facts: HostFacts) -> dict[str, str | None]:
    return {step.target: step.action for step in converge(spec, facts) if step.kind == "unit"}


def others(spec: HostSpec, one: File) -> HostSpec:
    files = tuple(replace(f, text=Secret("other")) if f.path == one.path else f for f in spec.files)
    return replace(spec, files=files)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_needs_what_the_page_says(load: Load, kind: str) -> None:
    cluster = cluster_with(load, kind)
    for member in cluster.members:
        spec = spec_of(cluster, member.name)
        for file in spec.files:
            (needs,) = {says for _, paths, says in rows() for path in paths if fnmatch(file.path, path)}
            live = "reload" if any(words in needs for words in LIVE) else None
            expected = "restart" if needs.startswith("restart of") else live
            found = actions(spec, has(others(spec, file)))
            assert found == ({file.unit: expected} if expected else {}), (file.path, needs)


def test_every_row_of_the_page_has_a_file(load: Load) -> None:
    written = set()
    for kind in KINDS:
        cluster = cluster_with(load, kind)
        written |= {file.path for member in cluster.members for file in spec_of(cluster, member.name).files}
    inventory = {"/etc/rancher/k3s/registries.yaml", "/etc/default/k3s-agent"}  # only where the inventory has them
    for _, paths, _ in rows():
        assert [path for path in paths if path not in inventory and not any(fnmatch(f, path) for f in written)] == []


@pytest.mark.parametrize(
    ("kind", "servers", "action"),
    [
        *((kind, 5, "reload" if kind == "postgresql" else None) for kind in KINDS),
        ("mariadb", 6, "reload"),
        ("mysql", 6, "reload"),
        ("postgresql", 6, "restart"),
        ("etcd", 6, None),
    ],
)
def test_more_servers_or_less_restart_no_database_that_can_do_without(
    load: Load, kind: str, servers: int, action: str | None
) -> None:
    few, many = (spec_of(cluster_with(load, kind, servers=n), "db1") for n in (2, servers))
    assert list(actions(many, has(few)).values()) == ([action] if action else [])
    assert list(actions(few, has(many)).values()) == ([action] if action else [])


@pytest.mark.parametrize(("kind", "client"), [("mariadb", "mariadb"), ("mysql", "mysql")])
def test_a_running_server_gets_its_new_limit(load: Load, kind: str, client: str) -> None:
    (unit,) = spec_of(cluster_with(load, kind, servers=6), "db1").units
    assert unit.reload.startswith(f"{client} -e 'SET GLOBAL max_connections = 1050")
