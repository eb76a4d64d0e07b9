"""The fixed registration address: the ways of the inventory, and what is found where it leads elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nornir_k3s.checks import preflight
from nornir_k3s.compare import compare
from nornir_k3s.errors import InventoryError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import Address, HostFacts

from .conftest import HOSTS
from .hosts import changed
from .test_preflight import healthy

Load = Callable[..., Cluster]
WITHOUT_LB = {name: one for name, one in HOSTS.items() if one[1] != "lb"}
NAME = "api.example.org"


def found(cluster: Cluster, facts: dict[str, HostFacts], check: str) -> list[Finding]:
    return [one for one in preflight.check(cluster, facts) if one.subject == check]


@pytest.mark.parametrize(
    ("registration", "way", "url"),
    [
        ({"way": "external", "address": "10.0.0.100"}, "external", "https://10.0.0.100:6443"),
        ({"managed": False, "address": "10.0.0.100"}, "external", "https://10.0.0.100:6443"),
        ({"managed": False, "way": "external", "name": NAME}, "external", f"https://{NAME}:6443"),
        ({"way": "external", "name": NAME, "port": 443}, "external", f"https://{NAME}:443"),
        ({"way": "dns", "name": NAME}, "dns", f"https://{NAME}:6443"),
        ({"way": "dns", "name": NAME, "address": "203.0.113.5"}, "dns", f"https://{NAME}:6443"),
    ],
)
def test_each_way_without_load_balancers_of_ours(load: Load, registration: Any, way: str, url: str) -> None:
    cluster = load({"registration": registration}, hosts=WITHOUT_LB)
    assert (cluster.registration.way, cluster.registration.managed, cluster.url) == (way, False, url)


@pytest.mark.parametrize("given", [{}, {"way": "vip"}, {"managed": True}, {"managed": True, "way": "vip"}])
def test_a_vip_is_the_usual_way(load: Load, given: dict[str, Any]) -> None:
    cluster = load({"registration": {"address": "10.0.0.100", **given}})
    assert (cluster.registration.way, cluster.registration.managed) == ("vip", True)


@pytest.mark.parametrize(
    ("registration", "words"),
    [
        ({"way": "vip", "managed": False, "address": "10.0.0.100"}, "contradicts `way: vip`"),
        ({"way": "dns", "managed": False, "name": NAME}, "contradicts `way: dns`"),
        ({"way": "external", "managed": True, "name": NAME}, "`managed: true` contradicts `way: external`"),
        ({"way": "external"}, "give `address`, `name` or both"),
        ({"way": "dns", "address": "203.0.113.5"}, "give `name`"),
        ({"way": "dns", "name": NAME, "port": 443}, "listen on port 6443: set `port: 6443`"),
        ({"way": "bgp", "name": NAME}, "'vip', 'external' or 'dns'"),
        ({"way": "vip", "name": NAME}, "the VIP is missing"),
    ],
)
def test_what_contradicts_itself_is_refused(load: Load, registration: Any, words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"registration": registration}, hosts=HOSTS if registration["way"] == "vip" else WITHOUT_LB)
    assert words in str(caught.value)


def test_ways_without_our_load_balancers_take_no_hosts_and_settings_of_them(load: Load) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"registration": {"way": "dns", "name": NAME}, "lb": {"virtual_router_id": 7}})
    assert "it has hosts, but `way: dns` uses none" in str(caught.value)
    assert "`way: dns` uses no load balancer" in str(caught.value)
    with pytest.raises(InventoryError, match="say `way: external`"):
        load(hosts=WITHOUT_LB)


OUTSIDE = {"registration": {"address": "192.0.2.100"}}


def test_a_vip_outside_the_load_balancers_network_stops_a_deploy_and_counts_as_drift(load: Load) -> None:
    cluster = load(OUTSIDE)
    facts = healthy(cluster)
    findings = found(cluster, facts, "vip-network")
    assert [(one.host, one.severity) for one in findings] == [("lb1", "error"), ("lb2", "error")]
    assert "accept: [vip-network]" in findings[0].remedy
    drift = compare.differences(cluster, {}, facts, Limits(), has_ca=True)
    assert [one.host for one in drift if one.subject == "vip-network" and one.counts] == ["lb1", "lb2"]


@pytest.mark.parametrize("accept", [["vip-network"], ["lb1:vip-network", "lb2:vip-network"]])
def test_a_routed_vip_is_accepted_in_preflight_and_drift(load: Load, accept: list[str]) -> None:
    cluster = load(OUTSIDE | {"accept": accept, "lb": {"prefix": 24}})
    facts = healthy(cluster)
    findings = found(cluster, facts, "vip-network")
    assert [(one.level, one.severity) for one in findings] == [("accepted", "warning")] * 2
    drift = compare.differences(cluster, {}, facts, Limits(), has_ca=True)
    assert not [one for one in drift if one.subject == "vip-network" and one.counts]


def test_no_other_error_can_be_accepted(load: Load) -> None:
    cluster = load({"accept": ["address"]})
    facts = healthy(cluster)
    facts["s1"] = changed(facts["s1"], addresses=(Address("eth0", "10.9.9.9/24"),))
    assert [one.level for one in found(cluster, facts, "address")] == ["error"]


def test_an_elastic_ip_may_be_on_a_server(load: Load) -> None:
    cluster = load({"registration": {"way": "dns", "name": NAME, "address": "203.0.113.5"}}, hosts=WITHOUT_LB)
    facts = healthy(cluster)
    more = (*facts["s1"].addresses, Address("eth0", "203.0.113.5/32"))
    facts["s1"] = changed(facts["s1"], addresses=more)
    assert not found(cluster, facts, "vip")
