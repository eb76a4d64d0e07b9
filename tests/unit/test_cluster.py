from __future__ import annotations

import ipaddress
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nornir.core.inventory import Inventory

from nornir_k3s import k3s, k3s_settings
from nornir_k3s.errors import InventoryError
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.state.store import Store

from .conftest import BOTH, HOSTS, ONLY_V6, SETTINGS, inventory

Load = Callable[..., Cluster]
DUAL = {"cluster-cidr": "10.42.0.0/16,fd00:42::/56", "service-cidr": "10.43.0.0/16,fd00:43::/112"}


def test_a_right_inventory_gives_every_member_its_role_and_address(load: Load) -> None:
    cluster = load()
    assert [(m.name, m.role, m.address) for m in cluster.members][:2] == [
        ("db1", "datastore", "10.0.0.11"),
        ("s1", "servers", "10.0.0.12"),
    ]
    assert cluster.url == "https://10.0.0.100:6443"
    registration = cluster.registration.model_copy(update={"address": ipaddress.ip_address("fd00::9")})
    assert replace(cluster, registration=registration).url == "https://[fd00::9]:6443"


def test_the_token_is_generated_once_and_kept_0600(load: Load, tmp_path: Path) -> None:
    first, second = load(), load()
    assert first.token == second.token
    assert len(first.token.reveal()) == 64
    assert stat.S_IMODE((tmp_path / "state" / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_secrets_do_not_show(load: Load) -> None:
    cluster = load()
    assert cluster.token.reveal() not in repr(cluster)
    assert cluster.datastore_password.reveal() not in repr(cluster)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"versoin": "x"}, "versoin"),
        ({"version": "1.34"}, "is not a K3s version"),
        ({"server": {"cluster-cdir": "10.0.0.0/8"}}, "did you mean `cluster-cidr`"),
        ({"server": {"token": "x"}}, "give it as `token` of the cluster"),
        ({"server": {"cluster-init": True}}, "embedded etcd"),
        ({"server": {"cluster-cidr": "10.43.0.0/16"}}, "overlaps service-cidr"),
        ({"server": {"cluster-dns": "10.99.0.10"}}, "not inside service-cidr"),
        ({"agent": {"cluster-cidr": "10.42.0.0/16"}}, "no setting `cluster-cidr` here"),
        ({"server": {"node-name": "z"}}, "`node-name` is a setting of one host, and 2 would get it"),
        ({"server": {"node-external-ip": "192.0.2.1"}}, "`node-external-ip` is a setting of one host"),
        ({"server": {"disable": ["traefik, servicelbs"]}}, "no packaged component 'servicelbs'"),
        ({"server": {"cluster-cidr": " , "}}, "is empty"),
        ({"server": {"cluster-cidr": DUAL["cluster-cidr"]}}, "must have the same IP versions in the same order"),
        ({"server": DUAL}, "s1: cluster-cidr is IPv4 and IPv6, and its addresses are only IPv4"),
        ({"server": DUAL}, "a1: cluster-cidr is IPv4 and IPv6, and its addresses are only IPv4"),
        ({"server": {"cluster-cidr": "fd00:42::/56", "service-cidr": "fd00:43::/112"}}, "cluster-cidr is IPv6"),
        ({"server": {"cluster-cidr": ["10.42.0.0/16,10.44.0.0/16"]}}, "one network for each IP version"),
        ({"registration": {"address": "10.0.0.12"}}, "is the address of host s1"),
        ({"registration": {}}, "the VIP is missing"),
        ({"token": "plain"}, "token"),
        ({"token": {"store": "x"}}, "a secret is a reference"),
        ({"datastore": {"kind": "oracle"}}, "mariadb"),
        ({"datastore": {"endpoint": {"env": "X"}}}, "someone else runs"),
        ({"datastore": {"endpoint": {"env": "X"}, "certfile": "c.pem"}}, "belong together"),
        ({"datastore_pool": {}}, "give `max_open`"),
        ({"datastore_pool": {"max_open": 5, "max_idle": 6}}, "max_idle (6) is more than max_open (5)"),
        ({"datastore_pool": {"max_lifetime": "5 minutes"}}, "max_lifetime"),
    ],
)
def test_a_wrong_setting_is_one_clear_problem(load: Load, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(changes)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"s1": {"cluster-cidr": "10.1.0.0/16"}}, "s1: k3s: `cluster-cidr` must be the same on all servers"),
        ({"s1": {"node-lable": "x"}}, "did you mean `node-label`"),
        ({"s1": {"node-label": ["größe=xl"]}}, "größe=xl"),
        ({"a1": {"tls-san": "x"}}, "a1: k3s: `tls-san` must be the same"),
        ({"lb1": {"node-label": "x"}}, "no K3s runs on hosts of group lb"),
        ({"s2": {"node-name": "s1"}}, "same node name as s1"),
        ({"s2": {"node-ip": "10.0.0.12"}}, "same address as s1"),
        ({"a1": {"node-name": "Bad_Name"}}, "is not a valid node name"),
    ],
)
def test_a_wrong_setting_of_a_host_names_the_host(load: Load, data: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(**data)
    assert words in str(caught.value)


@pytest.mark.parametrize("cidr", ["10.42.0.0/16,fd00:42::/56", ["10.42.0.0/16", " fd00:42::/56"]])
def test_two_ip_versions_take_two_addresses_of_each_node(load: Load, cidr: Any) -> None:
    found = load({"server": DUAL | {"cluster-cidr": cidr}}, **BOTH)
    assert found.member("s1").addresses == ["10.0.0.12", "fd00::12"]
    assert found.server["cluster-cidr"] == ["10.42.0.0/16", "fd00:42::/56"]
    turned = {"s2": {"node-ip": "fd00::13,10.0.0.13"}}
    with pytest.raises(InventoryError, match="s2: its first address is IPv6, that of the first server IPv4"):
        load({"server": DUAL}, **BOTH | turned)
    same = {"a1": {"node-ip": "10.0.0.14,fd00::12"}}
    with pytest.raises(InventoryError, match="a1: it has the same address as s1: fd00::12"):
        load({"server": DUAL}, **BOTH | same)


def test_networks_follow_the_first_address(load: Load) -> None:
    cluster = load({"registration": {"address": "fd00::100"}, "server": {}}, hosts=ONLY_V6)
    assert cluster.ip_version == 6
    with pytest.raises(InventoryError, match="lies inside cluster-cidr fd00:42::/56"):
        load({"registration": {"address": "fd00:42::1"}, "server": {}}, hosts=ONLY_V6)


def test_a_setting_of_one_host_may_be_cluster_wide_while_one_host_gets_it(load: Load) -> None:
    assert load({"agent": {"node-external-ip": "192.0.2.1"}}).agent == {"node-external-ip": ["192.0.2.1"]}


@pytest.mark.parametrize(
    "written",
    [
        "traefik,servicelb",
        "traefik, servicelb",
        ["traefik,servicelb"],
        ["traefik", " servicelb "],
        "traefik,servicelb,",
    ],
)
def test_a_list_means_the_same_however_it_is_written(load: Load, written: Any) -> None:
    assert load({"server": {"disable": written}}).server["disable"] == ["traefik", "servicelb"]


@pytest.mark.parametrize("written", ["true", "1", "T", True, 1])
def test_a_boolean_means_the_same_however_it_is_written(load: Load, written: Any) -> None:
    assert load({"server": {"disable-cloud-controller": written}}).server["disable-cloud-controller"] is True


def test_a_key_with_a_plus_adds_to_the_list_so_far(load: Load) -> None:
    server = {"disable+": "traefik", "kubelet-arg": "max-pods=200"}
    found = load({"server": server | {"kubelet-arg+": ["seccomp-default=true"]}}, s1={"kubelet-arg+": "root-dir=/x"})
    assert found.server == {"disable": ["traefik"], "kubelet-arg": ["max-pods=200", "seccomp-default=true"]}
    assert found.member("s1").settings == {"kubelet-arg": ["max-pods=200", "seccomp-default=true", "root-dir=/x"]}


@pytest.mark.parametrize(
    ("version", "key", "words"),
    [
        (
            "v1.34.9+k3s1",
            "helm-controller-arg",
            "no setting `helm-controller-arg`: it came with K3s 1.34.10, 1.35.7",
        ),
        ("v1.36.2+k3s1", "helm-controller-arg", "1.36.3"),
        ("v1.36.3+k3s1", "write-kubeconfig-name", "it came with K3s 1.37.0"),
        ("v1.31.7+k3s1", "secrets-encryption-provider", "it came with K3s 1.30.12, 1.31.8, 1.32.4 and 1.33.0"),
        ("v1.31.8+k3s1", "secrets-encryption-provider", ""),
        ("v1.35.7+k3s1", "helm-controller-arg", ""),
        ("v1.37.1+k3s1", "helm-controller-arg", ""),
        ("v1.37.0+k3s1", "write-kubeconfig-name", ""),
    ],
)
def test_a_setting_is_for_the_versions_that_have_it(load: Load, version: str, key: str, words: str) -> None:
    changes = {"version": version, "server": {key: next(iter(k3s.CHOICES.get(key, "x")))}}
    if not words:
        assert load(changes).server[key]
        return
    with pytest.raises(InventoryError) as caught:
        load(changes)
    assert words in str(caught.value)


def test_a_setting_that_is_gone_is_told_with_the_version_it_went_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(k3s_settings.TABLE, "old", {"on": "server", "until": ["1.35.2", "1.36.0"]})
    assert k3s_settings.unknown_to("old", (1, 35, 1)) == ""
    assert k3s_settings.unknown_to("old", (1, 34, 9)) == ""
    assert k3s_settings.unknown_to("old", (1, 35, 2)) == "it is gone since K3s 1.35.2 and 1.36.0"
    assert k3s_settings.unknown_to("old", (1, 38, 0)) != ""


def test_what_k3s_does_not_split_keeps_its_commas(load: Load) -> None:
    found = load({"server": {"kube-apiserver-arg": "enable-admission-plugins=NodeRestriction,AlwaysPullImages"}})
    assert found.server["kube-apiserver-arg"] == ["enable-admission-plugins=NodeRestriction,AlwaysPullImages"]


@pytest.mark.parametrize("kind", ["hosts", "groups"])
def test_settings_of_the_cluster_on_a_host_or_group_are_refused(tmp_path: Path, kind: str) -> None:
    made = inventory(SETTINGS, HOSTS, {})
    entry = made.hosts["s1"] if kind == "hosts" else made.groups["servers"]
    entry.data["k3s_cluster"] = {"token": "kept-out-of-the-message"}
    with pytest.raises(InventoryError) as caught:
        cluster.load(made, store=Store(tmp_path / "state", base=tmp_path), base=tmp_path)
    assert f"{entry.name}: `k3s_cluster` is for the whole cluster: move it" in str(caught.value)
    assert "kept-out-of-the-message" not in str(caught.value)


def test_all_problems_come_at_once_and_nothing_is_generated(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"version": "nope", "server": {"x": 1}}, s1={"y": 1}, lb1={"z": 1})
    assert len(caught.value.problems) >= 4
    assert not (tmp_path / "state").exists()


def test_empty_groups_are_refused(load: Load) -> None:
    with pytest.raises(InventoryError) as caught:
        load(hosts={"a1": ("10.0.0.14", "agents")})
    text = str(caught.value)
    assert "group servers" in text
    assert "group datastore" in text
    assert "group lb" in text


OWN = {"datastore": "database", "servers": "control", "agents": "worker", "lb": "edge"}


def own_names(**settings: Any) -> Inventory:
    made = inventory(SETTINGS | {"groups": OWN} | settings, HOSTS, {})
    for role, name in OWN.items():
        made.groups[name] = made.groups.pop(role)
        made.groups[name].name = name
    return made


@pytest.mark.parametrize("wrong", [{"colour": "blue"}, {"version": 5}, {"datastore": {"kind": "oracle"}}])
def test_a_wrong_setting_adds_no_empty_groups_of_other_names(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InventoryError) as caught:
        cluster.load(own_names(**wrong), store=Store(tmp_path / "state", base=tmp_path), base=tmp_path)
    assert len(caught.value.problems) == 1, caught.value
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize("groups", [{"servers": 5}, {"server": "control"}, "control", ["control"]])
def test_wrong_names_of_groups_are_the_only_problem(tmp_path: Path, groups: Any) -> None:
    with pytest.raises(InventoryError) as caught:
        cluster.load(own_names(groups=groups), store=Store(tmp_path / "state", base=tmp_path), base=tmp_path)
    assert all("groups" in one for one in caught.value.problems), caught.value
    assert "has no host" not in str(caught.value)


def test_missing_settings_add_no_empty_groups(tmp_path: Path) -> None:
    made = own_names()
    made.defaults.data["k3s_clustr"] = made.defaults.data.pop("k3s_cluster")
    with pytest.raises(InventoryError) as caught:
        cluster.load(made, store=Store(tmp_path / "state", base=tmp_path), base=tmp_path)
    assert len(caught.value.problems) == 1
    assert "did you mean" in str(caught.value) or "there is `k3s_clustr`" in str(caught.value)


def test_empty_groups_have_their_own_names(tmp_path: Path) -> None:
    made = own_names()
    for name in ("s1", "s2", "lb1", "lb2", "db1"):
        del made.hosts[name]
    with pytest.raises(InventoryError) as caught:
        cluster.load(made, store=Store(tmp_path / "state", base=tmp_path), base=tmp_path)
    for name in ("control", "edge", "database"):
        assert f"group {name}: " in str(caught.value)


def test_a_host_with_a_problem_of_its_own_does_not_make_its_group_empty(load: Load) -> None:
    hosts = {**HOSTS, "db1": ("not an address!", "datastore")}
    hosts = {name: one for name, one in hosts.items() if name != "s2"} | {"s1": ("", "servers")}
    with pytest.raises(InventoryError) as caught:
        load(hosts=hosts)
    assert "it has no host" not in str(caught.value)
    assert "exactly one host" not in str(caught.value)


def test_an_endpoint_that_k3s_would_misread_is_refused_without_showing_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "e").write_text("mysql://k3s:hush@db:3306/k3s\n")
    hosts = {"s1": ("10.0.0.12", "servers"), "lb1": ("10.0.0.15", "lb")}
    with pytest.raises(InventoryError, match="tcp") as caught:
        load({"datastore": {"endpoint": {"file": "e"}}}, hosts=hosts)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("token", ["abcdef.0123456789abcdef", "K10" + "0" * 64 + "::server:x", "a b", "user:pass"])
def test_a_token_that_k3s_would_refuse_is_refused(load: Load, tmp_path: Path, token: str) -> None:
    (tmp_path / "t").write_text(token)
    with pytest.raises(InventoryError) as caught:
        load({"token": {"file": "t"}})
    assert "token" in str(caught.value)
    assert token not in str(caught.value)
