"""Hosts with several roles: servers that are load balancers and the datastore, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nornir.core.inventory import Inventory, ParentGroups

from nornir_k3s import facts, k3s
from nornir_k3s.checks import preflight
from nornir_k3s.errors import InventoryError
from nornir_k3s.facts import Query
from nornir_k3s.inventory import cluster as inventory_cluster
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.host_facts import HostFacts, Ledger, UnitState
from nornir_k3s.model.machine_facts import Address, Socket
from nornir_k3s.planner import plan_host
from nornir_k3s.roles import haproxy as haproxy_role
from nornir_k3s.roles import keepalived
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store

from .conftest import HOSTS, SETTINGS, inventory

Load = Callable[..., Cluster]
MACHINES = {"m1": ("10.0.0.12", "servers"), "m2": ("10.0.0.13", "servers"), "m3": ("10.0.0.14", "servers")}
EVERYTHING = ("datastore", "servers", "lb")


def shared(roles: tuple[str, ...] = EVERYTHING, data: dict[str, Any] | None = None, **settings: Any) -> Inventory:
    """Return an inventory of three machines in these groups."""
    wanted = SETTINGS | {"datastore": {"kind": "etcd"}} | settings
    of_hosts = {name: {"k3s": own} for name, own in (data or {}).items()}
    made = inventory(wanted, MACHINES | {"a1": ("10.0.0.21", "agents")}, of_hosts)
    for name in MACHINES:
        made.hosts[name].groups = ParentGroups([made.groups[group] for group in roles])
    return made


def load(made: Inventory, folder: Path) -> Cluster:
    store = Store(folder / "state", base=folder)
    found = inventory_cluster.load(made, store=store, base=folder)
    store.commit()
    return found


def refused(made: Inventory, folder: Path) -> str:
    with pytest.raises(InventoryError) as caught:
        load(made, folder)
    return str(caught.value)


def haproxy(cluster: Cluster, member: Member) -> str:
    spec = desired(cluster, member, HostFacts("m1", addresses=(Address("eth0", "10.0.0.12/24"),)), Known())
    return next(file.text.reveal() for file in spec.files if file.path == haproxy_role.CONFIG)


def test_three_machines_have_every_role(tmp_path: Path) -> None:
    cluster = load(shared(), tmp_path)
    for role in EVERYTHING:
        assert [member.name for member in cluster.of(role)] == ["m1", "m2", "m3"]
    assert {member.role for member in cluster.of("lb")} == {"servers"}
    assert cluster.url == "https://10.0.0.100:7443"
    assert cluster.notes == ("registration.port is 7443: m1, m2, m3 run K3s, which has 6443",)
    spec = desired(cluster, cluster.member("m1"), None, Known())
    units = {unit.name for unit in spec.units}
    assert units == {"k3s.service", "haproxy.service", "keepalived.service", "etcd.service"}
    assert "bind *:7443\n" in haproxy(cluster, cluster.member("m1"))


def test_groups_of_the_same_name_do_the_same(tmp_path: Path) -> None:
    made = shared(("servers",), groups={"lb": "servers", "datastore": "servers"})
    cluster = load(made, tmp_path)
    assert [member.roles for member in cluster.of("servers")] == [EVERYTHING] * 3


def test_a_server_is_no_agent(tmp_path: Path) -> None:
    text = refused(shared((*EVERYTHING, "agents")), tmp_path)
    assert "m1: it is in servers and agents, but a server is a node as well: remove it from agents" in text


def test_what_haproxy_tells_of_itself_needs_a_port_of_its_own(tmp_path: Path) -> None:
    assert "K3s has port 10257 on m3" in refused(shared(lb={"stats": {"port": 10257}}), tmp_path)
    assert "7443 is the port of the registration address" in refused(shared(lb={"stats": {"port": 7443}}), tmp_path)


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({"registration": {"address": "10.0.0.100", "port": 8443}}, 8443),
        ({"server": {"https-listen-port": 8443}}, 6443),
        ({"server": {"https-listen-port": 7443}}, 6443),
    ],
)
def test_another_port_of_the_inventory_or_of_k3s_is_right(tmp_path: Path, settings: dict[str, Any], port: int) -> None:
    assert load(shared(**settings), tmp_path).registration.port == port


@pytest.mark.parametrize(
    ("port", "server"), [(6443, {}), (8443, {"https-listen-port": 8443}), (10250, {}), (6444, {}), (10257, {})]
)
def test_a_port_of_k3s_is_refused_before_a_host_is_asked(tmp_path: Path, port: int, server: dict[str, Any]) -> None:
    text = refused(shared(registration={"address": "10.0.0.100", "port": port}, server=server), tmp_path)
    assert f"registration.port: K3s has port {port} on m3, which is a load balancer, too: choose another" in text
    assert ("bind-address" in text) == (port in (6443, 8443))


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 - what the inventory says
def test_all_addresses_leave_no_vip(tmp_path: Path, address: str) -> None:
    data = {name: {"bind-address": address} for name in MACHINES}
    assert load(shared(data=data), tmp_path).registration.port == 7443


def test_k3s_on_its_own_address_leaves_the_vip_the_port(tmp_path: Path) -> None:
    data = {name: {"bind-address": address} for name, (address, _) in MACHINES.items()}
    cluster = load(shared(data=data), tmp_path)
    assert cluster.url == "https://10.0.0.100:6443"
    assert "bind 10.0.0.100:6443 transparent\n" in haproxy(cluster, cluster.member("m1"))
    cluster = load(shared(data=data, lb={"vips": ["10.0.0.101", "fd00::100"]}), tmp_path)
    text = haproxy(cluster, cluster.member("m1"))
    assert "bind 10.0.0.101:6443 transparent\n    bind [fd00::100]:6443 transparent\n" in text


@pytest.mark.parametrize(
    ("server", "port"), [({}, 6443), ({"embedded-registry": True}, 7443), ({"supervisor-metrics": "true"}, 7443)]
)
def test_agents_open_the_port_where_they_serve_others(tmp_path: Path, server: dict[str, Any], port: int) -> None:
    made = shared(("datastore", "servers"), server=server)
    made.hosts["a1"].groups = ParentGroups([made.groups["agents"], made.groups["lb"]])
    assert load(made, tmp_path).registration.port == port


def test_each_role_has_its_steps_and_its_phase(tmp_path: Path) -> None:
    cluster = load(shared(), tmp_path)
    planned = plan_host(cluster, cluster.member("m1"), HostFacts("m1"), Known())
    assert {role: [s.target for s in steps if s.kind == "unit"] for role, steps in planned.by_role.items()} == {
        "datastore": ["etcd.service"],
        "servers": ["k3s.service"],
        "lb": ["haproxy.service", "keepalived.service"],
    }
    assert len(planned.converge) == sum(len(steps) for steps in planned.by_role.values())


def former(tmp_path: Path) -> tuple[Cluster, HostFacts]:
    ours = {haproxy_role.CONFIG, keepalived.CONFIG, k3s.CONFIG, "/etc/nornir-k3s-etcd/ca.pem", "/etc/x"}
    found = HostFacts("m1", ledger=Ledger(files=frozenset(ours)), addresses=(Address("eth0", "10.0.0.100/32"),))
    made = shared(("servers",), datastore={"endpoint": {"env": "ENDPOINT"}})
    made.hosts["lb1"] = inventory(SETTINGS, {"lb1": HOSTS["lb1"]}, {}).hosts["lb1"]
    return load(made, tmp_path), found


def test_a_host_that_was_a_load_balancer_stops_and_keeps_the_data_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT", "postgres://u:p@db/k3s")
    cluster, found = former(tmp_path)
    planned = plan_host(cluster, cluster.member("m1"), found, Known())
    assert [(step.kind, step.target, step.action) for step in planned.by_role["lb"]] == [
        ("unit", "keepalived.service", "stop"),
        ("unit", "haproxy.service", "stop"),
        ("remove", haproxy_role.CONFIG, None),
        ("remove", keepalived.CONFIG, None),
    ]
    removed = [step.target for step in planned.by_role["servers"] if step.kind == "remove"]
    assert removed == ["/etc/x"], "files of a former datastore stay"
    findings = preflight.check(cluster, {"m1": found})
    assert "vip" not in {one.subject for one in findings}


def test_a_host_that_never_was_one_must_not_have_the_vip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT", "postgres://u:p@db/k3s")
    cluster, _ = former(tmp_path)
    found = HostFacts("m1", addresses=(Address("eth0", "10.0.0.100/32"),))
    assert "vip" in {one.subject for one in preflight.check(cluster, {"m1": found})}


def test_ports_of_a_role_count_until_its_own_service_runs(tmp_path: Path) -> None:
    cluster = load(shared(), tmp_path)
    running = {"k3s.service": UnitState(active="active"), "etcd.service": UnitState(active="active")}
    sockets = (Socket("*:7443", 'users:(("nginx",pid=1,fd=1))'), Socket("*:10257", 'users:(("other",pid=2,fd=1))'))
    findings = preflight.check(cluster, {"m1": HostFacts("m1", units=running, sockets=sockets)})
    assert [one.found for one in findings if one.subject == "port"] == ["port 7443 is in use by nginx (*:7443)"]


def test_what_is_read_before_a_role_is_set_up_is_asked_for_each(tmp_path: Path) -> None:
    cluster = load(shared(), tmp_path)
    member = cluster.member("m1")
    text = facts.script(Query(cluster, member, desired(cluster, member, None, Known())))
    every = " || ".join(
        f"! systemctl is-active -q {unit} 2>/dev/null" for unit in ("etcd.service", "k3s.service", "haproxy.service")
    )
    assert f"if {every}; then" in text
    for call in ("fact_neighbours", "fact_others", "fact_database_etcd", "fact_extra_settings"):
        assert f"\n{call} " in text, call


def test_all_roles_are_remembered(tmp_path: Path) -> None:
    cluster, store = load(shared(), tmp_path), Store(tmp_path / "other", base=tmp_path)
    known_cluster.stage_members(store, cluster.members)
    store.commit()
    assert [member.roles for member in known_cluster.members(store)] == [member.roles for member in cluster.members]
