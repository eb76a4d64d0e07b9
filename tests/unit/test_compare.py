"""What is compared, and in what words it is told; pure functions, no host."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from k3s_standin.effective import effective

from nornir_k3s import facts, k3s
from nornir_k3s.checks import works
from nornir_k3s.compare import (
    certificate_expiry,
    compare,
    datastore,
    effective_config,
    host,
    kubeconfig,
    load_balancers,
    nodes,
)
from nornir_k3s.facts.nodes import nodes as read_nodes
from nornir_k3s.k3s_installed import given
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import DatastoreHealth
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.drift_report import CertificateExpiry
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts, Ledger, UnitState
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.k3s_facts import Api, Backend, CertificateFile, NodeState
from nornir_k3s.model.kubeconfig import KubeconfigAnswer
from nornir_k3s.model.machine_facts import Address, Space
from nornir_k3s.model.settings import KnownDifference
from nornir_k3s.planner import plan_host
from nornir_k3s.roles.desired import Known
from nornir_k3s.run import kubeconfig_probe
from tests.unit.conftest import BOTH, ONLY_V6

LACKS_CNI = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
    " message:Network plugin returns error: cni plugin not initialized"
)
OBSERVED = Path("/nonexistent")
MASK_56 = "/////////wAAAAAAAAAAAA=="
MASK_112 = "//////////////////8AAA=="
RUNNING = UnitState("loaded", "active", "running", "enabled", 0, 100, 100)
SAID: dict[str, Any] = {
    "ClusterIPRanges": [{"IP": "10.42.0.0", "Mask": "//8AAA=="}],
    "ServiceIPRanges": [{"IP": "10.43.0.0", "Mask": "//8AAA=="}],
    "ClusterDNSs": ["10.43.0.10"],
    "ClusterDomain": "cluster.local",
    "FlannelBackend": "vxlan",
    "EncryptSecrets": False,
    "EncryptProvider": "aescbc",
    "EgressSelectorMode": "agent",
    "HTTPSPort": 6443,
    "ServiceNodePortRange": {"Base": 30000, "Size": 2768},
    "Disables": {"traefik": True},
    "DisableKubeProxy": False,
    "ExtraAPIArgs": ["tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
    "ExtraControllerArgs": None,
}


def saying(name: str, **changes: Any) -> HostFacts:
    api = Api(ready=True, through_address=True)
    return HostFacts(name, api=api, effective_config={**SAID, **changes}, units={"k3s.service": RUNNING})


def ids(found: Any) -> dict[str, Finding]:
    return {one.id: one for one in found}


def node(name: str, role: str = "agents", **changes: Any) -> NodeState:
    taints = (k3s.SERVER_TAINT,) if role == "servers" else ()
    roles = ("control-plane",) if role == "servers" else ()
    return replace(NodeState(name, ready=True, version="v1.34.9+k3s1", roles=roles, taints=taints), **changes)


def all_nodes() -> list[NodeState]:
    return [node("s1", "servers"), node("s2", "servers"), node("a1")]


@pytest.mark.parametrize(("failed", "told"), [(0, False), (99, False), (100, True), (160, True)])
def test_a_server_that_was_set_up_anew_has_another_node_password(
    load: Callable[..., Cluster], failed: int, told: bool
) -> None:
    """Only the event of this start counts."""
    seen = {"s1": saying("s1"), "s2": replace(saying("s2"), password_refused=failed)}
    found = ids(nodes.differences(load(), seen, all_nodes()))
    assert set(found) == ({"s2/node:password"} if told else set())
    if told:
        assert "delete secret s2.node-password.k3s" in found["s2/node:password"].remedy


def test_servers_that_say_what_the_inventory_asks_for_differ_in_nothing(load: Callable[..., Cluster]) -> None:
    assert list(effective_config.differences(load(), {"s1": saying("s1"), "s2": saying("s2")}, [])) == []


@pytest.mark.parametrize(
    ("changes", "key", "found"),
    [
        ({"ClusterDomain": "other.local"}, "cluster-domain", "other.local"),
        ({"ClusterIPRanges": [{"IP": "10.44.0.0", "Mask": "//8AAA=="}]}, "cluster-cidr", "10.44.0.0/16"),
        ({"Disables": {}}, "disable", "unset"),
        ({"FlannelBackend": "host-gw"}, "flannel-backend", "host-gw"),
        ({"EncryptSecrets": True}, "secrets-encryption", "true"),
        ({"DisableKubeProxy": True}, "disable-kube-proxy", "true"),
        ({"ServiceNodePortRange": {"Base": 30000, "Size": 10}}, "service-node-port-range", "30000-30009"),
        ({"ExtraAPIArgs": [*SAID["ExtraAPIArgs"], "event-ttl=9h"]}, "kube-apiserver-arg", "event-ttl=9h"),
        ({"ClusterDNSs": ["10.43.0.11"]}, "cluster-dns", "10.43.0.11"),
        ({"HTTPSPort": 7443}, "https-listen-port", "7443"),
    ],
)
def test_a_server_with_another_setting_in_force_is_told_with_how_many_have_it(
    load: Callable[..., Cluster], changes: dict[str, Any], key: str, found: str
) -> None:
    told = ids(effective_config.differences(load(), {"s1": saying("s1"), "s2": saying("s2", **changes)}, []))
    assert set(told) == {f"s2/setting:{key}"}
    assert told[f"s2/setting:{key}"].found == f"K3s runs with {key} {found}; 1 of 2 servers have it"
    assert told[f"s2/setting:{key}"].severity == "error"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"disable": "traefik, servicelb"}, {"Disables": {"servicelb": True, "traefik": True}}),
        (
            {"disable": ["traefik"], "disable-cloud-controller": True},
            {"DisableCCM": True, "Disables": {"ccm": True, "traefik": True}},
        ),
        (
            {
                "disable": ["traefik"],
                "cluster-cidr": "10.42.0.0/16,fd00:42::/56",
                "service-cidr": "10.43.0.0/16,fd00:43::/112",
            },
            {
                "ClusterIPRanges": [{"IP": "10.42.0.0", "Mask": "//8AAA=="}, {"IP": "fd00:42::", "Mask": MASK_56}],
                "ServiceIPRanges": [{"IP": "10.43.0.0", "Mask": "//8AAA=="}, {"IP": "fd00:43::", "Mask": MASK_112}],
                "ClusterDNSs": ["10.43.0.10", "fd00:43::a"],
            },
        ),
        ({"disable": ["traefik"], "disable-kube-proxy": "true"}, {"DisableKubeProxy": True}),
        ({"disable+": ["traefik"], "https-listen-port": "6443"}, {}),
        (
            {"disable": "traefik", "service-node-port-range": "30000+99"},
            {"ServiceNodePortRange": {"Base": 30000, "Size": 100}},
        ),
        ({"disable": "traefik", "servicelb-namespace": "lb"}, {"ServiceLBNamespace": "lb"}),
    ],
    ids=[
        "commas and blanks",
        "a component that K3s disables by itself",
        "two networks in one text",
        "a boolean as text",
        "a key with a plus",
        "a range with a plus",
        "a namespace",
    ],
)
def test_a_setting_in_any_form_of_k3s_is_no_drift(
    load: Callable[..., Cluster], settings: dict[str, Any], said: dict[str, Any]
) -> None:
    both = BOTH if "cluster-cidr" in settings else {}
    cluster = load({"server": settings}, **both)
    assert list(effective_config.differences(cluster, {"s1": saying("s1", **said)}, [])) == []


def test_what_k3s_makes_of_ipv6_without_any_setting_is_no_drift(load: Callable[..., Cluster]) -> None:
    cluster = load({"registration": {"address": "fd00::100"}, "server": {"disable": ["traefik"]}}, hosts=ONLY_V6)
    said = effective({"disable": ["traefik"]}, Path("/server"), "fd00::12", 6443)
    assert said["ClusterDNSs"] == ["fd00:43::a"]
    assert list(effective_config.differences(cluster, {"s1": saying("s1", **said)}, [])) == []


def test_every_setting_that_must_match_is_compared_from_what_servers_say() -> None:
    by_annotation = {"tls-san", "helm-controller-arg"}
    assert set(effective_config._READERS) >= k3s.MUST_MATCH - by_annotation


def test_what_a_node_was_started_with_is_compared_and_secrets_are_not(load: Callable[..., Cluster]) -> None:
    cluster = load()
    args = ["agent", "--token", "********", "--server", cluster.url, "--node-name", "a1", "--node-ip", "10.0.0.14"]
    seen = {"a1": HostFacts("a1")}
    assert list(effective_config.differences(cluster, seen, [node("a1", args=tuple(args))])) == []
    told = ids(effective_config.differences(cluster, seen, [node("a1", args=(*args, "--debug"))]))
    assert told["a1/setting:debug"].found == "K3s was started with debug true"


def test_arguments_are_read_as_k3s_writes_them() -> None:
    words: tuple[str, ...] = ("server", "--disable", "a", "--disable=b", "--debug", "--node-ip", "10.0.0.1")
    assert given(words) == {"disable": ["a", "b"], "debug": ["true"], "node-ip": ["10.0.0.1"]}
    words = ("server", "--kube-controller-arg", "a=b", "--docker", "-t", "********", "--selinux", "1", "--debug")
    words = (*words, "false", "-disable", "a", "--v", "1", "--v", "2", "--unknown", "--kubelet-arg", "--x=y")
    assert given(words) == {
        "kube-controller-manager-arg": ["a=b"],
        "docker": ["true"],
        "token": ["********"],
        "selinux": ["true"],
        "debug": ["false"],
        "disable": ["a"],
        "v": ["2"],
        "unknown": ["true"],
        "kubelet-arg": ["--x=y"],
    }


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (lambda n: n[1:], "s1/node:s1", "node s1 is not listed"),
        (lambda n: [*n[:2], replace(n[2], ready=False, since=60)], "a1/node:a1", "node a1 is not Ready"),
        (lambda n: [*n[:2], replace(n[2], schedulable=False)], "a1/node:a1", "node a1 is cordoned"),
        (lambda n: [*n[:2], replace(n[2], version="v1.33.1+k3s1")], "a1/node:a1", "node a1 runs v1.33.1+k3s1"),
        (
            lambda n: [*n[:2], replace(n[2], roles=("control-plane",))],
            "a1/node:a1",
            "node a1 has the roles control-plane",
        ),
        (lambda n: [*n, node("old")], "cluster/stranger:old", "node old is not in the inventory"),
        (
            lambda n: [*n[:2], replace(n[2], taints=("x=y:NoSchedule",))],
            "a1/taint:x",
            "unexpected taint x=y:NoSchedule",
        ),
        (lambda n: [replace(n[0], taints=()), *n[1:]], "s1/taint:CriticalAddonsOnly", "is missing"),
    ],
)
def test_nodes_are_held_against_the_inventory(
    load: Callable[..., Cluster], change: Callable[[list[NodeState]], list[NodeState]], key: str, words: str
) -> None:
    assert list(nodes.differences(load(), {}, all_nodes())) == []
    told = ids(nodes.differences(load(), {}, change(all_nodes())))
    assert set(told) == {key}
    assert words in told[key].found


def test_taints_that_kubernetes_sets_by_itself_are_not_told(load: Callable[..., Cluster]) -> None:
    own = replace(node("a1"), taints=("node.kubernetes.io/not-ready=:NoSchedule",))
    assert list(nodes.differences(load(), {}, [*all_nodes()[:2], own])) == []


def test_a_node_that_lacks_only_the_user_s_cni_is_as_the_inventory_asks(load: Callable[..., Cluster]) -> None:
    waiting = replace(node("a1"), ready=False, lacks_cni=True)
    found = [*all_nodes()[:2], waiting]
    own = replace(load(), server={"flannel-backend": "none"})
    (told,) = nodes.differences(own, {}, found)
    assert (told.id, told.severity) == ("a1/node:a1", "note")
    assert works.node_problem(own, own.member("a1"), waiting) == ""
    assert ids(nodes.differences(load(), {}, found))["a1/node:a1"].severity == "error", "flannel has failed"
    assert works.node_problem(load(), own.member("a1"), waiting) == "node a1 is not Ready"
    other = replace(waiting, version="v1.33.1+k3s1")
    assert "v1.33.1" in works.node_problem(own, own.member("a1"), other)


@pytest.mark.parametrize(
    ("status", "message", "lacks"),
    [
        ("False", f"{LACKS_CNI}", True),
        ("False", f"[container runtime is down, {LACKS_CNI}]", False),
        ("Unknown", "Kubelet stopped posting node status.", False),
        ("Unknown", f"{LACKS_CNI}", False),
        ("True", "kubelet is posting ready status", False),
    ],
)
def test_a_node_without_a_cni_says_so(status: str, message: str, lacks: bool) -> None:
    condition = {"type": "Ready", "status": status, "message": message}
    item = {"metadata": {"name": "a1"}, "status": {"conditions": [condition]}}
    assert read_nodes(json.dumps({"items": [item]}))[0].lacks_cni is lacks


def test_labels_that_were_asked_for(load: Callable[..., Cluster]) -> None:
    cluster = load(a1={"node-label": ["zone=one"]})
    found = [*all_nodes()[:2], replace(node("a1"), labels=(("zone", "two"),))]
    assert ids(nodes.differences(cluster, {}, found))["a1/label:zone"].found == "label zone is two"


def test_no_server_that_lists_the_nodes(load: Callable[..., Cluster]) -> None:
    assert "cluster/api:nodes" in ids(nodes.differences(load(), {"s1": HostFacts("s1")}, None))
    assert ids(nodes.differences(load(), {}, None)) == {}, "no server was read: they are told as unreachable"


def lb(name: str, *rows: tuple[str, str], vip: bool = False) -> HostFacts:
    backends = {server: Backend(state, 9) for server, state in rows}
    addresses = (Address("eth0", "10.0.0.100/32"),) if vip else ()
    return HostFacts(name, units={"haproxy.service": RUNNING}, backends=backends, addresses=addresses)


UP = (("s1", "UP"), ("s2", "UP"))


def test_a_server_that_an_interrupted_run_has_drained_is_told_once(load: Callable[..., Cluster]) -> None:
    """By the plan that brings it back; nothing is wrong with its network."""
    one = lb("lb1", ("s1", "DRAIN"), ("s2", "DRAIN"), vip=True)
    seen = {"lb1": replace(one, ledger=Ledger(drained=frozenset(["s2"]))), "lb2": lb("lb2", *UP)}
    assert set(ids(load_balancers.differences(load(), seen))) == {"lb1/backend:s1"}


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        (lb("lb1", *UP, vip=True), lb("lb2", *UP), set()),
        (lb("lb1", *UP), lb("lb2", *UP), {"cluster/vip:10.0.0.100"}),
        (lb("lb1", *UP, vip=True), lb("lb2", *UP, vip=True), {"cluster/vip:10.0.0.100"}),
        (lb("lb1", *UP), None, set()),  # the other one may have it
        (lb("lb1", ("s1", "DOWN"), *UP[1:], vip=True), lb("lb2", *UP), {"lb1/backend:s1"}),
        (lb("lb1", *UP[1:], vip=True), lb("lb2", *UP), {"lb1/backend:s1"}),
        (lb("lb1", vip=True), lb("lb2", *UP), {"lb1/backend:haproxy"}),
    ],
)
def test_the_way_in(load: Callable[..., Cluster], one: HostFacts, two: HostFacts | None, told: set[str]) -> None:
    seen = {"lb1": one} | ({"lb2": two} if two else {})
    assert set(ids(load_balancers.differences(load(), seen))) == told


@pytest.mark.parametrize(
    ("health", "latency", "told"),
    [
        ({}, 19.5, set()),
        ({}, 21.25, {"latency:10.0.0.11:3306"}),
        ({"connections": (79, 100)}, 1, set()),
        ({"connections": (80, 100)}, 1, {"connections:datastore"}),
        ({"connections": (0, 0)}, 1, set()),
        ({"table": (1000001, 0)}, 1, {"table:kine"}),
        ({"table": (1, 5 << 30)}, 1, {"table:kine"}),
        ({"revisions": (200001, 100000)}, 1, {"compaction:revisions"}),
        ({"revisions": (5000, 4000)}, 1, set()),
        ({"alarms": ("NOSPACE",)}, 1, {"table:alarm"}),
        ({"etcd_size": (5 << 30, 1)}, 1, {"table:etcd"}),
    ],
)
def test_how_the_datastore_is_doing(
    load: Callable[..., Cluster], health: dict[str, Any], latency: float, told: set[str]
) -> None:
    facts = HostFacts("db1", latency={"10.0.0.11:3306": latency}, datastore_health=DatastoreHealth(**health))
    assert set(ids(datastore.differences(load(), {"db1": facts}, Limits()))) == {f"db1/{one}" for one in told}


def test_an_external_datastore_is_told_of_once_for_all_servers(load: Callable[..., Cluster]) -> None:
    health = DatastoreHealth(connections=(99, 100))
    seen = {name: HostFacts(name, datastore_health=health) for name in ("s1", "s2")}
    assert len(list(datastore.differences(load(), seen, Limits()))) == 1


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        (replace(RUNNING, active="failed"), "the unit has failed"),
        (replace(RUNNING, active="inactive"), "the unit is stopped"),
        (
            replace(RUNNING, active="activating", sub="auto-restart", restarts=7),
            "is restarted, 7 times so far",
        ),
        (replace(RUNNING, load="not-found", active="inactive"), "the unit does not exist"),
    ],
)
def test_why_a_unit_is_not_active(unit: UnitState, told: str) -> None:
    assert told in host._down(unit)


def test_room_and_inodes() -> None:
    space = (Space("/", 3906, 100, 1000), Space("/var/lib", 3, 900, 1000), Space("/run", 19, 1, 1000))
    seen = HostFacts("s1", space=space)
    assert {one.subject: one.found for one in host._disk("s1", seen)} == {
        "/var/lib": "3 MiB are free",
        "/run": "1 inodes are free",
    }


def known(key: str, until: date) -> KnownDifference:
    return KnownDifference(id=key, reason="planned", until=until)


def one_difference() -> Finding:
    return Finding(host="a2", kind="enabled", subject="k3s-agent.service", found="f", expected="e", remedy="t")


def test_what_is_known_is_accepted_until_its_last_day() -> None:
    today = date(2027, 1, 31)
    (found,), notes = compare.accepted([one_difference()], [known("a2/*", today)], today)
    assert (found.accepted, found.counts, notes) == ("planned", False, [])
    (found,), _ = compare.accepted([one_difference()], [known("a2/*", today)], today + timedelta(days=1))
    assert found.counts
    assert "accepted until 2027-01-31: planned" in found.found
    (found,), notes = compare.accepted([one_difference()], [known("a3/*", today)], today)
    assert found.counts
    assert "a3/* matches nothing" in notes[0]


def test_the_script_of_a_server_holds_the_token_only_encoded_and_none_in_a_command(
    load: Callable[..., Cluster],
) -> None:
    cluster = load()
    token = cluster.token.reveal()
    query = facts.Query(cluster, cluster.of("servers")[0], HostSpec(), drift=True)
    text = facts.script(query)
    assert token not in text
    (line,) = [line for line in text.splitlines() if line.startswith("fact_effective_config ")]
    head, tail = (base64.b64decode(part).decode() for part in line.split()[-2:])
    config = json.loads(head + "QQ==" + tail)
    assert config["users"][0]["user"] == {"username": "node", "password": token}
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"


def test_a_kubeconfig_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    assert kubeconfig_probe.probe(tmp_path / "kubeconfig").missing
    (tmp_path / "kubeconfig").write_text("clusters: []\n")
    assert "not a valid kubeconfig" in kubeconfig_probe.probe(tmp_path / "kubeconfig").error
    assert kubeconfig_probe.probe(tmp_path / "kubeconfig").expires is None


def test_names_behind_the_address(load: Callable[..., Cluster], tmp_path: Path) -> None:
    tried = KubeconfigAnswer(names=("kubernetes", "10.0.0.101"))
    told = ids(kubeconfig.differences(load(), "kubeconfig", tried, days=30))
    assert set(told) == {"cluster/names:10.0.0.100"}


def test_the_certificate_of_someone_else_s_datastore(load: Callable[..., Cluster]) -> None:
    expires = datetime.now(UTC) + timedelta(days=20, hours=1)
    file = CertificateFile("the datastore at 10.0.0.9:5432", expires, authority=False)
    seen = {name: HostFacts(name, datastore_certificates=(file,)) for name in ("s1", "s2")}
    (one,) = certificate_expiry.expiries(seen)
    (told,) = certificate_expiry.differences(load(), [one], days=30)
    assert told.id == "cluster/certificate:the datastore at 10.0.0.9:5432"
    assert told.found.startswith("expires in 20 days")
    assert "K3s cannot connect" in told.remedy
    assert not list(certificate_expiry.differences(load(), [one], days=15))


def test_certificates_that_end_soon_the_first_first(load: Callable[..., Cluster]) -> None:
    now = datetime.now(UTC)
    found = [
        CertificateExpiry(host="s1", path=name, ends=now + timedelta(days=days, hours=1), authority=name == "ca")
        for name, days in (("old", -2), ("soon", 10), ("ca", 20), ("later", 40))
    ]
    told = {one.subject: one for one in certificate_expiry.differences(load(), found, days=30)}
    assert set(told) == {"old", "soon", "ca"}
    assert told["old"].severity == "error"
    assert told["soon"].found.startswith("expires in 10 days")
    assert "renew it where it was made" in told["ca"].remedy


def test_k3s_own_cas_are_renewed_by_a_command(load: Callable[..., Cluster]) -> None:
    path = f"{k3s.DATA}/server/tls/server-ca.crt"
    one = CertificateExpiry(host="s1", path=path, ends=datetime.now(UTC) + timedelta(days=9), authority=True)
    assert "nornir-k3s rotate ca" in certificate_expiry.remedy(load(), one)


@pytest.mark.parametrize(
    ("host", "path", "remedy"),
    [
        ("s1", f"{k3s.DATA}/server/tls/client-admin.crt", "restart k3s.service"),
        ("a1", f"{k3s.DATA}/agent/client-kubelet.crt", "restart k3s-agent.service"),
        ("lb1", "/etc/haproxy/k3s-check.pem", "deploy: it renews"),
        ("db1", "/etc/mysql/nornir-k3s-cert.pem", "deploy: it renews"),
        ("s1", "/etc/rancher/k3s/datastore-certfile.pem", "deploy: it renews"),
    ],
)
def test_each_certificate_says_what_renews_it(load: Callable[..., Cluster], host: str, path: str, remedy: str) -> None:
    one = CertificateExpiry(host=host, path=path, ends=datetime.now(UTC) + timedelta(days=9, hours=1), authority=False)
    (told,) = certificate_expiry.differences(load(), [one], days=30)
    assert told.id == f"{host}/certificate:{path}"
    assert told.remedy.startswith(remedy)


@pytest.mark.parametrize(("waits", "severity"), [(True, "note"), (False, "error")])
def test_an_agent_that_is_starting_until_a_cni_runs_is_no_drift(
    load: Callable[..., Cluster], *, waits: bool, severity: str
) -> None:
    cluster = load({"server": {"flannel-backend": "none", "disable-network-policy": not waits}})
    facts = HostFacts("a1", units={"k3s-agent.service": replace(RUNNING, active="activating")})
    planned = plan_host(cluster, cluster.member("a1"), facts, Known())
    found = ids(host.differences(cluster, planned))
    assert found["a1/unit:k3s-agent.service"].severity == severity


def test_two_differences_with_one_id_are_both_told_and_the_same_twice_once(load: Callable[..., Cluster]) -> None:
    few = ("max_user_instances is 128", "max_user_watches is 8192")
    one, other = (
        Finding(host="a1", kind="check", subject="inotify", found=found, expected="more", remedy="", severity="warning")
        for found in few
    )
    assert compare.ordered([one, other, one]) == [one, other]
