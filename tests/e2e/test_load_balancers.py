"""HAProxy and keepalived under faults: what is cut, what stays, where the VIP is."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from .asked import Asked
from .balancers import Held
from .conftest import DB, PREFIX, VIP, Site, eventually

BALANCERS = ("lb1", "lb2")
SERVERS = ("s1", "s2", "s3")
ASK = """perl -MIO::Socket::UNIX -e '
$s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock"); print $s shift; print <$s>'"""


@pytest.fixture
def held(cluster: Site) -> Iterator[list[Held]]:
    """Connections to all servers."""
    eventually(partial(all_servers_are, cluster, "UP"))
    found = [Held() for _ in range(12)]
    yield found
    for one in found:
        one.close()


def ask(site: Site, host: str, command: str) -> str:
    return site.lab.exec(host, ["sh", "-c", f"{ASK} '{command}\n'"]).stdout


def health(site: Site, host: str) -> dict[str, str]:
    """Return the state of each server: `UP 2/3` is up, but its last check has failed."""
    rows = [line.split(",") for line in ask(site, host, "show stat").splitlines()]
    return {row[1]: row[17] for row in rows if row[0] == "servers" and row[1] != "BACKEND"}


def states(site: Site, host: str) -> dict[str, str]:
    return {name: state.split()[0] for name, state in health(site, host).items()}


def all_servers_are(site: Site, state: str) -> None:
    for host in BALANCERS:
        assert states(site, host) == dict.fromkeys(SERVERS, state), host


def journal(site: Site, host: str, tag: str) -> str:
    return site.lab.exec(host, ["journalctl", "-t", tag, "-o", "cat", "--no-pager", "--since", "-1h"]).stdout


def pids(site: Site) -> dict[str, str]:
    """Return the process of K3s on each server; one that led and lost its lease has ended."""
    return {name: site.lab.exec(name, ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout for name in SERVERS}


def stays(site: Site, held: list[Held], before: dict[str, str]) -> None:
    """No connection has ended, but those to a K3s that has."""
    ended = sum(one != before[name] for name, one in pids(site).items())
    lost = [one for one in held if not one.lives()]
    most = ended * len(held) / len(SERVERS)
    assert len(lost) <= most, (lost, before, pids(site), [journal(site, name, "haproxy") for name in BALANCERS])


def alone(site: Site, name: str) -> None:
    assert site.holder() == name
    assert site.holder() == name


def test_haproxy_tells_of_itself_to_root_and_to_loopback_and_logs_who_took_a_connection(cluster: Site) -> None:
    holder = cluster.holder()
    Held().close()
    script = "stat -c '%a %U' /run/haproxy/admin.sock; ss -Hlnt 'sport = :8405' | awk '{print $4}'"
    assert cluster.lab.exec(holder, ["sh", "-c", script]).stdout.split() == ["600", "root", "127.0.0.1:8405"]
    metrics = cluster.lab.exec(holder, ["bash", "-c", METRICS]).stdout
    assert 'haproxy_server_status{proxy="servers",server="s1",state="UP"} 1' in metrics
    user = "ps -o user= -p $(ss -Hlntp 'sport = :8405' | sed 's/.*pid=\\([0-9]*\\).*/\\1/')"
    assert cluster.lab.exec(holder, ["sh", "-c", user]).stdout.strip() == "haproxy"
    assert (
        int(
            dict(line.split(": ", 1) for line in ask(cluster, holder, "show info").splitlines() if ": " in line)[
                "Maxconn"
            ]
        )
        >= 5000
    )

    def logged() -> None:
        assert any(f" k3s servers/{name} " in journal(cluster, holder, "haproxy") for name in SERVERS)

    eventually(logged)
    assert f"the VIP {VIP} is here" in journal(cluster, holder, "nornir-k3s")


METRICS = "exec 3<>/dev/tcp/127.0.0.1/8405; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"


def test_connections_stay_while_no_server_is_ready(cluster: Site, held: list[Held]) -> None:
    before = pids(cluster)
    cluster.lab.exec("db1", ["systemctl", "stop", "mariadb"])
    try:
        eventually(partial(all_servers_are, cluster, "DOWN"))
        stays(cluster, held, before)
        Held().close()
    finally:
        cluster.lab.exec("db1", ["systemctl", "start", "mariadb"])
    eventually(partial(all_servers_are, cluster, "UP"))
    stays(cluster, held, before)
    eventually(cluster.answers)


def test_connections_stay_until_it_is_known_whether_another_server_is_well(cluster: Site, held: list[Held]) -> None:
    """The datastore is away: s1 says so at once, the others keep their last health check waiting."""
    holder, before = cluster.holder(), pids(cluster)

    def known() -> None:
        found = health(cluster, holder)
        assert found["s1"] == "DOWN"
        assert not {found["s2"], found["s3"]} & {"UP"}, found

    for name in ("s2", "s3"):
        cluster.lab.exec(name, ["systemctl", "kill", "-s", "STOP", "k3s"])
    cluster.lab.exec("s1", ["ip", "route", "add", "prohibit", DB])
    try:
        eventually(known)
    finally:
        cluster.lab.exec("s1", ["ip", "route", "del", "prohibit", DB])
        for name in ("s2", "s3"):
            cluster.lab.exec(name, ["systemctl", "kill", "-s", "CONT", "k3s"])
    eventually(partial(all_servers_are, cluster, "UP"))
    stays(cluster, held, before)


def test_a_stall_of_all_servers_takes_none_out(cluster: Site, held: list[Held]) -> None:
    for name in SERVERS:
        stall = "systemctl kill -s STOP k3s; (sleep 2; systemctl kill -s CONT k3s) >/dev/null 2>&1 &"
        cluster.lab.exec(name, ["sh", "-c", stall])
    assert all(one.lives() for one in held)
    all_servers_are(cluster, "UP")
    assert all("is DOWN" not in ask(cluster, host, "show errors") for host in BALANCERS)


def test_the_sessions_of_one_server_that_is_cut_off_are_shut_and_the_others_stay(
    cluster: Site, held: list[Held]
) -> None:
    holder = cluster.holder()
    cluster.lab.cut("s2")
    try:

        def shut() -> None:
            rows = [line.split(",") for line in ask(cluster, holder, "show stat").splitlines()]
            assert [row[4] for row in rows if row[:2] == ["servers", "s2"]] == ["0"]

        eventually(shut)
        assert 0 < sum(one.lives() for one in held) < len(held)
        for _ in range(5):
            cluster.answers()
    finally:
        cluster.lab.heal("s2")
    eventually(partial(all_servers_are, cluster, "UP"))


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_the_vip_leaves_a_haproxy_that_is_dead_or_hangs(cluster: Site, signal: str) -> None:
    holder = cluster.holder()
    other = next(name for name in BALANCERS if name != holder)
    cluster.lab.exec(holder, ["systemctl", "kill", "-s", signal, "haproxy"])
    try:
        eventually(partial(alone, cluster, other))
        cluster.answers()
    finally:
        cluster.lab.exec(holder, ["systemctl", "kill", "-s", "CONT", "haproxy"], check=False)
        cluster.lab.exec(holder, ["systemctl", "start", "haproxy"])
    assert f"the VIP {VIP} cannot be here" in journal(cluster, holder, "nornir-k3s")


def test_one_load_balancer_has_the_vip_when_both_see_each_other_again(cluster: Site) -> None:
    holder = cluster.holder()
    other = next(name for name in BALANCERS if name != holder)
    cluster.lab.cut(holder)
    try:

        def taken() -> None:
            assert VIP in cluster.lab.exec(other, ["ip", "-o", "addr"]).stdout

        eventually(taken)
        eventually(cluster.answers)
    finally:
        cluster.lab.heal(holder)
    eventually(cluster.holder)
    alone(cluster, cluster.holder())


CUT = """table netdev cut {
  chain in { type filter hook ingress device "eth0" priority -300; policy drop; }
  chain out { type filter hook egress device "eth0" priority -300; policy drop; }
}
"""


def test_a_holder_that_was_cut_off_gives_way_when_it_is_back(cluster: Site) -> None:
    """It has gone on with the VIP, as its interface was up; clients know the other one by now, and stay there."""
    eventually(partial(all_servers_are, cluster, "UP"))
    holder = cluster.holder()
    other = next(name for name in BALANCERS if name != holder)

    def lowered() -> int:
        return journal(cluster, holder, "Keepalived_vrrp").count("Changing effective priority")

    already = lowered()
    cluster.lab.exec(holder, ["nft", "-f", "-"], input=CUT)
    try:

        def lonely() -> None:
            assert set(states(cluster, holder).values()) == {"DOWN"}
            assert lowered() > already
            assert VIP in cluster.lab.exec(other, ["ip", "-o", "addr"]).stdout

        eventually(lonely)
        assert VIP in cluster.lab.exec(holder, ["ip", "-o", "addr"]).stdout, "two have it, and cannot know"
        before = journal(cluster, other, "nornir-k3s")
    finally:
        cluster.lab.exec(holder, ["nft", "delete", "table", "netdev", "cut"])
    eventually(partial(alone, cluster, other))
    eventually(partial(all_servers_are, cluster, "UP"))
    alone(cluster, other)
    assert journal(cluster, other, "nornir-k3s") == before, "it has not moved"


BEFORE = {
    "/etc/haproxy/haproxy.cfg": f"""global
    log /dev/log local0
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin

defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h

frontend k3s
    bind *:6443
    default_backend servers

backend servers
    server s1 {PREFIX}.12:6443
    server s2 {PREFIX}.13:6443
    server s3 {PREFIX}.14:6443
""",
    "/etc/keepalived/nornir-k3s-check": '#!/bin/sh\nread -r pid </run/haproxy.pid && kill -0 "$pid"\n',
}


def test_a_configuration_of_an_earlier_version_is_replaced_by_a_reload(cluster: Site) -> None:
    """Connections go on in the old process. On a busy machine the VIP may move, and K3s lose its lease, meanwhile."""
    for _ in range(3):
        k3s = k3s_starts(cluster)
        put_earlier_configuration(cluster)
        holder, before = cluster.holder(), main_pids(cluster)
        held = [Held() for _ in range(6)]
        cluster.deploy("--yes")
        assert main_pids(cluster) == before
        living = sum(one.lives() for one in held)
        told = [repr(one) for one in held]
        for one in held:
            one.close()
        if (k3s_starts(cluster), eventually(cluster.holder)) == (k3s, holder):
            break
    assert living == len(held), told
    for name in BALANCERS:
        assert cluster.lab.exec(name, ["stat", "-c", "%a", "/run/haproxy/admin.sock"]).stdout.strip() == "600"
    assert "nothing to change" in cluster.deploy().stdout


def put_earlier_configuration(site: Site) -> None:
    for name in BALANCERS:
        for path, text in BEFORE.items():
            # A shell that runs it reads on in the file that it has opened.
            script = f"cp -p {path} {path}.new; cat >{path}.new; mv {path}.new {path}"
            site.lab.exec(name, ["sh", "-c", script], input=text)
        keepalived = "sed -i '/garp/d; /notify/d; s/nornir-k3s-check 8405/nornir-k3s-check/'"
        script = f"{keepalived} /etc/keepalived/keepalived.conf; systemctl reload keepalived"
        site.lab.exec(name, ["sh", "-c", script])
        eventually(partial(none_runs, site, name, "nornir-k3s-check 8405"))
        site.lab.exec(name, ["sh", "-c", "systemctl reload haproxy; rm -f /etc/haproxy/k3s-sessions.lua"])

        def reloaded(name: str = name) -> None:
            assert "stats" not in ask(site, name, "show stat")

        eventually(reloaded)
        site.lab.exec(name, ["chmod", "660", "/run/haproxy/admin.sock"])


def k3s_starts(site: Site) -> list[str]:
    show = ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic,ActiveState", "k3s"]
    return [site.lab.exec(name, show).stdout for name in ("s1", "s2", "s3")]


def none_runs(site: Site, name: str, command: str) -> None:
    """No check of before is under way: it would miss the port that it asks."""
    lines = site.lab.exec(name, ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).stdout
    assert command not in lines


def main_pids(site: Site) -> list[str]:
    show = ["systemctl", "show", "-p", "MainPID", "haproxy", "keepalived"]
    return [site.lab.exec(name, show).stdout for name in BALANCERS]


@pytest.mark.parametrize("change", ["its port", "its group of VRRP"])
def test_no_request_is_lost_while_the_load_balancers_change(cluster: Site, change: str) -> None:
    """The one with the VIP is the last, or the only one that keepalived runs on.

    On a machine that is too busy the VIP may move meanwhile, and K3s lose its leases: then it is done once more.
    Nothing else may lose a request, also not the first time.
    """
    told = cluster.folder / "changed.json"
    for number in range(1, 5):
        eventually(partial(all_servers_are, cluster, "UP"))
        holder = eventually(cluster.holder)
        new = {"stats": {"port": 8405 + number}} if change == "its port" else {"virtual_router_id": 51 + number}
        cluster.edit(lambda data, new=new: data["data"]["k3s_cluster"]["lb"].update(new))  # type: ignore[misc]  # its default
        with Asked(cluster) as asked:
            cluster.deploy("--yes", "--json", str(told))
        asked.lost_none()
        if not asked.disturbances:
            break
    assert not asked.lost, asked
    assert cluster.holder() == holder
    hosts = json.loads(told.read_text())["hosts"]
    assert {name: hosts[name]["restarts"] for name in BALANCERS} == {
        name: [*(["haproxy.service"] if change == "its port" else []), "keepalived.service"] for name in BALANCERS
    }


def test_more_vips_of_both_ip_versions_come_to_a_living_cluster(cluster: Site) -> None:
    vips = [f"{PREFIX}.101", "fd79::100"]
    for number, name in enumerate(BALANCERS, 17):
        cluster.lab.exec(name, ["ip", "-6", "addr", "add", f"fd79::{number}/64", "dev", "eth0"])
    change = "ip addr {0} {1}/32 dev eth0; ip -6 addr {0} {2}/128 dev eth0"
    cluster.lab.exec("a1", ["sh", "-c", change.format("add", *vips)])
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["lb"].update(vips=vips))
    done = cluster.runbook("deploy.py", "--preflight-only")
    assert all(f"this host has the VIP {vip}" in done.stdout + done.stderr for vip in vips), done.stderr
    cluster.lab.exec("a1", ["sh", "-c", change.format("del", *vips)])
    before = main_pids(cluster)
    cluster.deploy("--yes")
    assert main_pids(cluster) == before
    holder = cluster.holder()

    def together() -> None:
        for name in BALANCERS:
            addresses = cluster.lab.exec(name, ["ip", "-o", "addr"]).stdout
            assert [f" {vip}/" in addresses for vip in vips] == [name == holder] * 2, name

    eventually(together)
    pem = ssl.get_server_certificate((vips[0], 6443))
    command = ["openssl", "x509", "-noout", "-ext", "subjectAltName"]
    names = subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout
    assert f"IP Address:{vips[0]}" in names
    answer = cluster.lab.exec(holder, ["curl", "-ksS", f"https://[{vips[1]}]:6443/ping"]).stdout
    assert answer == "pong"
    assert "nothing to change" in cluster.deploy().stdout
