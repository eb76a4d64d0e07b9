"""Values of K3s settings with which K3s does not start, or does something else, are refused in the inventory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.compare import effective_config
from nornir_k3s.errors import InventoryError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.roles import server
from tests.unit.conftest import BOTH, ONLY_V6
from tests.unit.test_compare import saying

Load = Callable[..., Cluster]
V6 = {"registration": {"address": "fd00::100"}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster-cidr": "10.44.0.0/25"}, "10.44.0.0/25 is too small: each node gets a /24 of it"),
        ({"cluster-cidr": "10.44.0.0/23"}, "10.44.0.0/23 has a /24 for 2 nodes, and there are 3"),
        ({"service-cidr": "10.43.0.0/30"}, "10.43.0.0/30 is too small: K3s takes its tenth address"),
        ({"service-cidr": "10.43.0.0/30", "cluster-dns": "10.43.0.2"}, "is too small: K3s needs 8 addresses"),
        ({"cluster-dns": "10.43.0.10,10.43.0.11"}, "CoreDNS takes one address for each network"),
        ({"rootless": True}, "this tool runs K3s as root"),
        ({"cluster-dns": "10.43.0.1"}, "or the address of the service `kubernetes`"),
        ({"vmodule": "server"}, "`vmodule` is PATTERN=NUMBER"),
        ({"cluster-domain": "My Domain"}, "`cluster-domain` is a DNS name"),
        ({"cluster-domain": "cluster.local."}, "`cluster-domain` is a DNS name"),
        ({"servicelb-namespace": "Load Balancers"}, "not the name of a namespace"),
        ({"tls-san": ["https://k3s.example.com"]}, "without scheme and port"),
        ({"tls-san": "k3s.example.com:6443"}, "without scheme and port"),
        ({"tls-san": "a.example.com b.example.com"}, "`tls-san` takes DNS names"),
        ({"system-default-registry": "https://registry.example.com"}, "give a registry as HOST or HOST:PORT"),
        ({"resolv-conf": "resolv.conf"}, "is not the path of a file on the hosts"),
        ({"private-registry": "~/registries.yaml"}, "is not the path of a file on the hosts"),
        ({"flannel-iface": "eth0,eth1"}, "is the name of one interface"),
        ({"https-listen-port": "06443"}, "is not a port"),
        ({"write-kubeconfig-mode": 0o644}, "420 is not a mode: put it in quotes"),
        ({"bind-address": "10.0.0.12"}, "`bind-address` is a setting of one host, and 2 would get it"),
        ({"bind-address": "127.0.0.1"}, "other hosts cannot connect to 127.0.0.1"),
        ({"bind-address": "10.0.0.12,10.0.0.13"}, "is not an IP address"),
        ({"kube-controller-arg": ["v=2"]}, "is an old name: write `kube-controller-manager-arg`"),
        ({"tls-san++": "a.example.com"}, "K3s has no setting `tls-san++`"),
        ({"token+": ["x"]}, "give it as `token` of the cluster"),
    ],
)
def test_a_value_that_k3s_cannot_use_is_refused(load: Load, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"server": settings})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster-cidr": "fd00:42::/112"}, "is too small: each node gets a /64"),
        ({"cluster-cidr": "fd00:42::/40"}, "is too large for parts of /64: K3s takes /48 at most"),
    ],
)
def test_an_ipv6_network_that_k3s_cannot_use_is_refused(load: Load, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(V6 | {"server": settings}, hosts=ONLY_V6)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"cluster-cidr": "10.44.0.0/24", "kube-controller-manager-arg": "node-cidr-mask-size=26"},
        {"cluster-cidr": "10.44.0.0/22", "service-cidr": "10.43.0.0/28"},
        {"cluster-dns": "169.254.20.10, 169.254.20.11", "disable": "traefik, coredns"},
        {"v": 4, "vmodule": "server=4,pod*=2", "cluster-domain": "k3s.example"},
        {"tls-san": "*.example.com, fd00::1,k3s_1.example.com"},
        {"system-default-registry": "registry.example.com:5000/mirror", "resolv-conf": "/etc/k3s-resolv.conf"},
        {"write-kubeconfig-mode": 644, "bind-address": "0.0.0.0", "https-listen-port": "6444"},  # noqa: S104 - text
    ],
)
def test_a_value_that_k3s_takes_is_accepted(load: Load, settings: dict[str, Any]) -> None:
    cluster = load({"server": settings})
    seen = {name: saying(name) for name in ("s1", "s2")}
    list(effective_config.differences(cluster, seen, []))  # no value ends a drift check


def test_dual_stack_has_a_part_of_each_network_for_each_node(load: Load) -> None:
    arguments = ["node-cidr-mask-size-ipv4=25", "--node-cidr-mask-size-ipv6=72"]
    networks = {"cluster-cidr": "10.42.0.0/20, fd00:42::/64", "service-cidr": "10.43.0.0/16, fd00:43::/112"}
    assert load({"server": networks | {"kube-controller-manager-arg": arguments}}, **BOTH)
    with pytest.raises(InventoryError, match="fd00:42::/64 has a /64 for 1 nodes, and there are 3"):
        load({"server": networks}, **BOTH)


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1"])  # noqa: S104 - text
def test_a_node_has_an_address_that_others_connect_to(load: Load, address: str) -> None:
    with pytest.raises(InventoryError, match=f"s1: k3s: other hosts cannot connect to {address}"):
        load(s1={"node-ip": address})


@pytest.mark.parametrize("key", ["system-default-registry", "airgap-extra-registry"])
def test_a_registry_with_a_password_is_refused_without_showing_it(load: Load, key: str) -> None:
    with pytest.raises(InventoryError, match="without scheme, user and password") as caught:
        load({"server": {key: "user:canary@registry.example.com"}})
    assert "canary" not in str(caught.value)


def test_an_unknown_setting_is_one_problem(load: Load) -> None:
    with pytest.raises(InventoryError, match="1 problem") as caught:
        load({"server": {"etcd-expose-metrics": True}})
    assert "quotes" not in str(caught.value)


def test_a_setting_of_the_other_role_is_told_as_that(load: Load) -> None:
    with pytest.raises(InventoryError, match="no setting `flannel-backend` here: it is one of servers"):
        load({"agent": {"flannel-backend": "none"}})
    with pytest.raises(InventoryError, match="no setting `disable-apiserver-lb` here: it is one of agents"):
        load({"server": {"disable-apiserver-lb": True}})


def test_a_node_ip_with_a_plus_adds_to_the_host_s_address(load: Load) -> None:
    networks = {"cluster-cidr": "10.42.0.0/16, fd00:42::/56", "service-cidr": "10.43.0.0/16, fd00:43::/112"}
    more = {name: {"node-ip+": data["node-ip"][1]} for name, data in BOTH.items()}
    cluster = load({"server": networks}, **more)
    assert cluster.member("s1").settings == BOTH["s1"]
    assert cluster.member("a1").addresses == BOTH["a1"]["node-ip"]


@pytest.mark.parametrize("level", ["cluster", "host"])
@pytest.mark.parametrize("key", ["node-taint", "node-taint+"])
def test_servers_keep_their_taint_beside_others(load: Load, level: str, key: str) -> None:
    taint = {key: ["a=b:NoSchedule", k3s.SERVER_TAINT]}
    cluster = load({"server": taint}) if level == "cluster" else load(s1=taint)
    taints = server.settings(cluster, cluster.member("s1"))["node-taint"]
    assert taints == [k3s.SERVER_TAINT, "a=b:NoSchedule"]


def test_of_labels_and_taints_with_one_name_the_nearest_counts(load: Load) -> None:
    agent = {"node-label": ["a=1", "b=1"], "node-taint": ["a=1:NoSchedule"]}
    cluster = load({"agent": agent}, a1={"node-label+": "a=2", "node-taint+": ["a=2:NoSchedule", "a=1:NoExecute"]})
    assert cluster.member("a1").settings == {
        "node-label": ["b=1", "a=2"],
        "node-taint": ["a=2:NoSchedule", "a=1:NoExecute"],
    }
    assert cluster.hidden == (
        "a1: `node-label+` of the host hides a=1 of k3s_cluster.agent",
        "a1: `node-taint+` of the host hides a=1:NoSchedule of k3s_cluster.agent",
    )


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ({"node-label": ["a=1", "a=2"]}, "'a' is given with two values"),
        ({"node-label": "a=1,b=2"}, "is not a label: KEY=VALUE; give several as a list"),
        ({"node-taint": ["a=1:NoSchedule", "a=2:NoSchedule"]}, "'a:NoSchedule' is given with two values"),
    ],
)
def test_labels_and_taints_that_contradict_each_other_are_refused(
    load: Load, agent: dict[str, Any], words: str
) -> None:
    with pytest.raises(InventoryError, match=words):
        load({"agent": agent})
