"""A cluster in memory, for tests that need no host."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from nornir.core.inventory import Defaults, Group, Groups, Host, Hosts, Inventory, ParentGroups
from nornir.core.task import Task

from nornir_k3s.errors import HostUnreachable
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.run import gather
from nornir_k3s.state.store import Store

HOSTS = {
    "db1": ("10.0.0.11", "datastore"),
    "s1": ("10.0.0.12", "servers"),
    "s2": ("10.0.0.13", "servers"),
    "a1": ("10.0.0.14", "agents"),
    "lb1": ("10.0.0.15", "lb"),
    "lb2": ("10.0.0.16", "lb"),
}
SETTINGS: dict[str, Any] = {
    "name": "test",
    "version": "v1.34.9+k3s1",
    "artifacts": {"folder": "bundle"},
    "registration": {"address": "10.0.0.100"},
    "datastore": {"kind": "mariadb"},
    "server": {"disable": ["traefik"], "cluster-cidr": "10.42.0.0/16"},
}

# Addresses of nodes in a cluster with both IP versions, and the networks of one with IPv6 alone.
BOTH = {name: {"node-ip": [HOSTS[name][0], f"fd00::{number}"]} for number, name in enumerate(("s1", "s2", "a1"), 12)}
ONLY_V6 = {name: (f"fd00::{number}", role) for number, (name, (_, role)) in enumerate(HOSTS.items(), 11)}


def inventory(
    settings: dict[str, Any], hosts: dict[str, tuple[str, str]], data: dict[str, dict[str, Any]]
) -> Inventory:
    groups = Groups({name: Group(name) for name in ("datastore", "servers", "agents", "lb")})
    defaults = Defaults(data={"k3s_cluster": settings})
    members = Hosts()
    for name, (address, group) in hosts.items():
        members[name] = Host(
            name, hostname=address, groups=ParentGroups([groups[group]]), data=data.get(name, {}), defaults=defaults
        )
    return Inventory(hosts=members, groups=groups, defaults=defaults)


@pytest.fixture(autouse=True)
def no_host_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests reach no host: one that has no session of its own is down."""

    def session(task: Task, **_: object) -> None:
        raise HostUnreachable(task.host.name, "no route to it from a unit test")

    monkeypatch.setattr(gather, "session", session)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Cluster]:
    """Load a cluster with some settings changed: `load({"version": …}, s1={"node-label": …})`."""

    def loader(
        changes: dict[str, Any] | None = None, *, hosts: dict[str, tuple[str, str]] | None = None, **data: Any
    ) -> Cluster:
        settings = copy.deepcopy(SETTINGS) | (changes or {})
        inv = inventory(settings, hosts or HOSTS, {name: {"k3s": value} for name, value in data.items()})
        store = Store(tmp_path / "state", base=tmp_path)
        loaded = cluster.load(inv, store=store, base=tmp_path)
        store.commit()
        return loaded

    return loader


# The machine that tests run on is shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
