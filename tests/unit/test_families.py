"""Families of distributions: what a host of each must look like, what its plan is, and what one cannot have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nornir_k3s import facts
from nornir_k3s.apply import script
from nornir_k3s.checks import host as checks
from nornir_k3s.facts import Query
from nornir_k3s.model import family
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.machine_facts import System
from nornir_k3s.planner import PlannedHost, plan_host
from nornir_k3s.roles import datastore, former, haproxy, keepalived
from nornir_k3s.roles.desired import Known, desired

from .test_managed_datastores import DATABASES, MEMBERS

Load = Callable[..., Cluster]
ROCKY = ("rocky", "rhel", "centos", "fedora")
LIKE_RHEL = [("rhel", "fedora"), ROCKY, ("almalinux", "rhel", "centos", "fedora"), ("centos", "rhel"), ("ol", "fedora")]


@pytest.mark.parametrize("distribution", [("debian",), ("ubuntu", "debian"), ("raspbian", "debian"), ("pop", "ubuntu")])
def test_debian_and_what_is_like_it(distribution: tuple[str, ...]) -> None:
    assert family.of(distribution, ["apt", "dnf"]) is family.DEBIAN


@pytest.mark.parametrize("distribution", LIKE_RHEL)
def test_rhel_and_what_is_like_it_also_with_apt_installed(distribution: tuple[str, ...]) -> None:
    assert family.of(distribution, ["apt", "dnf"]) is family.RHEL


def test_another_distribution_is_taken_by_its_package_manager() -> None:
    assert family.of(["fedora"], ["dnf"]) is family.RHEL
    assert family.of([], ["apt"]) is family.DEBIAN
    assert family.of(["opensuse-leap", "suse"], []) is None


def host(name: str, distribution: tuple[str, ...] = ROCKY, manager: str = "dnf") -> HostFacts:
    system = System("x86_64", hostname=name, init="systemd", package_manager=manager, os_name="Rocky Linux 9.6")
    return HostFacts(name, system=system, distribution=distribution)


def planned(cluster: Cluster, seen: HostFacts) -> PlannedHost:
    return plan_host(cluster, cluster.member(seen.host), seen, Known())


def ids(plan: PlannedHost) -> list[str]:
    return [step.id for step in plan.steps]


@pytest.mark.parametrize(
    ("kind", "package", "unit", "config"),
    [
        ("mariadb", "mariadb-server mariadb", "mariadb.service", "/etc/my.cnf.d/zz-nornir-k3s.cnf"),
        ("mysql", "mysql-server mysql", "mysqld.service", "/etc/my.cnf.d/zz-nornir-k3s.cnf"),
        ("postgresql", "postgresql-server postgresql", "postgresql.service", "/var/lib/pgsql/data/postgresql.conf"),
    ],
)
def test_a_datastore_of_the_rhel_family(load: Load, kind: str, package: str, unit: str, config: str) -> None:
    cluster = load({"datastore": {"kind": kind}})
    seen = host("db1")
    found = ids(planned(cluster, seen))
    assert found[0] == f"packages:{package}"
    assert f"file:{config}" in found
    assert f"unit:{unit}" in found
    assert not [one for one in found if "/etc/mysql" in one or "/etc/postgresql" in one]
    text = facts.script(
        Query(
            cluster, cluster.member("db1"), desired(cluster, cluster.member("db1"), seen, Known()), family=seen.family
        )
    )
    assert f"fact_packages dnf {package}" in text
    assert f"is-active -q {unit} " in text
    main = package.split(maxsplit=1)[0]
    assert f"fact_others /var/lib/nornir-k3s {kind} k3s {main} {unit}" in text


def test_the_last_file_that_mysql_reads_is_ours() -> None:
    for kind, others in (("mariadb", "mariadb-server.cnf"), ("mysql", "mysql-server.cnf")):
        assert family.RHEL.service(kind).config.rpartition("/")[2] > others


def test_postgresql_of_the_rhel_family_gets_its_data_folder_once_and_keeps_the_settings_of_its_file(load: Load) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    folder = "/var/lib/pgsql/data"
    bare = host("db1")
    steps = planned(cluster, bare).stage
    assert [step.id for step in steps] == ["packages:postgresql-server postgresql", f"database:{folder}"]
    made = script.script(steps, planned(cluster, bare).desired).reveal()
    assert f"initialize {folder}/PG_VERSION 'postgresql-setup --initdb'" in made
    config = next(one for one in planned(cluster, bare).desired.files if one.path == f"{folder}/postgresql.conf")
    first = config.text.reveal().splitlines()[1]
    assert first == f"include_if_exists = '{folder}/postgresql.conf.before-nornir-k3s'", "ours come after, and count"
    done = replace(bare, present=frozenset([f"{folder}/PG_VERSION"]))
    assert f"database:{folder}" not in ids(planned(cluster, done))
    lost = replace(bare, ledger=replace(bare.ledger, files=frozenset([f"{folder}/postgresql.conf"])))
    assert f"database:{folder}" not in ids(planned(cluster, lost)), "a disk that is not mounted gets no new data"


def test_a_load_balancer_of_the_rhel_family(load: Load) -> None:
    cluster = load()
    seen = replace(host("lb1"), booleans={"haproxy_connect_any": "off"})
    plan = planned(cluster, seen)
    assert "packages:haproxy perl-interpreter perl-IO perl-Socket perl-Time-HiRes keepalived" in ids(plan)
    assert "selinux:haproxy_connect_any" in ids(plan)
    texts = {file.path: file.text.reveal() for file in plan.desired.files}
    assert "stats socket /var/lib/haproxy/stats mode 600 level admin" in texts[haproxy.CONFIG]
    assert 'script "/usr/libexec/keepalived/nornir-k3s-check 8405"' in texts[keepalived.CONFIG]
    assert {"/usr/libexec/keepalived/nornir-k3s-check", "/usr/libexec/keepalived/nornir-k3s-notify"} < set(texts)
    assert "allow haproxy_connect_any" in script.script(plan.stage, plan.desired).reveal()
    on = replace(seen, booleans={"haproxy_connect_any": "on"})
    assert "selinux:haproxy_connect_any" not in ids(planned(cluster, on))
    assert "selinux:haproxy_connect_any" not in ids(planned(cluster, replace(seen, booleans={}))), "not enforcing"
    stops = former.load_balancer_steps(["/usr/libexec/keepalived/nornir-k3s-check"])
    assert stops[-1].id == "remove:/usr/libexec/keepalived/nornir-k3s-check"


def test_a_load_balancer_of_debian_is_as_before(load: Load) -> None:
    cluster = load()
    plan = planned(cluster, host("lb1", ("debian",), "apt"))
    assert "packages:haproxy keepalived" in ids(plan)
    assert plan.desired.booleans == ()
    texts = {file.path: file.text.reveal() for file in plan.desired.files}
    assert "stats socket /run/haproxy/admin.sock mode 600 level admin" in texts[haproxy.CONFIG]
    assert "/etc/keepalived/nornir-k3s-check" in texts


def findings(cluster: Cluster, seen: HostFacts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in checks.check(cluster, cluster.member(seen.host), seen):
        found.setdefault(one.subject, []).append(str(one))
    return found


def test_a_family_without_the_datastore_is_refused_and_told_what_to_do(load: Load) -> None:
    cluster = load({"datastore": {"kind": "etcd"}}, hosts=MEMBERS)
    seen = host("db1")
    assert ids(planned(cluster, seen)) == []
    (text,) = findings(cluster, seen)["packages"]
    assert text.startswith("db1: Rocky Linux 9.6 has no package of etcd; expected: a package of etcd -> use Debian and")
    assert "docs/datastores/etcd.md" in text
    for kind in DATABASES:
        assert "packages" not in findings(load({"datastore": {"kind": kind}}), seen)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (host("lb1", ("opensuse-leap", "suse"), ""), "the package manager is not apt or dnf"),
        (host("lb1", ("centos", "rhel"), ""), "the package manager is not dnf"),
        (replace(host("lb1"), repositories=replace(host("lb1").repositories, sources=0)), "dnf has no package sources"),
        (replace(host("lb1"), repositories=replace(host("lb1").repositories, broken=("haproxy",))), "dnf check"),
    ],
)
def test_messages_name_the_host_s_own_package_manager(load: Load, seen: HostFacts, words: str) -> None:
    (text,) = findings(load(), seen)["packages"]
    assert words in text
    assert "dpkg" not in text


def test_a_firewall_is_named_with_what_each_role_needs(load: Load) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    for name, needs in {
        "lb1": "6443/tcp, VRRP (IP protocol 112)",
        "db1": "5432/tcp",
        "a1": "6443/tcp, 10250/tcp, 8472/udp and the pod and service networks",
    }.items():
        seen = replace(host(name), firewalls=("firewalld",))
        (text,) = findings(cluster, seen)["firewall"]
        assert f"stop firewalld, or allow {needs} in it" in text


@pytest.mark.parametrize("kind", datastore.KINDS)
def test_files_of_a_datastore_are_never_obsolete_files_of_a_node(load: Load, kind: str) -> None:
    for service in family.every(kind):
        assert service.at("17").config.startswith(former.OTHERS)
        assert f"{service.at('17').folder}/nornir-k3s-key.pem".startswith(former.OTHERS)
