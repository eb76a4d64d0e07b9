"""The fixed registration address: the ways of the inventory, and what is found where it leads elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nornir_k3s import k3s, records, shell
from nornir_k3s.checks import preflight, registration, works
from nornir_k3s.compare import compare, kubeconfig, nodes
from nornir_k3s.errors import InventoryError, K3sError
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.kubeconfig import KubeconfigAnswer
from nornir_k3s.model.machine_facts import Address, Reach
from nornir_k3s.phases import registration as waiting
from nornir_k3s.phases import tidy
from nornir_k3s.planner import plan_host
from nornir_k3s.roles import haproxy, keepalived, server
from nornir_k3s.roles.desired import Known
from nornir_k3s.roles.former_address import former_vips
from nornir_k3s.run import address_probe, gather
from nornir_k3s.state import kubeconfig as kept
from nornir_k3s.state.store import Store

from .conftest import HOSTS
from .hosts import changed
from .test_preflight import healthy

Load = Callable[..., Cluster]
WITHOUT_LB = {name: one for name, one in HOSTS.items() if one[1] != "lb"}
NAME = "api.example.org"


def found(cluster: Cluster, facts: dict[str, HostFacts], check: str) -> list[Finding]:
    return [one for one in preflight.check(cluster, facts) if one.subject == check]


@pytest.mark.parametrize(
    ("given", "way", "url"),
    [
        ({"way": "external", "address": "10.0.0.100"}, "external", "https://10.0.0.100:6443"),
        ({"managed": False, "address": "10.0.0.100"}, "external", "https://10.0.0.100:6443"),
        ({"managed": False, "way": "external", "name": NAME}, "external", f"https://{NAME}:6443"),
        ({"way": "external", "name": NAME, "port": 443}, "external", f"https://{NAME}:443"),
        ({"way": "dns", "name": NAME}, "dns", f"https://{NAME}:6443"),
        ({"way": "dns", "name": NAME, "address": "203.0.113.5"}, "dns", f"https://{NAME}:6443"),
    ],
)
def test_each_way_without_load_balancers_of_ours(load: Load, given: Any, way: str, url: str) -> None:
    cluster = load({"registration": given}, hosts=WITHOUT_LB)
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


DNS = {"registration": {"way": "dns", "name": NAME}}


def resolving(cluster: Cluster, *addresses: str) -> dict[str, HostFacts]:
    """All hosts that use the name resolve it to these addresses."""
    names = {"names": {NAME: addresses}}
    facts = {m.name: names if m.role in ("servers", "agents") else {} for m in cluster.members}
    return {name: changed(one, **facts[name]) for name, one in healthy(cluster).items()}


def test_a_round_robin_name_has_every_server_and_no_stranger(load: Load) -> None:
    cluster = load(DNS, hosts=WITHOUT_LB)
    assert not found(cluster, resolving(cluster, "10.0.0.12", "10.0.0.13"), "name")
    (lacks, *_) = found(cluster, resolving(cluster, "10.0.0.12"), "name")
    assert (lacks.host, lacks.severity) == ("s1", "warning")
    assert "to 10.0.0.12, without s2 (10.0.0.13)" in lacks.found
    strangers = found(cluster, resolving(cluster, "10.0.0.12", "10.0.0.13", "10.0.0.99"), "name")
    assert [(one.host, one.severity) for one in strangers] == [(name, "error") for name in ("s1", "s2", "a1")]
    assert "to 10.0.0.99, which is no server's address" in strangers[0].found
    drift = compare.differences(cluster, {}, resolving(cluster, "10.0.0.12"), Limits(), has_ca=True)
    assert {one.host for one in drift if one.subject == "name" and one.counts} == {"s1", "s2", "a1"}


def test_a_server_s_other_addresses_are_its_own(load: Load) -> None:
    cluster = load(DNS, hosts=WITHOUT_LB, s1={"node-external-ip": "203.0.113.12"})
    facts = resolving(cluster, "203.0.113.12", "198.51.100.13")
    assert [one.severity for one in found(cluster, facts, "name")] == ["error"] * 3
    more = (*facts["s2"].addresses, Address("eth1", "198.51.100.13/24"))
    facts["s2"] = changed(facts["s2"], addresses=more)
    assert not found(cluster, facts, "name")


def test_the_name_of_an_elastic_ip_leads_to_it_or_to_servers(load: Load) -> None:
    registration = {"way": "dns", "name": NAME, "address": "203.0.113.5"}
    cluster = load({"registration": registration}, hosts=WITHOUT_LB)
    for good in (("203.0.113.5",), ("10.0.0.12",), ("10.0.0.12", "10.0.0.13")):
        assert not found(cluster, resolving(cluster, *good), "name"), good
    (stranger, *_) = found(cluster, resolving(cluster, "192.0.2.1"), "name")
    assert (stranger.severity, stranger.expected) == ("error", "203.0.113.5, or addresses of servers")


@pytest.mark.parametrize("way", ["dns", "external"])
def test_a_name_that_leads_to_the_host_itself_or_nowhere_is_an_error(load: Load, way: str) -> None:
    cluster = load({"registration": {"way": way, "name": NAME}}, hosts=WITHOUT_LB)
    for addresses, words in (((), "cannot resolve"), (("127.0.1.1",), "127.0.1.1, which is each host itself")):
        problems = found(cluster, resolving(cluster, *addresses), "name")
        assert [(one.host, one.severity) for one in problems] == [(name, "error") for name in ("s1", "s2", "a1")]
        assert words in problems[0].found


def test_a_name_of_the_vip_that_leads_to_another_host_is_an_error(load: Load) -> None:
    cluster = load({"registration": {"address": "10.0.0.100", "name": NAME}})
    facts = resolving(cluster, "10.0.0.15")
    assert {(one.severity, "10.0.0.15, which is lb1" in one.found) for one in found(cluster, facts, "name")} == {
        ("error", True)
    }


@pytest.mark.parametrize(
    ("registration", "resolved", "words"),
    [
        ({"address": "10.0.0.100", "name": NAME}, (), f"the controller cannot resolve {NAME}"),
        ({"address": "10.0.0.100", "name": NAME}, ("192.0.2.1",), f"the controller resolves {NAME}"),
        ({"way": "dns", "name": NAME}, ("10.0.0.12",), "without s2"),
        ({"way": "external", "name": NAME}, ("127.0.0.1",), "which is each host itself"),
        ({"address": "10.0.0.100", "name": NAME}, ("10.0.0.100",), ""),
        ({"way": "external", "name": NAME}, ("192.0.2.1",), ""),
    ],
)
def test_the_controller_uses_the_name_too(load: Load, registration: Any, resolved: tuple[str, ...], words: str) -> None:
    cluster = load({"registration": registration}, hosts=WITHOUT_LB if "way" in registration else HOSTS)
    checked = preflight.check(cluster, healthy(cluster), AddressAnswer(resolved))
    told = [(one.host, one.severity) for one in checked if one.subject == "name" and words in one.found]
    assert told == ([("cluster", "warning")] if words else [])


EXTERNAL = {"registration": {"way": "external", "address": "10.0.0.100"}}


@pytest.mark.parametrize(
    ("answer", "severity", "words"),
    [
        (AddressAnswer(failure="certificate", error="the certificate of CN=x"), "error", "presents the certificate of"),
        (AddressAnswer(failure="tls", error="wrong version number"), "error", "wrong version number"),
        (AddressAnswer(failure="connection", error="timeout after 3 s"), "warning", "the controller cannot connect to"),
        (AddressAnswer(answers=8, seen=frozenset({"10.0.0.12"})), "warning", "none of 8 connections"),
        (AddressAnswer(answers=2, seen=frozenset({"10.0.0.12", "10.0.0.13"}), idle=50.2), "warning", "idle after 50 s"),
        (AddressAnswer(answers=8, refused=8), "error", "does not pass the certificates of clients on"),
        (AddressAnswer(answers=8, refused=3, seen=frozenset({"10.0.0.12", "10.0.0.13"})), "", ""),
        (AddressAnswer(via="a1", unreached="timeout", answers=1), "note", "the controller cannot connect"),
        (AddressAnswer(answers=2, seen=frozenset({"10.0.0.12", "10.0.0.13"})), "", ""),
        (AddressAnswer(answers=8), "", ""),
    ],
)
def test_an_external_load_balancer_is_checked(load: Load, answer: AddressAnswer, severity: str, words: str) -> None:
    cluster = load(EXTERNAL, hosts=WITHOUT_LB)
    facts = {name: changed(one, api={"ready": name in ("s1", "s2")}) for name, one in healthy(cluster).items()}
    checked = [one for one in preflight.check(cluster, facts, answer) if one.subject == "registration"]
    assert [(one.host, one.severity) for one in checked] == ([("cluster", severity)] if severity else [])
    assert all(words in one.found for one in checked)


@pytest.mark.parametrize("registration", [{"address": "10.0.0.12"}, {"name": NAME}])
def test_the_address_of_one_server_is_a_note_as_k3sup_leaves_it(load: Load, registration: dict[str, str]) -> None:
    cluster = load({"registration": {"way": "external", **registration}}, hosts=WITHOUT_LB)
    facts = {name: changed(one, api={"ready": name in ("s1", "s2")}) for name, one in healthy(cluster).items()}
    answer = AddressAnswer(("10.0.0.12",) if "name" in registration else None, answers=8, seen=frozenset({"10.0.0.12"}))
    (one,) = [one for one in preflight.check(cluster, facts, answer) if one.subject == "registration"]
    assert (one.severity, f"{cluster.url} is s1 itself" in one.found) == ("note", True)


def test_an_external_load_balancer_may_wait_for_the_first_server(load: Load) -> None:
    cluster = load(EXTERNAL, hosts=WITHOUT_LB)
    facts = healthy(cluster)
    refused = AddressAnswer(failure="connection", error="connection refused")
    assert not [one for one in preflight.check(cluster, facts, refused) if one.subject == "registration"]
    facts["a1"] = changed(facts["a1"], reach=(Reach("the registration address", "10.0.0.100:6443", "silent"),))
    assert [(one.host, one.severity) for one in found(cluster, facts, "reach")] == [("a1", "warning")]


def test_what_someone_else_must_configure_is_told(load: Load) -> None:
    todo = registration.todo(load(EXTERNAL | {"server": {"https-listen-port": 7443}}, hosts=WITHOUT_LB))
    assert "must pass TCP through to 10.0.0.12:7443, 10.0.0.13:7443; health check:" in todo
    assert "idle timeout: 10 minutes" in todo
    assert registration.todo(load(DNS, hosts=WITHOUT_LB)) == f"{NAME} must resolve to 10.0.0.12, 10.0.0.13"
    assert not registration.todo(load())


def working(cluster: Cluster, **registration: str | None) -> dict[str, HostFacts]:
    """Facts of a cluster that works, and what its agents say of the registration address."""
    listed = tuple(
        NodeState(m.node_name, ready=True, version=cluster.version, roles=("control-plane",) * (m.role == "servers"))
        for role in ("servers", "agents")
        for m in cluster.of(role)
    )
    facts = healthy(cluster)
    del facts["s2"]  # one server is asked
    facts["s1"] = changed(facts["s1"], api={"ready": True, "nodes": listed, "error": "timeout"})
    for name, why in registration.items():
        facts[name] = changed(facts[name], registration=why)
    return facts


HERE = AddressAnswer(answers=3, names=("10.0.0.100",))


@pytest.mark.parametrize(
    ("agent", "address", "works_now"),
    [
        ("", HERE, True),
        ("", AddressAnswer(failure="connection", error="timeout"), True),
        (None, HERE, True),
        (None, AddressAnswer(failure="connection", error="timeout"), False),
        (None, None, False),
        ("connection refused", HERE, False),
    ],
)
def test_a_server_need_not_reach_the_address_that_leads_to_itself(
    load: Load, agent: str | None, address: AddressAnswer | None, works_now: bool
) -> None:
    cluster = load(EXTERNAL, hosts=WITHOUT_LB)
    facts = working(cluster, a1=agent)
    problems = works.problems(cluster, facts, None, address)
    assert (not problems) == works_now, problems
    facts["s1"] = changed(facts["s1"], units={"k3s.service": UnitState("loaded", "active")})
    told = [one for one in nodes.differences(cluster, facts, (), address=address) if one.id == "s1/api:address"]
    assert [one.severity for one in told] == ["note" if works_now else "error"]


def test_an_agent_that_does_not_reach_the_address_is_told(load: Load) -> None:
    cluster = load()
    facts = working(cluster, a1="connection refused")
    assert works.unreached(cluster, facts) == [f"a1 cannot reach the API at {cluster.url}: connection refused"]
    told = {one.id: one for one in nodes.differences(cluster, facts, ())}
    assert told["a1/api:address"].severity == "error"


def test_names_that_the_certificate_lacks_are_told_after_a_change_and_in_drift(load: Load) -> None:
    cluster = load(EXTERNAL | {"server": {"tls-san": ["api.example.org", "10.0.0.99"]}}, hosts=WITHOUT_LB)
    facts = working(cluster, a1="")
    lacks = AddressAnswer(answers=1, names=("10.0.0.100", "API.example.org"))
    assert works.problems(cluster, facts, None, lacks) == ["the API's certificate does not contain 10.0.0.99"]
    assert not works.problems(cluster, facts, {"a1", "s1", "s2"}, lacks), "other servers may not have the name yet"
    (told,) = kubeconfig.differences(cluster, "kubeconfig", KubeconfigAnswer(), days=1, address=lacks)
    assert told.id == "cluster/names:10.0.0.99"


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        ("server: https://10.0.0.100:6443\n", False),
        ("node-name: a1\nserver: https://10.0.0.9:6443\n", True),
        ("server: 'https://10.0.0.100:7443'\n", True),
        ("node-name: a1\n", False),
        (None, False),
    ],
)
def test_an_agent_moves_when_its_file_has_another_address(load: Load, text: str | None, moves: bool) -> None:
    file = FileState("file", text=text)
    run: Any = SimpleNamespace(cluster=load(), facts={"a1": HostFacts("a1", files={k3s.CONFIG: file})})
    assert waiting.moves(run, "a1") == moves


def test_a_kubeconfig_is_known_by_its_ca(tmp_path: Path) -> None:
    def text(ca: str, server: str) -> str:
        return yaml.safe_dump({"clusters": [{"cluster": {"certificate-authority-data": ca, "server": server}}]})

    store = Store(tmp_path, base=tmp_path)
    assert not kept.has_same_ca(store, text("one", "https://a"))
    (tmp_path / kept.FILE).write_text(text("one", "https://b"))
    assert kept.has_same_ca(store, text("one", "https://a"))
    assert not kept.has_same_ca(store, text("two", "https://b"))
    assert not kept.has_same_ca(store, "no kubeconfig")


KUBECTL = """#!/bin/sh
case "$*" in *--server=https://gone:6443*) echo 'E1126 memcache.go'; echo 'connection refused'; exit 1 ;; esac >&2
case "$*" in *--server=https://silent:6443*) exit 124 ;; esac
echo '{}'
"""


@pytest.mark.parametrize(
    ("host", "said"),
    [("there", ["@registration\t"]), ("gone", ["@registration\tconnection refused"]),
     ("silent", ["@registration\ttimeout after 10 s"])],
)  # fmt: skip
def test_an_agent_asks_as_its_kubelet(tmp_path: Path, host: str, said: list[str]) -> None:
    for name, text in (("k3s", KUBECTL), ("systemctl", "#!/bin/sh\necho active\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    call = shell.call("fact_registration", tmp_path / "k3s", f"https://{host}:6443", tmp_path)
    script = f"PATH={tmp_path}:$PATH\n{records.SAY}{shell.source('facts/k3s_node.sh')}{call}\n"

    def lines() -> list[str]:
        return subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()

    assert lines() == [], "it has not joined"
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "kubelet.kubeconfig").write_text("x")
    assert lines() == said


def test_a_host_that_leaves_the_load_balancers_serves_the_old_address_until_agents_have_moved(load: Load) -> None:
    old = HostFacts("s1", ledger=Ledger(files=frozenset({haproxy.CONFIG, keepalived.CONFIG})))
    cluster = load(EXTERNAL, hosts=WITHOUT_LB)
    planned = plan_host(cluster, cluster.member("s1"), old, Known())
    stops = [step.target for step in planned.tidy if step.action == "stop"]
    assert stops == ["keepalived.service", "haproxy.service"]
    assert not planned.by_role.get("lb")
    vip = load()
    planned = plan_host(vip, vip.member("s1"), old, Known())
    assert [step.target for step in planned.by_role["lb"] if step.action == "stop"] == stops, "another takes the VIP"
    assert not planned.tidy


@pytest.mark.parametrize(
    ("server", "done", "limit", "tidied"),
    [
        ("https://10.0.0.100:6443", set(), None, ["s1"]),
        ("https://10.0.0.9:6443", {"a1"}, None, ["s1"]),
        ("https://10.0.0.9:6443", set(), None, []),
        ("https://10.0.0.100:6443", set(), frozenset({"s1"}), []),
    ],
)
def test_nothing_is_removed_that_an_agent_still_uses(
    load: Load, server: str, done: set[str], limit: Any, tidied: list[str]
) -> None:
    cluster, hosts = load(EXTERNAL, hosts=WITHOUT_LB), []
    file = FileState("file", text=f"server: {server}\n")
    run: Any = SimpleNamespace(
        cluster=cluster,
        limit=limit,
        done=done,
        names=["s1", "a1"],
        of=cluster.of,
        facts={"a1": HostFacts("a1", files={k3s.CONFIG: file})},
        planned=lambda name: SimpleNamespace(by_role={"servers": ()}, tidy=(1,) if name == "s1" else ()),
        phase=lambda _title, names, *_, **__: hosts.extend(names),
    )
    tidy.tidy(run)
    assert hosts == tidied


def test_a_name_by_which_the_api_answers_leads_there(load: Load) -> None:
    cluster = load({"registration": {"address": "10.0.0.100", "name": NAME}})
    facts = resolving(cluster, "192.0.2.1")
    assert {one.host for one in found(cluster, facts, "name")} == {"s1", "s2", "a1"}
    facts["a1"] = changed(facts["a1"], registration="")
    for name in ("s1", "s2"):
        facts[name] = changed(facts[name], api={"ready": True, "through_address": True})
    assert not found(cluster, facts, "name")
    answer = AddressAnswer(("192.0.2.1",), answers=3)
    assert not [one for one in preflight.check(cluster, facts, answer) if one.subject == "name"]


def test_the_certificate_has_every_name_and_address_that_clients_use(load: Load) -> None:
    registration = {"way": "dns", "name": NAME, "address": "203.0.113.5"}
    settings = {"registration": registration, "server": {"tls-san": ["k3s.example.org"]}}
    cluster = load(settings, hosts=WITHOUT_LB, s2={"advertise-address": "192.0.2.13"})
    expected = ["203.0.113.5", NAME, "k3s.example.org", "192.0.2.13"]
    for name in ("s1", "s2"):
        assert server.settings(cluster, cluster.member(name))["tls-san"] == expected


def holding(cluster: Cluster, server: str, **facts: Any) -> dict[str, HostFacts]:
    """The VIP 10.0.0.100 is on lb1, and this is what an agent's file has; the inventory may have another."""
    found = {name: changed(one, **facts) for name, one in healthy(cluster).items()}
    found["lb1"] = changed(found["lb1"], addresses=(*found["lb1"].addresses, Address("eth0", "10.0.0.100/32")))
    file = FileState("file", text=f"server: {server}\n")
    found["a1"] = changed(found["a1"], files={k3s.CONFIG: file})
    return found


@pytest.mark.parametrize(
    ("server", "moved", "kept_vips"),
    [
        ("https://10.0.0.100:6443", (), ("10.0.0.100",)),
        ("https://10.0.0.100:6443", ("a1",), ()),
        ("https://10.0.0.77:6443", (), ()),
        ("https://10.0.0.15:6443", (), ()),
        ("https://10.0.0.101:6443", (), ()),
    ],
)
def test_a_vip_is_held_until_its_agents_have_another(
    load: Load, server: str, moved: tuple[str, ...], kept_vips: tuple[str, ...]
) -> None:
    cluster = load({"registration": {"address": "10.0.0.101"}})
    assert former_vips(cluster, holding(cluster, server), moved) == kept_vips


def test_a_vip_is_held_while_its_name_leads_there(load: Load) -> None:
    cluster = load({"registration": {"address": "10.0.0.101", "name": NAME}})
    facts = holding(cluster, f"https://{NAME}:6443", names={NAME: ("10.0.0.100",)}, registration="")
    assert former_vips(cluster, facts, ("a1",)) == ("10.0.0.100",)
    told = found(cluster, facts, "name")
    assert {one.severity for one in told} == {"warning"}, "it works as long as it is held"
    assert "to 10.0.0.100" in told[0].found


def test_load_balancers_hold_a_former_vip_beside_the_new_one(load: Load) -> None:
    cluster = load({"registration": {"address": "10.0.0.101"}})
    facts = healthy(cluster)["lb1"]
    for former, expected in (("10.0.0.100",), ["10.0.0.101/32", "10.0.0.100/32"]), ((), ["10.0.0.101/32"]):
        planned = plan_host(cluster, cluster.member("lb1"), facts, Known(former_vips=former))
        text = next(one.text.reveal() for one in planned.desired.files if one.path == keepalived.CONFIG)
        held = text.partition("virtual_ipaddress {\n")[2].partition("}")[0].split("\n")
        assert [line.split()[0] for line in held if line.strip()] == expected
        assert all(line.endswith(" dev eth0") for line in held if line.strip())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            AddressAnswer(failure="certificate", error="the certificate of CN=proxy"),
            "presents the certificate of CN=pro",
        ),
        (AddressAnswer(failure="connection", error="timeout after 3 s"), ""),
        (AddressAnswer(answers=4), ""),
    ],
)
def test_agents_do_not_join_by_a_load_balancer_that_leads_elsewhere(
    load: Load, monkeypatch: pytest.MonkeyPatch, answer: AddressAnswer, words: str
) -> None:
    cluster, asked = load(EXTERNAL, hosts=WITHOUT_LB), []
    monkeypatch.setattr(gather, "look_at_address", lambda run: setattr(run, "address", answer))
    run: Any = SimpleNamespace(
        cluster=cluster,
        address=None,
        facts={"a1": HostFacts("a1")},
        widths={"agents": 10},
        deadlines={"verify": 0.2},
        stop=None,
        phase=lambda _title, names, task, **_: asked.append((list(names), task.__name__)),
    )
    with pytest.raises(K3sError, match=words) if words else nullcontext():
        waiting.await_address(run, [], ["a1"])
    assert asked == [([], "_answers"), (["a1"], "_connects")]


@pytest.mark.parametrize("accept", ["registration", "cluster:registration"])
def test_a_load_balancer_that_leads_each_client_to_one_server_is_accepted(load: Load, accept: str) -> None:
    cluster = load(EXTERNAL | {"accept": [accept]}, hosts=WITHOUT_LB)
    facts = {name: changed(one, api={"ready": name in ("s1", "s2")}) for name, one in healthy(cluster).items()}
    answer = AddressAnswer(answers=8, seen=frozenset({"10.0.0.12"}))
    assert [one.level for one in preflight.check(cluster, facts, answer) if one.subject == "registration"] == [
        "accepted"
    ]


@pytest.mark.parametrize(
    ("given", "hosts", "kept_idle"),
    [({}, HOSTS, 0), (EXTERNAL, WITHOUT_LB, 65), ({"registration": {"way": "dns", "name": NAME}}, WITHOUT_LB, 0)],
    ids=["vip", "external", "dns"],
)
def test_only_a_load_balancer_of_someone_else_is_asked_how_long_it_keeps_a_connection(
    load: Load, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], hosts: dict[str, Any], kept_idle: float
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(address_probe, "probe", lambda *_, idle, **__: asked.append(idle))
    cluster = load(given, hosts=hosts)
    run: Any = SimpleNamespace(
        cluster=cluster, ready_servers=["s1"], sessions={}, ca_certificate="", facts={"s1": HostFacts("s1")},
        of=cluster.of,
    )  # fmt: skip
    gather.look_at_address(run, idle=65)
    assert asked == [kept_idle]
