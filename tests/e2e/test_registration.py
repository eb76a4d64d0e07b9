"""Other ways to the registration address, on a living cluster: a load balancer of the test's own, and a name server."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .asked import Asked
from .certificates import certificate
from .conftest import PREFIX, PROJECT, VIP, Site, eventually, unchanged
from .test_operator import without_its_node

SERVERS, AGENTS = ("s1", "s2", "s3"), ("a1", "a2")
PASSES, ENDS = 8443, 9443
NAME = "api.example.test"
OTHER = f"{PREFIX}.101"
CONFIG = "/etc/rancher/k3s/config.yaml"
AT = f"{PREFIX}.18"  # of lb2, where the test's load balancer runs
HAPROXY = """
defaults
    mode tcp
    timeout connect 2s
    timeout client {idle}
    timeout server {idle}
frontend passes
    bind :{passes}
    {rule}
    default_backend servers
frontend ends
    bind :{ends} ssl crt /run/ends.pem
    default_backend again
backend servers
{servers}
backend again
    server s1 {prefix}.12:6443 ssl verify none
"""


def configure(site: Site, *, servers: tuple[str, ...] = SERVERS, idle: str = "1h", refused: str = "") -> None:
    """Start the test's load balancer on lb2, or start it again with another configuration."""
    number = {"s1": 12, "s2": 13, "s3": 14}
    lines = "".join(f"    server {name} {PREFIX}.{number[name]}:6443 check inter 200ms\n" for name in servers)
    rule = f"tcp-request connection reject if {{ src {refused} }}" if refused else ""
    text = HAPROXY.format(idle=idle, passes=PASSES, ends=ENDS, rule=rule, servers=lines, prefix=PREFIX)
    stop = "[ ! -f /run/lb.pid ] || kill $(cat /run/lb.pid) 2>/dev/null; "
    start = f"while ss -Hltn | grep -q ':{PASSES} '; do sleep 0.1; done; haproxy -D -f /run/lb.cfg -p /run/lb.pid"
    site.lab.exec("lb2", ["sh", "-c", f"{stop} cat >/run/lb.cfg; {start}"], input=text)


@pytest.fixture(scope="module")
def others(cluster: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The cluster, and a load balancer that is not this tool's; the hosts of group lb have left it."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder)
    pem = (folder / "db.crt").read_text() + (folder / "db.key").read_text()
    cluster.lab.exec("lb2", ["sh", "-c", "cat >/run/ends.pem"], input=pem)
    configure(cluster)
    yield cluster
    cluster.lab.exec("lb2", ["sh", "-c", "kill $(cat /run/lb.pid); rm -f /run/lb.* /run/ends.pem"])


def leave(hosts: dict[str, Any]) -> None:
    for name in ("lb1", "lb2"):
        hosts[name].update(groups=[], data={"k3s_role": "none"})


def registered(site: Site, **registration: Any) -> None:
    """Write another registration address to the inventory, which needs no load balancers."""
    site.edit(leave, "hosts.yaml")
    site.edit(lambda data: data["data"]["k3s_cluster"].pop("lb", None))
    site.edit(lambda data: data["data"]["k3s_cluster"].update(registration=registration))


def report(site: Site, runbook: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    path = site.folder / "registration.json"
    done = here(site, runbook, "--json", str(path), *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def here(site: Site, runbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a runbook on a controller that knows the name."""
    hosts = site.folder / "hosts"
    known = "".join(f"{PREFIX}.{number} {NAME}\n" for number in (12, 13, 14))
    hosts.write_text(Path("/etc/hosts").read_text() + known)
    command = [sys.executable, str(PROJECT / "runbooks" / runbook), "--config", str(site.folder / "config.yaml")]
    mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", *command, *arguments],
        cwd="/", capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def address_of(site: Site, agent: str) -> str:
    return site.lab.exec(agent, ["sed", "-n", "s/^server: *//p", CONFIG]).stdout.strip()


def test_the_old_vip_is_held_until_the_agents_have_the_new_one(others: Site) -> None:
    others.edit(lambda data: data["data"]["k3s_cluster"].update(registration={"address": OTHER}))
    with Asked(others) as asked:
        others.deploy("--yes")
    assert {address_of(others, name) for name in AGENTS} == {f"https://{OTHER}:6443"}
    started = [int(others.lab.exec(name, ["stat", "-c", "%Y", CONFIG]).stdout) for name in AGENTS]
    assert asked.last > max(started), "the old VIP was gone before the last agent had the new one"
    addresses = [others.lab.exec(name, ["ip", "-o", "addr"]).stdout for name in ("lb1", "lb2")]
    assert [VIP in text for text in addresses] == [False, False], "nobody needs it any more"
    assert sorted(OTHER in text for text in addresses) == [False, True]
    others.answers()


def test_a_load_balancer_that_ends_tls_is_refused_and_nothing_is_changed(others: Site) -> None:
    before = others.processes()
    registered(others, way="external", address=AT, port=ENDS)
    done = others.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"https://{AT}:{ENDS} presents the certificate of CN=" in done.stderr
    assert "which the cluster's CA has not signed" in done.stderr
    assert others.processes() == before


def test_agents_move_to_an_external_load_balancer_and_join_by_it_and_nothing_is_dropped(others: Site) -> None:
    registered(others, way="external", address=AT, port=PASSES)
    others.lab.reset("a2")  # it joins anew, while the other one moves
    without_its_node(others, "a2")
    with Asked(others) as asked:
        done = others.deploy("--yes")
    backends = ", ".join(f"{PREFIX}.{number}:6443" for number in (12, 13, 14))
    assert f"must pass TCP through to {backends}; health check: HTTPS GET /readyz" in done.stdout + done.stderr
    assert {address_of(others, name) for name in AGENTS} == {f"https://{AT}:{PASSES}"}
    asked.lost_few()  # the old address goes on
    others.answers()
    eventually(lambda: unchanged(others))


def test_servers_that_are_never_reached_and_idle_connections_that_are_closed_are_drift(others: Site) -> None:
    kept = (others.folder / "config.yaml").read_text()
    others.edit_config(lambda data: data["user_defined"]["k3s"].update(drift={"limits": {"idle_seconds": 20}}))
    configure(others, servers=("s1", "s2"), idle="3s")
    try:
        found = report(others, "drift.py", "--no-history", "--deep", code=3)["differences"]
    finally:
        (others.folder / "config.yaml").write_text(kept)
    (one,) = [one for one in found if one["subject"] == "registration"]
    assert one["severity"] == "warning"
    assert "was answered by s3" in one["found"]
    assert re.search(r"closes a connection that is idle after [3-9] s", one["found"])


def test_a_load_balancer_that_leads_no_server_to_itself_is_no_error(others: Site) -> None:
    configure(others, refused=" ".join(f"{PREFIX}.{number}" for number in (12, 13, 14)))
    others.lab.exec("a1", ["systemctl", "restart", "k3s-agent"])  # what needs the address still gets it
    done = others.deploy("--yes")
    assert "which may lead back to this server" in done.stdout + done.stderr
    eventually(lambda: unchanged(others))
    configure(others, refused=f"{PREFIX}.15")
    found = report(others, "drift.py", "--no-history", code=3)["differences"]
    assert "a1/api:address" in [one["id"] for one in found if one["severity"] == "error"]
    assert "a1 cannot reach the API" in others.runbook("status.py").stdout
    configure(others)


def test_agents_keep_the_old_address_until_the_new_one_answers(others: Site) -> None:
    before = address_of(others, "a1")
    registered(others, way="external", address=AT, port=PASSES + 1)
    kept = (others.folder / "config.yaml").read_text()
    others.edit_config(lambda data: data["user_defined"]["k3s"].update(deadlines={"verify": 5}))
    done = others.runbook("deploy.py", "--yes")
    (others.folder / "config.yaml").write_text(kept)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"https://{AT}:{PASSES + 1}, its new registration address, does not answer" in done.stderr
    assert {address_of(others, name) for name in AGENTS} == {before}
    others.answers()  # with the old kubeconfig


class NameServer(threading.Thread):
    """Answers questions for one name on the lab's bridge (RFC 1035)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.addresses: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((f"{PREFIX}.1", 53))

    def run(self) -> None:
        while True:
            try:
                asked, client = self.socket.recvfrom(512)
            except OSError:
                return
            end = asked.index(b"\0", 12) + 5
            name = b".".join(asked[12 : end - 5].split(b"\0")[0:1])
            kind = struct.unpack("!H", asked[end - 4 : end - 2])[0]
            known = NAME.split(".", maxsplit=1)[0].encode() in name
            records = self.addresses if known and kind == 1 else []
            head = asked[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, len(records), 0, 0)
            tail = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(one) for one in records)
            self.socket.sendto(head + asked[12:end] + tail, client)


@pytest.fixture
def name_server(others: Site) -> Iterator[NameServer]:
    server = NameServer()
    server.start()
    keep = "[ ! -e /etc/resolv.conf ] || mv /etc/resolv.conf /etc/resolv.kept; cat >/etc/resolv.conf"
    for name in (*SERVERS, *AGENTS):
        others.lab.exec(name, ["sh", "-c", keep], input=f"nameserver {PREFIX}.1\n")
    yield server
    for name in (*SERVERS, *AGENTS):
        script = "rm /etc/resolv.conf; [ ! -e /etc/resolv.kept ] || mv /etc/resolv.kept /etc/resolv.conf"
        others.lab.exec(name, ["sh", "-c", script])
    server.socket.close()


def test_a_cluster_moves_to_a_name_of_its_servers_and_back_to_its_vip(
    others: Site, name_server: NameServer, tmp_path: Path
) -> None:
    registered(others, way="dns", name=NAME)

    def told(*numbers: int, code: int = 0) -> dict[str, tuple[str, str]]:
        name_server.addresses = [f"{PREFIX}.{number}" for number in numbers]
        found = report(others, "deploy.py", "--preflight-only", code=code)["findings"]
        return {one["host"]: (one["severity"], one["found"]) for one in found if one["subject"] == "name"}

    nobody = told(code=1)
    assert {host: severity for host, (severity, _) in nobody.items()} == dict.fromkeys((*SERVERS, *AGENTS), "error")
    stranger = told(12, 13, 14, 99, code=1)
    assert stranger["a2"][0] == "error"
    assert f"{PREFIX}.99, which is no server's address" in stranger["a2"][1]
    lacking = told(12, 13)
    assert (lacking["a1"][0], f"without s3 ({PREFIX}.14)" in lacking["a1"][1]) == ("warning", True)
    assert told(12, 13, 14) == {}
    done = here(others, "deploy.py", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {address_of(others, name) for name in AGENTS} == {f"https://{NAME}:6443"}
    eventually(lambda: no_drift(others))
    # The controller itself does not know the name.
    found = report_without_name(others)
    assert "cluster/check:name" in found
    assert "cluster/kubeconfig:kubeconfig" in found
    back(others)
    others.answers()
    eventually(lambda: unchanged(others))


def no_drift(site: Site) -> None:
    assert report(site, "drift.py", "--no-history")["differences"] == []


def report_without_name(site: Site) -> list[str]:
    path = site.folder / "registration.json"
    done = site.runbook("drift.py", "--no-history", "--json", str(path))
    assert done.returncode == 3, done.stdout + done.stderr
    return [one["id"] for one in json.loads(path.read_text())["differences"]]


def back(site: Site) -> None:
    """Give the cluster its load balancers and its VIP again."""

    def join(hosts: dict[str, Any]) -> None:
        for name in ("lb1", "lb2"):
            hosts[name].update(groups=["lb"])
            del hosts[name]["data"]

    site.edit(join, "hosts.yaml")
    site.edit(lambda data: data["data"]["k3s_cluster"].update(registration={"address": VIP}))
    site.deploy("--yes")
    assert {address_of(site, name) for name in AGENTS} == {f"https://{VIP}:6443"}
