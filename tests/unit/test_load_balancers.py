"""HAProxy and keepalived on the load balancers."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nornir_k3s import facts, k3s, shell
from nornir_k3s.checks import network, works
from nornir_k3s.checks.load_balancers import router_id_taken, vip_taken
from nornir_k3s.compare.load_balancers import differences
from nornir_k3s.errors import InventoryError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.machine_facts import Address, Neighbour, RoundTrips, Socket, VrrpRouter
from nornir_k3s.model.secret import Secret
from nornir_k3s.records import SAY
from nornir_k3s.roles import haproxy, keepalived, load_balancer
from nornir_k3s.roles import server as server_role
from nornir_k3s.roles.load_balancer import NOTHING
from nornir_k3s.roles.timing import CLASSES, Timing

from .conftest import HOSTS, ONLY_V6

Load = Callable[..., Cluster]


def files(cluster: Cluster, name: str = "lb1", round_trips: RoundTrips = NOTHING) -> dict[str, str]:
    member = cluster.member(name)
    spec = load_balancer.spec(
        cluster, member, interface="eth7", check_pem=Secret("PEM"), server_ca="CA", round_trips=round_trips
    )
    return {file.path: file.text.reveal() for file in spec.files}


def test_a_load_balancer_is_in_front_of_all_servers_and_knows_its_peer(load: Load) -> None:
    cluster = load()
    made = {name: files(cluster, name) for name in ("lb1", "lb2")}
    config = made["lb1"][haproxy.CONFIG]
    assert config == made["lb2"][haproxy.CONFIG]
    assert "server s1 10.0.0.12:6443" in config
    assert "server s2 10.0.0.13:6443 track checks/s2\n" in config
    assert "GET /readyz" in config
    assert "verify required" in config
    assert "use_backend all if { nbsrv(servers) lt 1 }" in config
    assert config.count("server s1 ") == 3
    text = made["lb1"][keepalived.CONFIG]
    assert "10.0.0.100/32 dev eth7" in text
    assert "unicast_src_ip 10.0.0.15" in text
    assert "        10.0.0.16\n" in text
    assert "priority 200" in text
    assert "advert_int 0.12\n" in text
    assert "vrrp_priority -20\n" in text
    assert "rt_priority" not in text, "a reload would have the kernel kill it"
    assert "vrrp_no_swap\n" in text
    assert 'script "/etc/keepalived/nornir-k3s-check 8405 servers"' in text
    assert "    weight -50\n" in text, "one that sees no server stays a candidate"
    assert "{ path /servers } { nbsrv(checks) gt 0 }" in config
    assert "priority 190" in made["lb2"][keepalived.CONFIG]
    assert made["lb1"][haproxy.CHECK_CERT] == "PEM"


def test_the_interval_of_vrrp_advertisements_is_a_setting(load: Load) -> None:
    cluster = load({"lb": {"advert_int": 1}})
    assert "    advert_int 1\n" in files(cluster)[keepalived.CONFIG]


@pytest.mark.parametrize("count", [1, 2, 5, 25])
def test_the_priorities_of_any_number_of_load_balancers_differ_and_are_valid(load: Load, count: int) -> None:
    others = {name: value for name, value in HOSTS.items() if not name.startswith("lb")}
    cluster = load(hosts={**others, **{f"lb{n}": (f"10.0.0.{20 + n}", "lb") for n in range(count)}})
    found = []
    for member in cluster.of("lb"):
        text = files(cluster, member.name)[keepalived.CONFIG]
        found.append(int(re.findall(r"^    priority (\d+)$", text, re.M)[0]))
        peers = text.partition("unicast_peer {")[2].partition("}")[0].split()
        assert peers == [one.address for one in cluster.of("lb") if one != member]
    assert sorted(set(found), reverse=True) == found
    assert len(found) == count
    assert 1 <= found[-1] <= found[0] <= 254


def test_a_single_load_balancer_has_no_peers_and_no_own_address_which_keepalived_refuses_then(load: Load) -> None:
    cluster = load(hosts={name: value for name, value in HOSTS.items() if name != "lb2"})
    text = files(cluster)[keepalived.CONFIG]
    assert "unicast" not in text
    assert "10.0.0.100/32 dev eth7" in text


def test_load_balancers_write_ipv6_addresses_in_brackets(load: Load) -> None:
    cluster = load({"registration": {"address": "fd00::100"}, "server": {}}, hosts=ONLY_V6)
    made = files(cluster)
    assert "server s1 [fd00::12]:6443" in made[haproxy.CONFIG]
    assert "fd00::100/128 dev eth7" in made[keepalived.CONFIG]


def test_haproxy_tells_of_itself_on_loopback_and_where_people_ask(load: Load) -> None:
    local = files(load())
    assert re.findall(r"^ +bind (127.*)$", local[haproxy.CONFIG], re.M) == ["127.0.0.1:8405"]
    assert 'script "/etc/keepalived/nornir-k3s-check 8405"' in local[keepalived.CONFIG]
    wide = files(load({"lb": {"stats": {"address": "10.0.0.15", "port": 9000}}}))
    assert "    bind 127.0.0.1:9000\n    bind 10.0.0.15:9000\n    no log\n" in wide[haproxy.CONFIG]
    assert 'script "/etc/keepalived/nornir-k3s-check 9000"' in wide[keepalived.CONFIG]
    for address, bind in (("0.0.0.0", "0.0.0.0:8405"), ("::", "[::]:8405")):  # noqa: S104 - no socket
        text = files(load({"lb": {"stats": {"address": address}}}))[haproxy.CONFIG]
        assert f"mode http\n    bind {bind}\n    no log\n" in text, "a second bind would clash"


@pytest.mark.parametrize(
    "lb",
    [
        {"stats": {"port": 6443}},
        {"stats": {"address": "lb1"}},
        {"stats": {"port": 0}},
        {"preempt_delay": 1001},
        {"preempt_delay": -1},
    ],
)
def test_what_haproxy_or_keepalived_would_refuse_is_refused(load: Load, lb: dict[str, Any]) -> None:
    with pytest.raises(InventoryError):
        load({"lb": lb})


def test_the_vip_stays_where_it_is_unless_a_delay_is_given(load: Load) -> None:
    assert "    nopreempt\n" in files(load())[keepalived.CONFIG]
    text = files(load({"lb": {"preempt_delay": 60}}))[keepalived.CONFIG]
    assert "    preempt_delay 60\n" in text
    assert "nopreempt" not in text


@pytest.mark.parametrize(
    ("kept", "found", "limit", "connect"),
    [
        (0, [], 100, "1000ms"),  # nothing could be measured
        (0, [0.2, 0.4], 20, "300ms"),
        (0, [0.2, 70.0], 100, "1000ms"),  # the farthest counts
        (0, [220.0], 250, "1500ms"),
        (0, [9000.0], 1500, "6000ms"),
        (20, [], 20, "300ms"),
        (20, [29.0], 20, "300ms"),  # still fits
        (20, [31.0], 100, "1000ms"),
        (250, [0.3], 250, "1500ms"),  # fits, and nothing is written again
        (7, [0.3], 20, "300ms"),  # of a version with other classes
    ],
)
def test_timeouts_follow_from_the_round_trips_and_stay_while_they_fit(
    load: Load, kept: int, found: list[float], limit: int, connect: str
) -> None:
    seen = RoundTrips(kept, {f"s{number}": one for number, one in enumerate(found, 1)})
    text = files(load(), round_trips=seen)[haproxy.CONFIG]
    assert f"# Timeouts for round trips up to {limit} ms\n" in text
    assert f"timeout connect {connect}\n" in text


@pytest.mark.parametrize("timing", CLASSES)
def test_a_stall_of_two_seconds_takes_no_server_out_whatever_the_round_trips(timing: Timing) -> None:
    assert timing.connect >= timing.limit / 1000 * 2, "and a lost packet is no dead server"
    assert timing.check >= timing.limit / 1000 * 4
    assert timing.interval >= timing.limit / 1000 * 3, "a check must have made its handshake by then"
    # The first of three checks may begin with the stall.
    assert timing.interval * 3 > 2


def test_timeouts_of_the_inventory_count_before_those_that_were_measured(load: Load) -> None:
    cluster = load({"lb": {"timeouts": {"connect": 0.5, "interval": 2}}})
    text = files(cluster, round_trips=RoundTrips(20))[haproxy.CONFIG]
    assert "timeout connect 500ms\n" in text
    assert "timeout check 3000ms\n" in text
    assert "inter 2000ms fastinter 1000ms downinter 2000ms" in text


def test_the_file_that_was_written_is_what_the_next_run_wants(load: Load, tmp_path: Path) -> None:
    """Whatever is measured then."""
    cluster = load()
    text = files(cluster, round_trips=RoundTrips(0, {"s1": 0.4}))[haproxy.CONFIG]
    path = tmp_path / "haproxy.cfg"
    path.write_text(text)
    script = (
        SAY + shell.source("facts/load_balancer.sh") + shell.call("fact_round_trips", path, "s1", "192.0.2.1", 6443)
    )
    answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    found = facts.parse("lb1", answer, whole=False).round_trips
    assert found == RoundTrips(20)
    assert files(cluster, round_trips=found)[haproxy.CONFIG] == text


def test_round_trips_are_those_of_connections_that_are_accepted_or_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ports = [server.getsockname()[1], nobody.getsockname()[1]]
        words = ["s1", "127.0.0.1", ports[0], "s2", "127.0.0.1", ports[1], "s3", "256.0.0.1", 1]
        call = shell.call("fact_round_trips", "/none", *words)
        script = SAY + shell.source("facts/load_balancer.sh") + call
        answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    found = facts.parse("lb1", answer, whole=False).round_trips
    assert found.kept == 0
    assert set(found.milliseconds) == {"s1", "s2"}
    assert all(0 < one < 1000 for one in found.milliseconds.values())


def test_more_vips_of_both_ip_versions_move_together(load: Load) -> None:
    cluster = load({"lb": {"vips": ["10.0.0.101", "fd00::100", "fd00::101"], "prefix": 24}})
    made = files(cluster)
    assert "    bind *:6443\n    bind [::]:6443 v6only\n" in made[haproxy.CONFIG]
    text = made[keepalived.CONFIG]
    assert "virtual_ipaddress {\n        10.0.0.100/24 dev eth7\n        10.0.0.101/24 dev eth7\n    }\n" in text
    excluded = "virtual_ipaddress_excluded {\n        fd00::100/128 dev eth7\n        fd00::101/128 dev eth7\n    }\n"
    assert excluded in text, "VRRP advertises addresses of one IP version"
    assert 'notify "/etc/keepalived/nornir-k3s-notify 10.0.0.100,10.0.0.101,fd00::100,fd00::101"' in text
    server = server_role.spec(cluster, cluster.member("s1"), None)
    config = yaml.safe_load(next(file.text.reveal() for file in server.files if file.path == k3s.CONFIG))
    assert config["tls-san"] == ["10.0.0.100", "10.0.0.101", "fd00::100", "fd00::101"]


@pytest.mark.parametrize(
    ("vips", "words"),
    [
        (["10.0.0.100"], "10.0.0.100 is `registration.address`"),
        (["10.0.0.101", "10.0.0.101"], "10.0.0.101 is given twice"),
        (["10.0.0.12"], "10.0.0.12 is the address of host s1"),
        (["10.42.0.9"], "10.42.0.9 lies inside cluster-cidr"),
        (["127.0.0.1"], "127.0.0.1"),
        (["10.0.0.101/24"], "vips"),
    ],
)
def test_vips_that_cannot_be_are_refused(load: Load, vips: list[str], words: str) -> None:
    with pytest.raises(InventoryError, match=re.escape(words)):
        load({"lb": {"vips": vips}})


def test_the_vip_and_the_load_balancers_have_the_same_ip_version(load: Load) -> None:
    with pytest.raises(InventoryError, match=r"the VIP is IPv6, and lb1 has the address 10\.0\.0\.15"):
        load({"registration": {"address": "fd00::100"}})


def with_addresses(name: str, *addresses: str) -> HostFacts:
    return HostFacts(name, addresses=tuple(Address("eth0", f"{one}/32") for one in addresses))


def test_each_vip_is_on_exactly_one_load_balancer(load: Load) -> None:
    cluster = load({"lb": {"vips": ["fd00::100"]}})
    lost = {"lb1": with_addresses("lb1", "10.0.0.100"), "lb2": with_addresses("lb2")}
    found = {one.subject: one.found for one in differences(cluster, lost) if one.kind == "vip"}
    assert found == {"fd00::100": "the VIP is on no load balancer"}
    assert works.problems(cluster, lost)[-1].startswith("the VIP fd00::100 is on no load balancer")
    neighbours = (Neighbour("10.0.0.100", "lladdr a"), Neighbour("fd00::100", "lladdr b"))
    taken = {"lb1": HostFacts("lb1", neighbours=neighbours), "lb2": HostFacts("lb2", neighbours=neighbours)}
    assert [one.found for one in vip_taken(cluster, taken)] == [
        "another machine has the VIP 10.0.0.100: lladdr a",
        "another machine has the VIP fd00::100: lladdr b",
    ]


def test_peers_of_this_cluster_are_no_strangers_with_their_virtual_router_id(load: Load) -> None:
    cluster = load()
    heard = (VrrpRouter("10.0.0.16", "51", "3"), VrrpRouter("10.0.0.7", "52", "3"), VrrpRouter("10.0.0.8", "51", "3"))
    (found,) = router_id_taken(cluster, {"lb1": HostFacts("lb1", vrrp=heard)})
    assert found.found == "10.0.0.8 sends VRRP with virtual router ID 51"
    assert "virtual_router_id: 53" in found.remedy
    assert not list(router_id_taken(cluster, {"lb1": HostFacts("lb1", vrrp=heard[:2])}))


@pytest.mark.parametrize(("port", "program", "found"), [(8405, "statsd", 1), (8405, "haproxy", 0), (9000, "x", 0)])
def test_a_port_that_an_haproxy_at_work_shall_take_is_free(load: Load, port: int, program: str, found: int) -> None:
    sockets = (
        Socket("0.0.0.0:6443", 'users:(("haproxy",pid=1,fd=5))'),
        Socket(f"127.0.0.1:{port}", f'(("{program}",pid=2'),
    )
    units = {name: UnitState(active="active") for name in ("haproxy.service", "keepalived.service")}
    cluster = load()
    findings = network.check(cluster, cluster.member("lb1"), HostFacts("lb1", sockets=sockets, units=units))
    assert sum(one.subject == "port" for one in findings) == found
