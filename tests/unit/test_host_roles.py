"""Roles of hosts: every host has one, says that it has none, or is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nornir.core.inventory import Group, Host, Inventory, ParentGroups

from nornir_k3s.errors import InventoryError
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.state.store import Store
from tests.unit.conftest import HOSTS, SETTINGS, inventory


def loaded(made: Inventory, folder: Path) -> Cluster:
    return cluster.load(made, store=Store(folder / "state", base=folder), base=folder)


def refused(made: Inventory, folder: Path) -> str:
    with pytest.raises(InventoryError) as caught:
        loaded(made, folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


def with_host(name: str, *groups: str, data: dict[str, Any] | None = None, **settings: Any) -> Inventory:
    made = inventory(SETTINGS | settings, HOSTS, {})
    for group in groups:
        made.groups.setdefault(group, Group(group))
    parents = ParentGroups(made.groups[group] for group in groups)
    made.hosts[name] = Host(name, hostname="10.0.0.99", groups=parents, data=data, defaults=made.defaults)
    return made


@pytest.mark.parametrize(
    ("groups", "near"),
    [
        (["agent"], "group agent: did you mean `agents`?"),
        (["loadbalancers"], "group loadbalancers: did you mean `lb`?"),
        (["K3s-Workers", "worker"], "group worker: did you mean `agents`?"),
        (["control-plane"], "group control-plane: did you mean `servers`?"),
        (["datacentre-1"], ""),
        ([], ""),
    ],
)
def test_a_host_without_a_role_is_named_with_the_nearest_group(tmp_path: Path, groups: list[str], near: str) -> None:
    (note,) = loaded(with_host("x1", *groups), tmp_path).notes
    assert note.startswith("1 host has no role and is left out: x1")
    assert near in note
    assert ("did you mean" in note) == bool(near)
    assert "k3s_role: none" in note


def test_many_hosts_without_a_role_are_one_note(tmp_path: Path) -> None:
    made = with_host("x0", "agent")
    for number in range(1, 30):
        made.hosts[f"x{number}"] = Host(f"x{number}", groups=made.hosts["x0"].groups, defaults=made.defaults)
    (note,) = loaded(made, tmp_path).notes
    assert note.startswith("30 hosts have no role and are left out: x0, x1, x2, x3, x4, …")
    assert note.count("did you mean") == 1


def test_a_host_below_a_parent_group_of_its_own_names_has_its_role(tmp_path: Path) -> None:
    made = with_host("x1", "gpu", groups={"agents": "workers"})
    made.groups["workers"] = Group("workers")
    made.groups["gpu"].groups = ParentGroups([made.groups["workers"]])
    made.hosts["a1"].groups = ParentGroups([made.groups["workers"]])
    found = loaded(made, tmp_path)
    assert [member.name for member in found.of("agents")] == ["a1", "x1"]
    assert not found.notes


@pytest.mark.parametrize("level", ["host", "group", "parent group", "defaults"])
def test_a_host_that_says_it_has_no_role_is_not_named(tmp_path: Path, level: str) -> None:
    made = with_host("x1", "switches")
    made.groups["network"] = Group("network")
    made.groups["switches"].groups = ParentGroups([made.groups["network"]])
    holders: dict[str, Any] = {
        "host": made.hosts["x1"],
        "group": made.groups["switches"],
        "parent group": made.groups["network"],
        "defaults": made.defaults,
    }
    holders[level].data["k3s_role"] = "none"
    found = loaded(made, tmp_path)
    assert not found.notes
    assert len(found.members) == len(HOSTS)


def test_a_role_and_none_contradict_each_other(tmp_path: Path) -> None:
    text = refused(with_host("x1", "agents", data={"k3s_role": "none"}), tmp_path)
    assert "x1: it is in group agents, and has `k3s_role: none`: remove one" in text


@pytest.mark.parametrize("value", ["agents", "", None, False])
def test_a_role_is_not_given_by_name(tmp_path: Path, value: Any) -> None:
    text = refused(with_host("x1", "agent", data={"k3s_role": value}), tmp_path)
    assert "x1: `k3s_role` is `none` or left out" in text


def test_own_names_of_groups_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    text = refused(with_host("x1", "workers", groups={"agents": "worker"}), tmp_path)
    assert "k3s_cluster.groups.agents: the inventory has no group `worker`; did you mean `workers`?" in text


def test_an_unknown_role_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    text = refused(with_host("x1", "agents", groups={"agent": "agents"}), tmp_path)
    assert "k3s_cluster.groups.agent: unknown key `agent`; did you mean `agents`?" in text


def test_one_group_cannot_be_that_of_two_roles(tmp_path: Path) -> None:
    text = refused(with_host("x1", "agents", groups={"agents": "lb"}), tmp_path)
    assert "k3s_cluster.groups.agents: `lb` is the group of lb too" in text


def test_a_missing_role_is_explained_by_the_hosts_without_one(tmp_path: Path) -> None:
    made = inventory(SETTINGS, {name: host for name, host in HOSTS.items() if host[1] != "servers"}, {})
    made.groups["server"] = Group("server")
    made.hosts["s1"] = Host("s1", groups=ParentGroups([made.groups["server"]]), defaults=made.defaults)
    text = refused(made, tmp_path)
    assert "group servers: it has no host" in text
    assert "s1 (group server: did you mean `servers`?)" in text


def test_groups_in_a_circle_are_refused_with_words(tmp_path: Path) -> None:
    made = inventory(SETTINGS, HOSTS, {})
    made.groups["one"], made.groups["two"] = Group("one"), Group("two")
    made.groups["one"].groups = ParentGroups([made.groups["two"]])
    made.groups["two"].groups = ParentGroups([made.groups["one"]])
    made.groups["agents"].groups = ParentGroups([made.groups["one"]])
    text = refused(made, tmp_path)
    assert "one: the group contains itself through its parent groups" in text
    assert "agents: the group" not in text
