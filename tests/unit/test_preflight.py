from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.checks import preflight
from nornir_k3s.checks.other_installs import SQLITE
from nornir_k3s.errors import InventoryError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CHECKS
from nornir_k3s.model.host_facts import FileState, HostFacts, Served, UnitState
from nornir_k3s.model.k3s_facts import NodeState, SettingsFile
from nornir_k3s.model.machine_facts import (
    Address,
    Mount,
    Nameserver,
    Neighbour,
    Reach,
    Route,
    Socket,
    System,
    Unreachable,
    VrrpRouter,
)
from nornir_k3s.model.paths import MOVING
from tests.unit.conftest import BOTH, HOSTS, ONLY_V6
from tests.unit.hosts import changed

Load = Callable[..., Cluster]
D = "/etc/rancher/k3s/config.yaml.d"
ETC, RESOLVED = k3s.RESOLV_CONFS


def healthy(cluster: Cluster) -> dict[str, HostFacts]:
    return {
        m.name: HostFacts(
            m.name,
            system=System(
                arch="x86_64", init="systemd", package_manager="apt", machine_id=f"id-{m.name}", hostname=m.name,
                disk_kib=10**7, memory_kib=4 * 1024 * 1024, inotify_instances=8192, cgroup="cgroup2fs",
            ),
            addresses=(Address("eth0", f"{m.address}/24"),),
            default_routes=("default via 10.0.0.1",),
            packages={"mariadb-server": "1:10.11"} if m.role == "datastore" else {},
        )
        for m in cluster.members
    }  # fmt: skip


def ids(cluster: Cluster, seen: dict[str, HostFacts]) -> set[tuple[str, str]]:
    """Return the findings, without the note that clusters with one datastore host have."""
    return {(f.host, f.subject) for f in preflight.check(cluster, seen)} - {("db1", "datastore-single")}


def test_healthy_hosts_have_no_findings(load: Load) -> None:
    cluster = load()
    assert ids(cluster, healthy(cluster)) == set()


ONE_OF_EACH: list[tuple[str, dict[str, Any], str]] = [
    ("s1", {"system": {"init": "other"}}, "systemd"),
    ("s1", {"capacity": {"systemd": "219"}}, "systemd"),
    ("s1", {"system": {"arch": "riscv64"}}, "architecture"),
    ("lb1", {"system": {"package_manager": ""}}, "packages"),
    ("lb1", {"repositories": {"broken": ("haproxy",)}}, "packages"),
    ("lb1", {"repositories": {"sources": 0}}, "packages"),
    ("lb1", {"others": (Served("haproxy", "frontend www"),)}, "in-use"),
    ("db1", {"others": (Served("mariadb", "database shop"),)}, "in-use"),
    ("lb1", {"ssh_sessions": 1}, "ssh-sessions"),
    ("s1", {"capacity": {"cpus": 1}}, "cpu"),
    ("s1", {"system": {"memory_kib": 1024 * 1024}}, "memory"),
    ("a1", {"system": {"memory_kib": 256 * 1024}}, "memory"),
    ("s1", {"system": {"disk_kib": 1000}}, "disk"),
    ("s1", {"mounts": (Mount(k3s.DATA, "ext2/ext3", 2 << 20, ("rw",)),)}, "disk"),
    ("s1", {"mounts": (Mount(k3s.DATA, "nfs", 9 << 20, ("rw",)),)}, "filesystem"),
    ("s1", {"mounts": (Mount("/usr/local/bin", "ext2/ext3", 9 << 20, ("rw", "noexec")),)}, "filesystem"),
    ("s1", {"addresses": (Address("eth0", "10.9.9.9/24"),)}, "address"),
    ("s2", {"system": {"hostname": "s1"}}, "hostname"),
    ("s1", {"system": {"hostname": "localhost.localdomain"}}, "hostname"),
    ("s2", {"system": {"machine_id": "id-s1"}}, "machine"),
    ("s1", {"skew": 10.0}, "clock"),
    ("s1", {"default_routes": ()}, "default-route"),
    ("a1", {"nameservers": (Nameserver(ETC, "127.0.0.53"),)}, "nameserver"),
    ("a1", {"kernel": {"controllers": ("cpu", "cpuset", "pids")}}, "cgroup"),
    ("a1", {"kernel": {"controllers": ("none",)}, "system": {"cgroup": "cgroup2fs"}}, "cgroup"),
    ("a1", {"kernel": {"modules": {"overlay": "no"}}}, "kernel"),
    ("a1", {"kernel": {"modules": {"br_netfilter": "disabled"}}}, "kernel"),
    ("a1", {"kernel": {"kmsg": False}}, "kmsg"),
    ("a1", {"kernel": {"watches": 8192}}, "inotify"),
    ("a1", {"system": {"inotify_instances": 128}}, "inotify"),
    ("a1", {"kernel": {"keys": 200}}, "keys"),
    ("a1", {"kernel": {"iptables": "iptables v1.8.3 (nf_tables)"}}, "iptables"),
    ("a1", {"firewalls": ("ufw",)}, "firewall"),
    ("a1", {"selinux": {"mode": "Enforcing"}}, "selinux"),
    ("s1", {"sockets": (Socket("*:6443", 'users:(("nginx",pid=1,fd=3))'),)}, "port"),
    ("a1", {"sockets": (Socket("0.0.0.0:10250", 'users:(("kubelet",pid=1,fd=3))'),)}, "port"),
    ("lb1", {"sockets": (Socket("0.0.0.0:6443", 'users:(("envoy",pid=1,fd=3))'),)}, "port"),
    ("a1", {"reach": (Reach("s1", "10.0.0.12:6443", "silent"),)}, "reach"),
    ("s1", {"addresses": (Address("eth0", "10.0.0.12/24"), Address("eth0", "10.0.0.100/24"))}, "vip"),
    ("lb1", {"neighbours": (Neighbour("10.0.0.100", "dev eth0 lladdr 52:54:00:12:34:56 REACHABLE"),)}, "vip"),
    ("lb1", {"addresses": (Address("eth0", "10.0.0.15/28"),)}, "vip-network"),
    ("lb2", {"vrrp": (VrrpRouter("10.0.0.7", "51", "3"), VrrpRouter("10.0.0.8", "52", "3"))}, "vrid"),
    ("a1", {"routes": (Route("10.42.7.0/24", "dev eth1"),)}, "cidr"),
    ("a1", {"present": {"/etc/systemd/system/k3s.service"}}, "role"),
    ("s1", {"present": {f"{k3s.DATA}/server/db/etcd/member/wal"}}, "embedded-etcd"),
    ("s1", {"foreign_units": ("k3s.service",)}, "foreign-k3s"),
    ("s1", {"foreign_units": ("rke2-server.service",)}, "other-kubernetes"),
    ("a1", {"foreign_units": ("k3s-other.service",)}, "other-kubernetes"),
    ("s1", {"extra_settings": (SettingsFile(f"{D}/x.yaml", ("debug", "token"), 1),)}, "extra-settings"),
    ("a1", {"extra_settings": (SettingsFile("/etc/default/k3s-agent", ("K3S_DATA_DIR",), 1),)}, "extra-settings"),
    ("s1", {"units": {"k3s.service": UnitState(command=f"{k3s.BINARY} server --cluster-init")}}, "extra-settings"),
    ("s1", {"present": {SQLITE}}, "sqlite"),
    ("s1", {"present": {MOVING}}, "moving"),
    ("s1", {"server": {"token": "0" * 12}}, "token"),
    ("s1", {"api": {"ready": True}, "files": {k3s.CONFIG: FileState("file", text="agent-token: x\n")}}, "agent-token"),
    ("db1", {"repositories": {"unavailable": ("mysql-server",)}}, "packages"),
    ("db1", {"database": {"bootstrap": {"/bootstrap/000000000000": 11833}}}, "foreign-data"),
    ("db1", {"database": {"versions": (("MariaDB", "11.8.3-MariaDB"),)}}, "datastore-version"),
]
# Found by tests of their own, below and in test_datastore_probe.py.
_ASKED = ("asked", "login", "tls", "rights", "settings", "collation", "pooler", "latency")
ASKED = {"datastore"} | {f"datastore-{what}" for what in _ASKED}
ELSEWHERE = {
    "left",
    "bootstrap",
    "name",
    "reimaged",
    "datastore-members",
    "datastore-moved",
    "datastore-shared",  # in test_shared_database.py
    "datastore-single",
    "interface",
    "leftovers",
    "for-ever",
    "encryption",
    "version",
    "skew",
    "traefik",
    "node-ready",
    "kube-system",
    "install-variables",
    "datastore-dump",
    "removed-argument",
    "feature-gate",
    "deprecated",
    "removed-api",
    "containerd-template",
    "no-agents",
    "cni",
    "named-file",
    "registration",  # in test_registration.py
    *ASKED,
}


def test_there_is_a_case_for_everything_the_preflight_looks_at() -> None:
    assert {case[2] for case in ONE_OF_EACH} | ELSEWHERE == set(CHECKS)


@pytest.mark.parametrize(("host", "change", "expected"), ONE_OF_EACH)
def test_each_problem_is_found_on_its_host(load: Load, host: str, change: dict[str, Any], expected: str) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen[host] = changed(seen[host], **change)
    assert (host, expected) in ids(cluster, seen)


def test_this_cluster_s_own_data_is_no_problem(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["db1"] = changed(seen["db1"], database={"bootstrap": {k3s.bootstrap_key(cluster.token): 11833}})
    seen["s1"] = changed(seen["s1"], server={"token": cluster.token.fingerprint()})
    assert ids(cluster, seen) == set()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("own", set()),
        ("another", {("db1", "foreign-data"), ("s2", "token")}),
        ("both", {("db1", "foreign-data"), ("s2", "token")}),
        ("lock", {("s2", "token")}),
        ("unknown", {("s2", "token")}),
    ],
)
def test_a_server_from_before_a_rotation_of_the_token_is_right_if_the_datastore_has_the_new_one(
    load: Load, data: str, expected: set[tuple[str, str]]
) -> None:
    cluster = load()
    own, another = {k3s.bootstrap_key(cluster.token): 11829}, {"/bootstrap/000000000000": 11833}
    sizes = {
        "own": own, "another": another, "both": own | another, "lock": dict.fromkeys(own, 0), "unknown": {},
    }  # fmt: skip
    seen = healthy(cluster)
    alive = data != "unknown"
    seen["db1"] = changed(seen["db1"], database={"alive": alive, "bootstrap": sizes[data]})
    seen["s1"] = changed(seen["s1"], api={"ready": True}, server={"token": cluster.token.fingerprint()})
    seen["s2"] = changed(seen["s2"], api={"ready": True}, server={"token": "0" * 12})
    found = {(f.host, f.subject): f for f in preflight.check(cluster, seen) if f.severity != "note"}
    assert set(found) == expected
    assert all("remove" not in one.remedy and "lost" not in one.remedy for one in found.values())


def test_a_server_of_another_cluster_is_none_from_before_a_rotation_of_the_token(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["db1"] = changed(seen["db1"], database={"alive": True, "bootstrap": {k3s.bootstrap_key(cluster.token): 11829}})
    own = {"token": cluster.token.fingerprint(), "ca_certificate": ca("own")}
    seen["s1"] = changed(seen["s1"], api={"ready": True}, server=own)
    for theirs, expected in (("another", {("s2", "token")}), ("own", set())):
        old = {"token": "0" * 12, "ca_certificate": ca(theirs)}
        seen["s2"] = changed(seen["s2"], api={"ready": True}, server=old)
        found = preflight.check(cluster, seen)
        assert {(f.host, f.subject) for f in found if f.severity == "error"} == expected


def test_our_own_services_ports_are_no_problem(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    running = UnitState("loaded", "active", "running", "enabled")
    for host, local, program, unit in (
        ("s1", "*:6443", "k3s-server", "k3s.service"),
        ("lb1", "0.0.0.0:6443", "haproxy", "haproxy.service"),
    ):
        socket = Socket(local, f'users:(("{program}",pid=1,fd=3))')
        seen[host] = changed(seen[host], sockets=(socket,), units={unit: running})
    assert ids(cluster, seen) == set()


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [
        ((4.3, 0.1), (0, 0.1), True),
        ((4.3, 4.4), (0, 0.1), False),  # its answer took nine seconds
        ((0, 0.1), (-4.3, 4.4), False),  # those of the others did
        ((604.3, 4.4), (600, 0.1), False),  # the controller's own clock is wrong
        ((10, 4.4), (0, 2), True),
        ((-10, 4.4), (0, 2), True),
    ],
)
def test_a_clock_is_wrong_where_no_slow_answer_explains_it(
    load: Load, own: tuple[float, float], others: tuple[float, float], told: bool
) -> None:
    cluster = load()
    seen = {
        name: replace(facts, skew=skew, skew_error=margin)
        for name, facts in healthy(cluster).items()
        for skew, margin in [own if name == "s1" else others]
    }
    assert ids(cluster, seen) == ({("s1", "clock")} if told else set())


def test_cgroup_v1_is_refused_from_the_version_that_refuses_it(load: Load) -> None:
    for version, settings, expected in (
        ("v1.34.9+k3s1", {}, False),
        ("v1.35.0+k3s1", {}, True),
        ("v1.35.0+k3s1", {"kubelet-arg": ["fail-cgroupv1=false"]}, False),
        ("v1.35.0+k3s1", {"kubelet-arg": "--fail-cgroupv1=0"}, False),
        ("v1.35.0+k3s1", {"kubelet-arg": "fail-cgroupv1=true"}, True),
    ):
        cluster = load({"version": version, "server": settings, "agent": settings})
        seen = healthy(cluster)
        seen["s1"] = changed(seen["s1"], system={"cgroup": "tmpfs"})
        assert (("s1", "cgroup") in ids(cluster, seen)) is expected


def test_a_setting_of_the_role_is_one_of_each_of_its_hosts(load: Load) -> None:
    cluster = load({"agent": {"resolv-conf": "/etc/own", "prefer-bundled-bin": "true", "selinux": "1"}})
    seen = healthy(cluster)
    facts = {"kernel": {"iptables": "iptables v1.8.3 (nf_tables)"}, "selinux": {"mode": "Enforcing", "policy": True}}
    for host in ("s1", "a1"):
        seen[host] = changed(
            seen[host], nameservers=(Nameserver(ETC, "127.0.0.53"),), present=frozenset(["/etc/own"]), **facts
        )
    assert ids(cluster, seen) == {("s1", check) for check in ("nameserver", "iptables", "selinux")}


@pytest.mark.parametrize(
    ("etc", "resolved", "severity"),
    [
        (["127.0.0.53"], ["192.168.1.1"], ""),  # Ubuntu: K3s takes systemd-resolved's own file
        (["10.0.0.2", "fd00::53"], None, ""),
        ([], ["10.0.0.2"], ""),
        (["127.0.0.53"], None, "warning"),
        (["10.0.0.2", "127.0.0.53"], None, "warning"),  # one is enough for K3s to drop the file
        (["10.0.0.2", "::1"], ["fe80::1%eth0", "10.0.0.2"], "warning"),
        (["169.254.1.1"], None, "warning"),
        (["224.0.0.251"], None, "warning"),
        (["::ffff:127.0.0.1"], None, "warning"),
        (["dns.example.org"], None, "warning"),
        ([], None, "note"),
    ],
)
def test_name_servers_are_taken_as_k3s_takes_them(
    load: Load, etc: list[str], resolved: list[str] | None, severity: str
) -> None:
    cluster = load()
    seen = healthy(cluster)
    rows = [Nameserver(ETC, one) for one in etc or [""]] + [Nameserver(RESOLVED, one) for one in resolved or []]
    seen["a1"] = changed(seen["a1"], nameservers=tuple(rows))
    found = {one.subject: one.severity for one in preflight.check(cluster, seen) if one.subject != "datastore-single"}
    assert found == ({"nameserver": severity} if severity else {})


def test_a_host_s_own_arguments_hide_those_of_its_role(load: Load) -> None:
    version = {"version": "v1.35.0+k3s1", "server": {"kubelet-arg": ["fail-cgroupv1=false"]}}
    cluster = load(version, s1={"kubelet-arg": ["max-pods=9"]}, s2={"kubelet-arg+": ["max-pods=9"]})
    seen = {name: changed(facts, system={"cgroup": "tmpfs"}) for name, facts in healthy(cluster).items()}
    assert ids(cluster, seen) & {("s1", "cgroup"), ("s2", "cgroup")} == {("s1", "cgroup")}


def test_what_a_cluster_can_never_change_is_refused(load: Load) -> None:
    cluster = load({"server": {"cluster-cidr": "10.50.0.0/16"}})
    seen = healthy(cluster)
    files = {k3s.CONFIG: FileState("file", text="cluster-cidr:\n- 10.42.0.0/16\n")}
    seen["s1"] = changed(seen["s1"], api={"ready": True}, files=files)
    assert ids(cluster, seen) == {("s1", "for-ever")}


@pytest.mark.parametrize(("running", "wanted"), [("", True), ("secrets-encryption: true\n", False)])
def test_encryption_of_secrets_is_turned_on_or_off_in_a_running_cluster_only_with_all_servers(
    load: Load, running: str, *, wanted: bool
) -> None:
    cluster = load({"server": {"secrets-encryption": wanted}})
    seen = healthy(cluster)
    files = {k3s.CONFIG: FileState("file", text=running)}
    units = {"k3s.service": UnitState("loaded", "active")}
    seen["s1"] = changed(seen["s1"], api={"ready": True}, files=files, units=units)
    assert ids(cluster, seen) == {("cluster", "encryption")}, "s2 is not ready"
    seen["s2"] = changed(seen["s2"], api={"ready": True}, files=files, units=units)
    (note,) = (f for f in preflight.check(cluster, seen) if f.subject == "encryption")
    assert note.severity == "note"
    same = load({"server": {"secrets-encryption": not wanted}})
    assert ids(same, seen) == set()


def test_networks_in_another_form_are_the_same(load: Load) -> None:
    cluster = load(
        {"server": {"cluster-cidr": "10.42.0.0/16, fd00:42::/56", "service-cidr": "10.43.0.0/16,fd00:43::/112"}}, **BOTH
    )
    seen = healthy(cluster)
    assert ids(cluster, seen) == {(name, "address") for name in BOTH}, "the hosts have no IPv6 address yet"
    for name, own in BOTH.items():
        seen[name] = changed(seen[name], addresses=tuple(Address("eth0", f"{one}/24") for one in own["node-ip"]))
    text = "cluster-cidr: 10.42.0.0/16,fd00:42::/56\nservice-cidr: [10.43.0.0/16, fd00:43::/112]\n"
    seen["s1"] = changed(seen["s1"], api={"ready": True}, files={k3s.CONFIG: FileState("file", text=text)})
    assert ids(cluster, seen) == set()


def test_the_default_networks_of_ipv6_are_those_of_k3s(load: Load) -> None:
    cluster = load({"registration": {"address": "fd00::100"}, "server": {}}, hosts=ONLY_V6)
    seen = {name: changed(one, addresses=(Address("eth0", f"{cluster.member(name).address}/64"),))
            for name, one in healthy(cluster).items()}  # fmt: skip
    assert ids(cluster, seen) == set()
    seen["s1"] = changed(seen["s1"], routes=(Route("fd00:42:0:7::/64", "dev eth1"),))
    assert ids(cluster, seen) == {("s1", "cidr")}
    written = FileState("file", text="cluster-cidr: fd00:42::/56\n")
    seen["s1"] = changed(seen["s1"], routes=(), api={"ready": True}, files={k3s.CONFIG: written})
    assert ids(cluster, seen) == set()


def test_a_cluster_without_flannel_is_told_that_it_waits_for_a_cni(load: Load) -> None:
    cluster = replace(load(), server={"flannel-backend": "none", "disable-network-policy": True})
    (finding,) = (one for one in preflight.check(cluster, healthy(cluster)) if one.subject == "cni")
    assert finding.severity == "note"
    assert "no pods are scheduled, until a CNI runs" in finding.found


def ca(*names: str) -> str:
    """A file with these certificates."""
    return "".join(f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in names)


@pytest.mark.parametrize(
    ("own", "ready", "level"),
    [
        (ca("new", "root", "old"), True, ""),
        (ca("old"), True, "warning"),
        (ca("old"), False, "warning"),
        (ca("forced"), True, "warning"),
        (ca("another"), False, "error"),
    ],
    ids=["rotated", "to be restarted", "stopped meanwhile", "another, running", "of a failed start"],
)
def test_a_server_with_another_ca_is_from_before_its_rotation_or_of_a_failed_start(
    load: Load, own: str, ready: bool, level: str
) -> None:
    cluster = load()
    seen = healthy(cluster)
    token = cluster.token.fingerprint()
    rotated = {"token": token, "ca_certificate": ca("new", "root", "old")}
    seen["s1"] = changed(seen["s1"], api={"ready": True}, server=rotated)
    seen["s2"] = changed(seen["s2"], api={"ready": ready}, server={"token": token, "ca_certificate": own})
    findings = [f for f in preflight.check(cluster, seen) if f.severity != "note"]
    found = [(f.host, f.subject, f.level, f.remedy) for f in findings]
    assert [one[:3] for one in found] == ([("s2", "leftovers", level)] if level else [])
    assert all("remove" not in one[3] for one in found)
    assert all(("restart k3s" if level == "warning" else "move") in one[3] for one in found)


def test_what_is_harmless_is_no_finding(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["a1"] = changed(
        seen["a1"],
        reach=(Reach("s1", "10.0.0.12:6443", "closed"), Reach("s2", "10.0.0.13:6443", "open")),
        kernel={"iptables": "iptables v1.8.9 (nf_tables)", "modules": {"overlay": "yes", "iptable_nat": "unknown"}},
        nameservers=(Nameserver(ETC, "127.0.0.53"), Nameserver(RESOLVED, "10.0.0.2")),
        routes=(Route("10.0.0.0/24", "dev eth0"), Route("172.17.0.0/16", "dev docker0")),
        mounts=(Mount(k3s.DATA, "ext2/ext3", 50 << 20, ("rw", "relatime")),),
    )
    seen["lb1"] = changed(seen["lb1"], repositories={"sources": 4})
    assert ids(cluster, seen) == set()


def test_the_vip_on_one_of_our_load_balancers_is_not_taken(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    addresses = (*seen["lb1"].addresses, Address("eth0", "10.0.0.100/32"))
    seen["lb1"] = changed(seen["lb1"], addresses=addresses)
    neighbour = Neighbour("10.0.0.100", "dev eth0 lladdr 52:54:00:12:34:56 REACHABLE")
    seen["lb2"] = changed(seen["lb2"], neighbours=(neighbour,))
    assert ids(cluster, seen) == set()


def test_a_warning_is_accepted_by_id_and_an_error_never(load: Load) -> None:
    cluster = load({"accept": ["inotify", "s1:memory", "port"]})
    seen = healthy(cluster)
    for name in ("s1", "s2"):
        seen[name] = changed(seen[name], system={"inotify_instances": 128, "memory_kib": 10**6})
    seen["a1"] = changed(seen["a1"], sockets=(Socket("0.0.0.0:10250", 'users:(("kubelet",pid=1,fd=3))'),))
    levels = {(f.host, f.subject): f.level for f in preflight.check(cluster, seen) if f.level != "note"}
    assert levels == {
        ("s1", "inotify"): "accepted",
        ("s2", "inotify"): "accepted",
        ("s1", "memory"): "accepted",
        ("s2", "memory"): "warning",
        ("a1", "port"): "error",
    }


def test_a_load_balancer_without_the_interface_it_is_to_use(load: Load) -> None:
    cluster = load(lb1={"interface": "eth7"})
    assert ids(cluster, healthy(cluster)) == {("lb1", "interface")}


def test_a_datastore_without_a_host_that_takes_over_is_noted(load: Load) -> None:
    def noted(cluster: Cluster) -> list[tuple[str, str]]:
        found = preflight.check(cluster, healthy(cluster))
        return [(one.host, one.severity) for one in found if one.subject == "datastore-single"]

    assert noted(load()) == [("db1", "note")]
    more = {"db2": ("10.0.0.31", "datastore"), "db3": ("10.0.0.32", "datastore")}
    etcd = {"datastore": {"kind": "etcd"}}
    assert noted(load(etcd)) == [("db1", "note")]
    assert noted(load(etcd, hosts={**HOSTS, **more})) == []


def test_servers_that_keep_workloads_off_need_agents(load: Load) -> None:
    hosts = {name: where for name, where in HOSTS.items() if name != "a1"}
    cluster = load(hosts=hosts)
    assert ids(cluster, healthy(cluster)) == {("s1", "no-agents")}
    cluster = load({"server_taint": False}, hosts=hosts)
    assert ids(cluster, healthy(cluster)) == set()


@pytest.mark.parametrize(
    ("running", "found"),
    [("v1.34.9+k3s1", False), ("v1.33.2+k3s1", False), ("v1.35.0+k3s1", True), ("v1.32.4+k3s1", True)],
)
def test_versions_go_neither_back_nor_over_a_minor_one(load: Load, running: str, found: bool) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["s1"] = changed(seen["s1"], api={"ready": True, "nodes": (NodeState("a1", ready=True, version=running),)})
    assert (("a1", "version") in ids(cluster, seen)) is found


def test_an_agent_with_another_cluster_s_ca(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["s1"] = changed(seen["s1"], api={"ready": True}, server={"ca_certificate": "this cluster's\n"})
    seen["a1"] = changed(seen["a1"], agent_ca=hashlib.sha256(b"another's\n").hexdigest())
    assert ("a1", "leftovers") in ids(cluster, seen)
    seen["a1"] = changed(seen["a1"], agent_ca=hashlib.sha256(b"this cluster's\n").hexdigest())
    assert ids(cluster, seen) == set()


OUTSIDE = {"datastore": {"kind": "postgresql", "hosts": ["10.0.0.8", "10.0.0.9"], "password": {"env": "PW"}}}


@pytest.fixture
def outside(load: Load, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster on a datastore someone else runs."""
    monkeypatch.setenv("PW", "hush-hush-hush")
    return load(OUTSIDE, hosts={name: host for name, host in HOSTS.items() if host[1] != "datastore"})


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("Connection refused", "Connection refused; expected: a connection -> check that the datastore is running"),
        ("Name or service not known", "not known; expected: a connection -> check the datastore's host name"),
        ("", "no answer"),
    ],
)
def test_a_datastore_that_a_server_cannot_reach(outside: Cluster, why: str, words: str) -> None:
    seen = healthy(outside)
    seen["s2"] = changed(seen["s2"], unreachable=(Unreachable("10.0.0.9:5432", why),))
    found = [finding for finding in preflight.check(outside, seen) if finding.subject == "datastore"]
    assert [(f.host, f.severity) for f in found] == [("s2", "error")]
    assert words in str(found[0])
    seen["s2"] = changed(seen["s2"], database={"alive": True})  # another of its hosts
    assert [f.severity for f in preflight.check(outside, seen) if f.subject == "datastore"] == ["warning"]


def test_whose_data_someone_else_s_datastore_holds(outside: Cluster) -> None:
    seen, own = healthy(outside), k3s.bootstrap_key(outside.token)
    for name in ("s1", "s2"):
        seen[name] = changed(seen[name], database={"alive": True, "bootstrap": {"/bootstrap/000000000000": 9}})
    assert ids(outside, seen) == {(name, "foreign-data") for name in ("s1", "s2")}
    for name in ("s1", "s2"):
        seen[name] = changed(seen[name], database={"bootstrap": {own: 0}})
    assert ids(outside, seen) == {(name, "bootstrap") for name in ("s1", "s2")}
    for name in ("s1", "s2"):
        seen[name] = changed(seen[name], database={"bootstrap": {}}, api={"ready": name == "s1"})
    assert {id_ for _, id_ in ids(outside, seen)} == {"datastore-moved"}
    seen["s1"] = changed(seen["s1"], api={"ready": False})
    assert ids(outside, seen) == set()


@pytest.mark.parametrize(
    ("inside", "packages", "refused"),
    [
        ({"alive": True}, {"mariadb-server": "1"}, True),
        ({}, {}, True),
        ({}, {"mariadb-server": "1"}, False),  # it is down: who knows
        ({"alive": True, "bootstrap": "own"}, {"mariadb-server": "1"}, False),
    ],
)
def test_a_living_cluster_is_not_led_to_an_empty_datastore(
    load: Load, inside: dict[str, Any], packages: dict[str, str], refused: bool
) -> None:
    cluster = load()
    seen = healthy(cluster)
    own = k3s.bootstrap_key(cluster.token)
    inside = {**inside, "bootstrap": {own: 9} if "bootstrap" in inside else {}}
    seen["db1"] = changed(seen["db1"], database=inside, packages=packages)
    assert ("db1", "datastore-moved") not in ids(cluster, seen), "no server runs"
    seen["s1"] = changed(seen["s1"], api={"ready": True})
    assert (("db1", "datastore-moved") in ids(cluster, seen)) == refused


def test_an_etcd_has_the_inventory_s_members_and_their_data(load: Load) -> None:
    hosts = {**HOSTS, "db2": ("10.0.0.21", "datastore"), "db3": ("10.0.0.22", "datastore")}
    cluster = load({"datastore": {"kind": "etcd"}}, hosts=hosts)
    seen = healthy(cluster)
    members = frozenset(("db1", "db2", "db3"))
    for name in members:
        seen[name] = changed(seen[name], database={"members": members, "has_data": True})
    assert ids(cluster, seen) == set()
    seen["db3"] = changed(seen["db3"], database={"members": frozenset(), "has_data": False})
    assert ids(cluster, seen) == {("db3", "datastore-members")}
    seen["db1"] = changed(seen["db1"], database={"members": frozenset(("db1", "db2", "old"))})
    assert ("db1", "datastore-members") in ids(cluster, seen)


NAMED = {"registration": {"address": "10.0.0.100", "name": "k3s.example.org"}}


def test_every_server_and_agent_resolves_the_registration_name(load: Load) -> None:
    cluster = load(NAMED)
    seen = {name: changed(one, names={"k3s.example.org": ("10.0.0.100",)}) for name, one in healthy(cluster).items()}
    assert ids(cluster, seen) == set()
    seen["a1"] = changed(seen["a1"], names={"k3s.example.org": ()})
    seen["s2"] = changed(seen["s2"], names={"k3s.example.org": ("192.0.2.1",)})
    found = {one.host: one for one in preflight.check(cluster, seen) if one.subject == "name"}
    assert {name: one.severity for name, one in found.items()} == {"a1": "error", "s2": "warning"}
    assert found["a1"].found == "it cannot resolve k3s.example.org, the registration address"
    assert "add the name to DNS, or `10.0.0.100 k3s.example.org` to /etc/hosts" in found["a1"].remedy
    assert "to 192.0.2.1" in found["s2"].found
    for addresses, severity in ((("127.0.1.1", "::1"), "error"), (("10.0.0.100", "10.0.0.5"), "warning")):
        seen["s2"] = changed(seen["s2"], names={"k3s.example.org": addresses})
        (one,) = [one for one in preflight.check(cluster, seen) if (one.host, one.subject) == ("s2", "name")]
        assert (one.severity, ", ".join(addresses) in one.found) == (severity, True)


def test_names_of_a_datastore_and_of_a_mirror_are_those_of_their_users(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", "hush-hush-hush")
    mirror = {"artifacts": {"url": "https://mirror.example.org/k3s", "push": False}}
    outside = {"datastore": {"kind": "postgresql", "hosts": ["db.example.org", "10.0.0.9"], "password": {"env": "PW"}}}
    cluster = load({**mirror, **outside}, hosts={name: one for name, one in HOSTS.items() if one[1] != "datastore"})
    nothing = {"db.example.org": (), "mirror.example.org": ()}
    seen = {name: changed(one, names=nothing) for name, one in healthy(cluster).items()}
    found = [one for one in preflight.check(cluster, seen) if one.subject == "name"]
    assert sorted((one.host, one.found.rpartition(", ")[2], one.severity) for one in found) == [
        ("a1", "the mirror of K3s", "error"),
        *((name, what, "error") for name in ("s1", "s2") for what in ("the datastore", "the mirror of K3s")),
    ]


def test_a_host_that_was_installed_anew_is_told_the_command(load: Load) -> None:
    cluster = load(a1={"node-name": "worker-1"})
    seen = healthy(cluster)
    nodes = tuple(NodeState(name, ready=True, version="") for name in ("s1", "s2", "worker-1"))
    seen["a1"] = changed(seen["a1"], node_password=False)
    seen["s2"] = changed(seen["s2"], node_password=False)
    assert ids(cluster, seen) == set(), "a new cluster"
    seen["s1"] = changed(seen["s1"], api={"ready": True, "nodes": nodes[:1]})
    assert ids(cluster, seen) == set(), "they join for the first time"
    seen["s1"] = changed(seen["s1"], api={"ready": True, "nodes": nodes})
    found = {one.host: one for one in preflight.check(cluster, seen) if one.subject == "reimaged"}
    assert set(found) == {"a1", "s2"}
    assert "on s1: k3s kubectl delete node worker-1; " in found["a1"].remedy
    assert "delete secret worker-1.node-password.k3s --ignore-not-found" in found["a1"].remedy


def test_services_of_others_are_taken_over_only_if_the_inventory_says_so(load: Load) -> None:
    served = (*(Served("mariadb", f"database d{number}") for number in range(7)),)
    for names, severity in (([], "error"), (["lb1"], "error"), (["db1"], "note")):
        cluster = load({"take_over": names})
        seen = healthy(cluster)
        seen["db1"] = changed(seen["db1"], others=served)
        (one,) = (one for one in preflight.check(cluster, seen) if one.subject == "in-use")
        assert one.severity == severity
        assert one.found.startswith("mariadb on this host serves others: database d0, ")
        assert one.found.endswith("and 2 more")
        assert "take_over" in one.remedy


def test_take_over_names_hosts_of_the_inventory(load: Load) -> None:
    with pytest.raises(InventoryError, match="there is no host 'db7'"):
        load({"take_over": ["db7"]})


@pytest.mark.parametrize(("error", "told"), [(0.0, True), (0.1, True), (0.5, False), (13.0, False)])
def test_a_clock_that_was_read_too_slowly_is_no_problem(load: Load, error: float, *, told: bool) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["s1"] = changed(seen["s1"], skew=3.2, skew_error=error)
    assert (("s1", "clock") in ids(cluster, seen)) is told
