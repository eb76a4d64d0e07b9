from __future__ import annotations

from collections.abc import Callable

import pytest

from nornir_k3s import k3s, preflight
from nornir_k3s.cluster import Cluster
from nornir_k3s.observed import FileState, Observed, UnitState

Load = Callable[..., Cluster]


def healthy(cluster: Cluster) -> dict[str, Observed]:
    return {
        m.name: Observed(
            m.name, arch="x86_64", init="systemd", manager="apt", machine=f"id-{m.name}", hostname=m.name,
            addresses=[("eth0", f"{m.address}/24")], defaults=["default via 10.0.0.1"], disk_kib=10**7,
            memory_kib=4 * 1024 * 1024, inotify=8192, cgroup="cgroup2fs",
        )
        for m in cluster.members
    }  # fmt: skip


def ids(cluster: Cluster, seen: dict[str, Observed]) -> set[tuple[str, str]]:
    return {(f.host, f.id) for f in preflight.check(cluster, seen)}


def test_healthy_hosts_have_no_findings(load: Load) -> None:
    cluster = load()
    assert ids(cluster, healthy(cluster)) == set()


@pytest.mark.parametrize(
    ("host", "change", "expected"),
    [
        ("s1", {"init": "other"}, "systemd"),
        ("s1", {"arch": "riscv64"}, "architecture"),
        ("lb1", {"manager": ""}, "packages"),
        ("s1", {"defaults": []}, "default-route"),
        ("s1", {"addresses": [("eth0", "10.9.9.9/24")]}, "address"),
        ("s1", {"listening": [("*:6443", 'users:(("nginx",pid=1,fd=3))')]}, "port"),
        ("lb1", {"listening": [("0.0.0.0:6443", 'users:(("envoy",pid=1,fd=3))')]}, "port"),
        ("a1", {"present": {"/etc/systemd/system/k3s.service"}}, "role"),
        ("s1", {"present": {f"{k3s.DATA}/server/db/etcd/member/wal"}}, "embedded-etcd"),
        ("s2", {"machine": "id-s1"}, "machine"),
        ("s1", {"skew": 10.0}, "clock"),
        ("s1", {"token": "0" * 12}, "token"),
        ("s1", {"disk_kib": 1000}, "disk"),
        ("s2", {"unreachable": ["10.0.0.9:5432"]}, "datastore"),
        ("db1", {"database": [("bootstrap", "/bootstrap/000000000000", "11833")]}, "foreign-data"),
    ],
)
def test_each_problem_is_found_on_its_host(load: Load, host: str, change: dict[str, object], expected: str) -> None:
    cluster = load()
    seen = healthy(cluster)
    for key, value in change.items():
        setattr(seen[host], key, value)
    assert (host, expected) in ids(cluster, seen)


def test_this_cluster_s_own_data_is_no_problem(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["db1"].database = [("bootstrap", k3s.bootstrap_key(cluster.token), "11833")]
    seen["s1"].token = cluster.token.fingerprint()
    assert ids(cluster, seen) == set()


def test_our_own_services_ports_are_no_problem(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["s1"].listening = [("*:6443", 'users:(("k3s-server",pid=1,fd=3))')]
    seen["s1"].units["k3s.service"] = UnitState("loaded", "active", "running", "enabled")
    seen["lb1"].listening = [("0.0.0.0:6443", 'users:(("haproxy",pid=1,fd=3))')]
    seen["lb1"].units["haproxy.service"] = UnitState("loaded", "active", "running", "enabled")
    assert ids(cluster, seen) == set()


def test_cgroup_v1_is_refused_from_the_version_that_refuses_it(load: Load) -> None:
    for version, settings, expected in (
        ("v1.34.9+k3s1", {}, False),
        ("v1.35.0+k3s1", {}, True),
        ("v1.35.0+k3s1", {"kubelet-arg": ["fail-cgroupv1=false"]}, False),
    ):
        cluster = load({"version": version, "server": settings, "agent": settings})
        seen = healthy(cluster)
        seen["s1"].cgroup = "tmpfs"
        assert (("s1", "cgroup") in ids(cluster, seen)) is expected


def test_what_a_cluster_can_never_change_is_refused(load: Load) -> None:
    cluster = load({"server": {"cluster-cidr": "10.50.0.0/16"}})
    seen = healthy(cluster)
    seen["s1"].ready = True
    seen["s1"].files[k3s.CONFIG] = FileState("file", text="cluster-cidr:\n- 10.42.0.0/16\n")
    assert ids(cluster, seen) == {("s1", "for-ever")}


def test_leftovers_with_another_ca_are_found(load: Load) -> None:
    cluster = load()
    seen = healthy(cluster)
    seen["s1"].ready, seen["s1"].ca_cert = True, "CA"
    seen["s2"].ca_cert = "ANOTHER"
    assert ids(cluster, seen) == {("s2", "leftovers")}
