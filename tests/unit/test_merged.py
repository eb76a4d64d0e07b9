"""K3s settings of host, groups and defaults add up; what hides something is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nornir.core.inventory import Group, Inventory, ParentGroups

from nornir_k3s.errors import InventoryError
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.plugins.credentials import k3s_credentials
from nornir_k3s.plugins.inherited import added_up
from nornir_k3s.state.store import Store
from tests.unit.conftest import HOSTS, SETTINGS, inventory


def made(
    host: Any = None, *, key: Any = "k3s", defaults: Any = None, cluster_wide: Any = None, **groups: Any
) -> Inventory:
    """Host a1 in groups gpu and agents; gpu is in group all."""
    found = inventory(SETTINGS | ({"agent": cluster_wide} if cluster_wide else {}), HOSTS, {})
    found.groups["gpu"], found.groups["all"] = Group("gpu"), Group("all")
    found.groups["gpu"].groups = ParentGroups([found.groups["all"]])
    found.hosts["a1"].groups = ParentGroups([found.groups["gpu"], found.groups["agents"]])
    if host is not None:
        found.hosts["a1"].data[key] = host
    for name, data in groups.items():
        found.groups[name].data[key] = data
    if defaults is not None:
        found.defaults.data[key] = defaults
    return found


def loaded(given: Inventory, folder: Path) -> Cluster:
    return cluster.load(given, store=Store(folder / "state", base=folder), base=folder)


def test_settings_of_host_and_groups_add_up(tmp_path: Path) -> None:
    given = made(
        {"node-external-ip": "192.0.2.1"},
        agents={"kubelet-arg": ["max-pods=200"]},
        gpu={"node-label": ["gpu=yes"]},
        all={"node-taint": ["a=b:NoSchedule"], "debug": True},
    )
    found = loaded(given, tmp_path)
    assert found.member("a1").settings == {
        "kubelet-arg": ["max-pods=200"],
        "node-label": ["gpu=yes"],
        "node-taint": ["a=b:NoSchedule"],
        "debug": True,
        "node-external-ip": ["192.0.2.1"],
    }
    assert not found.hidden


def test_lists_of_arguments_are_merged_by_name(tmp_path: Path) -> None:
    given = made(
        {"kubelet-arg": ["max-pods=10", "x=1"], "node-label": "zone=c"},
        agents={"kubelet-arg": ["--max-pods=200", "image-gc-high-threshold=80"]},
        gpu={"kubelet-arg": "max-pods=100", "node-label": ["zone=b", "gpu=yes"]},
        all={"node-label": ["zone=b", "all=1"]},
    )
    found = loaded(given, tmp_path)
    assert found.member("a1").settings == {
        "kubelet-arg": ["image-gc-high-threshold=80", "max-pods=10", "x=1"],
        "node-label": ["all=1", "gpu=yes", "zone=c"],
    }
    assert sorted(found.hidden) == [
        "a1: `kubelet-arg` of group gpu hides --max-pods=200 of group agents",
        "a1: `kubelet-arg` of the host hides max-pods=100 of group gpu",
        "a1: `node-label` of the host hides zone=b of group gpu",
    ]


def test_taints_with_other_effects_and_arguments_that_add_are_others(tmp_path: Path) -> None:
    given = made(
        {"node-taint": ["a=1:NoExecute", "a=1:NoSchedule"], "kubelet-arg": ["x+=2"]},
        gpu={"node-taint": "a=2:NoSchedule", "kubelet-arg": "x=1"},
    )
    settings = loaded(given, tmp_path).member("a1").settings
    assert settings == {"node-taint": ["a=1:NoExecute", "a=1:NoSchedule"], "kubelet-arg": ["x=1", "x+=2"]}


@pytest.mark.parametrize(
    ("levels", "value", "hidden"),
    [
        ({"gpu": "/a", "agents": "/b"}, "/a", "a1: `resolv-conf` of group gpu hides /b of group agents"),
        ({"host": "/h", "all": "/a"}, "/h", "a1: `resolv-conf` of the host hides /a of group all"),
        ({"all": "/a", "agents": "/b"}, "/a", "a1: `resolv-conf` of group all hides /b of group agents"),
        ({"agents": "/b", "cluster_wide": "/c"}, "/b", "`resolv-conf` of group agents hides /c of k3s_cluster.agent"),
        ({"gpu": "/a", "agents": "/a", "cluster_wide": "/a"}, "/a", ""),
    ],
)
def test_the_nearest_value_counts_and_what_it_hides_is_said(
    tmp_path: Path, levels: dict[str, str], value: str, hidden: str
) -> None:
    found = loaded(made(**{level: {"resolv-conf": path} for level, path in levels.items()}), tmp_path)
    assert found.member("a1").settings["resolv-conf"] == value
    assert (hidden in found.hidden[0]) if hidden else not found.hidden


def test_a_list_that_is_not_of_arguments_is_replaced_and_said(tmp_path: Path) -> None:
    given = made({"airgap-extra-registry": ["a"]}, gpu={"airgap-extra-registry": ["b", "c"]})
    found = loaded(given, tmp_path)
    assert found.member("a1").settings == {"airgap-extra-registry": ["a"]}
    assert found.hidden == ("a1: `airgap-extra-registry` of the host hides b, c of group gpu",)


def test_a_key_with_a_plus_adds_to_what_groups_or_the_cluster_have(tmp_path: Path) -> None:
    wide = {"kubelet-arg": ["w=1"], "node-label": ["w=1"]}
    given = made(
        {"kubelet-arg+": "h=1", "node-label+": ["h=1"]}, gpu={"kubelet-arg+": ["g=1"]}, agents={"node-label": ["g=1"]},
        cluster_wide=wide,
    )  # fmt: skip
    found = loaded(given, tmp_path)
    assert found.member("a1").settings == {"kubelet-arg": ["w=1", "g=1", "h=1"], "node-label": ["g=1", "h=1"]}
    assert found.hidden == ("a1: `node-label` of group agents hides w=1 of k3s_cluster.agent",)


def test_the_same_for_many_hosts_is_one_note(tmp_path: Path) -> None:
    hosts = HOSTS | {f"x{number}": (f"10.0.1.{number}", "agents") for number in range(1, 30)}
    given = inventory(SETTINGS | {"agent": {"debug": False}}, hosts, {})
    given.groups["agents"].data["k3s"] = {"debug": True}
    (note,) = loaded(given, tmp_path).hidden
    assert note == "a1, x1, x2, x3, x4 and 25 more: `debug` of group agents hides False of k3s_cluster.agent"


def test_a_hidden_secret_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("joinKey=canary")
    given = made({"vpn-auth": {"file": "secret"}}, gpu={"vpn-auth": {"env": "OTHER"}})
    assert loaded(given, tmp_path).hidden == ("a1: `vpn-auth` of the host hides a secret of group gpu",)


@pytest.mark.parametrize("level", ["host", "gpu", "all", "agents", "defaults"])
@pytest.mark.parametrize(
    ("value", "words"), [(None, "it is empty: write `{}`"), ("x", "must be a mapping"), ([], "must")]
)
def test_settings_that_are_no_mapping_are_refused(tmp_path: Path, level: str, value: Any, words: str) -> None:
    given = made(**{level: {"debug": True}})
    holders: dict[str, Any] = {"host": given.hosts["a1"], "defaults": given.defaults, **given.groups}
    holders[level].data["k3s"] = value
    with pytest.raises(InventoryError, match="a1: `k3s` of") as caught:
        loaded(given, tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("host", "data", "words"),
    [
        ("s1", {"priority": 3}, "s1: k3s: K3s has no setting `priority` here"),
        ("lb1", {"priority": 3}, "lb1: k3s: `priority` has no effect"),
        ("a1", {"interface": "eth1"}, "a1: k3s: `interface` is for load balancers"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path: Path, host: str, data: dict[str, Any], words: str) -> None:
    given = inventory(SETTINGS, HOSTS, {host: {"k3s": data}})
    with pytest.raises(InventoryError) as caught:
        loaded(given, tmp_path)
    assert words in str(caught.value)


def test_logins_add_up(tmp_path: Path) -> None:
    for name in ("host", "gpu", "defaults"):
        (tmp_path / name).write_text(name)
    given = made(
        {"passphrase": {"file": "host"}},
        key="k3s_ssh",
        gpu={"passphrase": {"file": "none"}, "sudo_password": {"file": "gpu"}},
        defaults={"password": {"file": "defaults"}, "sudo_password": {"file": "defaults"}},
    )
    host = given.hosts["a1"]
    k3s_credentials(host, base=str(tmp_path))
    extras = host.get_connection_parameters("netmiko").extras or {}
    assert (host.password, extras["secret"], extras["passphrase"]) == ("defaults", "gpu", "host")
    assert set(added_up(host, "k3s_ssh")) == {"password", "sudo_password", "passphrase"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("node-external-ip", "192.0.2.1"), ("advertise-address", "10.0.0.12"), ("bind-address", "10.0.0.12")],
)
@pytest.mark.parametrize("level", ["servers", "defaults"])
def test_a_group_does_not_give_a_setting_of_one_host_to_several(
    tmp_path: Path, level: str, key: str, value: str
) -> None:
    given = inventory(SETTINGS, HOSTS, {})
    holder = given.defaults if level == "defaults" else given.groups[level]
    holder.data["k3s"] = {key: value}
    with pytest.raises(InventoryError, match=f"`{key}` of .*{level} is a setting of one host, and s1, s2"):
        loaded(given, tmp_path)


def test_a_group_may_give_a_setting_of_one_host_to_one(tmp_path: Path) -> None:
    given = made(gpu={"node-external-ip": "192.0.2.1"})
    assert loaded(given, tmp_path).member("a1").settings == {"node-external-ip": ["192.0.2.1"]}


def test_hosts_without_k3s_leave_out_what_groups_and_defaults_say_for_others(tmp_path: Path) -> None:
    given = made(defaults={"kubelet-arg": "max-pods=200"}, all={"node-label": "zone=a", "write-kubeconfig-mode": "640"})
    for name in ("lb1", "db1", "s1"):
        given.hosts[name].groups.append(given.groups["all"])
    found = loaded(given, tmp_path)
    assert not found.member("lb1").settings
    assert not found.member("db1").settings
    assert found.member("a1").settings == {"kubelet-arg": ["max-pods=200"], "node-label": ["zone=a"]}
    assert found.member("s1").settings["write-kubeconfig-mode"] == "640"
    assert not found.hidden


def test_what_no_host_takes_from_a_group_is_refused(tmp_path: Path) -> None:
    given = made(lb={"node-label": "zone=a"})
    with pytest.raises(InventoryError, match="lb1: k3s: `node-label` is a K3s setting, but no K3s runs"):
        loaded(given, tmp_path)
