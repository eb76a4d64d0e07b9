"""A drill on a living cluster: what it measures, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.run.kubeconfig_probe import access

from .conftest import Site, eventually

HOSTS = ("s1", "s2", "s3", "a1", "a2", "lb1", "lb2", "db1")
# Generous: how fast a VIP moves on a machine that other tests share is measured elsewhere.
SLOW: dict[str, Any] = {"failed": 60, "gap": 20, "back": 20}
KINDS = ("haproxy-stop", "holder-cut", "server-kill", "server-cut", "datastore-stop", "rolling-restart")
# While the datastore is away every request fails: how many is a matter of how long the machine takes to start it.
LIMITS = dict.fromkeys(KINDS, SLOW) | {"datastore-stop": SLOW | {"failed": None}}


@pytest.fixture(scope="module")
def patient(cluster: Site) -> Iterator[Site]:
    """The cluster, with limits for a machine that is busy, and one that cannot be kept."""
    limits = LIMITS | {"keepalived-stop": {"failed": None, "gap": 0}}
    cluster.edit_config(lambda data: data["user_defined"]["k3s"].update(drill={"rate": 10, "limits": limits}))
    eventually(lambda: healthy(cluster))
    yield cluster
    cluster.edit_config(lambda data: data["user_defined"]["k3s"].pop("drill"))


def healthy(site: Site) -> None:
    done = site.runbook("status.py")
    assert done.returncode == 0, done.stdout + done.stderr


def nothing_is_left(site: Site) -> None:
    """No rule, unit or file of a fault on any host, no namespace, and a cluster that is healthy."""
    script = (
        "nft list tables | grep drill; systemctl is-active -q nornir-k3s-drill && echo a unit\n"
        "ls /run/nornir-k3s-drill* 2>/dev/null; systemctl --failed --no-legend | grep drill"
    )
    for host in HOSTS:
        assert site.lab.exec(host, ["sh", "-c", script], check=False).stdout == "", host
    assert site.kubectl("get", "namespace", "nornir-k3s-drill").returncode == 1
    healthy(site)


def is_cut(site: Site, host: str) -> bool:
    return "nornir_k3s_drill" in site.lab.exec(host, ["nft", "list", "tables"]).stdout


def test_a_drill_breaks_one_thing_after_the_other_and_measures_it(patient: Site, tmp_path: Path) -> None:
    kinds = ["haproxy-stop", "keepalived-stop", "holder-cut", "server-kill:s2", "server-cut:s3", "datastore-stop"]
    files = ("--json", str(tmp_path / "drill.json"), "--html", str(tmp_path / "drill.html"))
    done = patient.runbook("drill.py", "--yes", "--only", ",".join(kinds), *files)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "drill.json").read_text())
    assert [one["kind"] for one in report["faults"]] == [kind.partition(":")[0] for kind in kinds]
    found = {one["kind"]: one for one in report["faults"]}
    assert [one["broken"] for kind, one in found.items() if kind != "keepalived-stop"] == [[]] * (len(kinds) - 1)
    assert "limit 0 s" in found["keepalived-stop"]["broken"][0]
    for one in found.values():
        assert one["acknowledged"] > 50
        assert one["lost"] == {}
        assert (one["watch"]["missed"], one["watch"]["phantom"]) == (0, 0)
        assert {(probe["place"], probe["kind"]) for probe in one["probes"]} == {
            (place, kind) for place in ("controller", "a1") for kind in ("read", "write")
        }
    for kind in ("haproxy-stop", "keepalived-stop", "holder-cut"):
        before, during, _ = found[kind]["holders"]
        assert {before, during} == {"lb1", "lb2"}, kind
        assert found[kind]["host"] == before
    assert max(probe["failed"] for probe in found["datastore-stop"]["probes"]) > 0
    assert found["datastore-stop"]["gap"] > 4
    assert report["problems"] == report["left"] == []
    assert "ended" not in done.stdout
    assert f"broken: keepalived-stop on {found['keepalived-stop']['host']}" in done.stdout
    assert "<svg" in (tmp_path / "drill.html").read_text()
    nothing_is_left(patient)


def test_every_server_is_restarted_one_after_the_other_without_a_failed_request(patient: Site, tmp_path: Path) -> None:
    before = patient.processes()
    path = tmp_path / "drill.json"
    done = patient.runbook("drill.py", "--yes", "--only", "rolling-restart", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(path.read_text())["faults"]
    assert found["acknowledged"] > 50
    after = patient.processes()
    assert {host for host in before if before[host] != after[host]} == {"s1", "s2", "s3"}


def test_ctrl_c_puts_everything_back(patient: Site, tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    drill = patient.start("drill.py", "--yes", "--only", "server-cut:s1,server-stop:s2", "--json", str(path))
    eventually(lambda: _assert(is_cut(patient, "s1")))
    drill.send_signal(signal.SIGINT)
    said, _ = drill.communicate(timeout=180)
    assert drill.returncode == 130, said
    assert "everything is put back" in said
    assert json.loads(path.read_text())["outcome"] == "interrupted"
    eventually(lambda: nothing_is_left(patient))


DRAINING = """
perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock"); print $s "show stat\\n";
while (<$s>) { print if /^servers,.*,DRAIN/ }'
"""


def test_ctrl_c_brings_a_server_back_into_rotation(patient: Site) -> None:
    drill = patient.start("drill.py", "--yes", "--only", "rolling-restart")
    eventually(lambda: _assert("DRAIN" in patient.lab.exec("lb1", ["sh", "-c", DRAINING]).stdout))
    drill.send_signal(signal.SIGINT)
    said, _ = drill.communicate(timeout=180)
    assert drill.returncode == 130, said
    assert "everything is put back" in said
    eventually(lambda: nothing_is_left(patient))


def test_a_fault_ends_by_itself_when_the_controller_is_killed(patient: Site) -> None:
    drill = patient.start("drill.py", "--yes", "--only", "server-cut:s3")
    eventually(lambda: _assert(is_cut(patient, "s3")))
    drill.kill()
    drill.communicate(timeout=60)
    eventually(lambda: _assert(not is_cut(patient, "s3")))
    eventually(lambda: healthy(patient))
    # The namespace is still there: the next drill removes it, and ends as any other.
    assert patient.kubectl("get", "namespace", "nornir-k3s-drill").returncode == 0
    done = patient.runbook("drill.py", "--yes", "--only", "server-kill:s2")
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_left(patient)


def test_a_cluster_that_is_not_healthy_is_refused(patient: Site) -> None:
    other = next(name for name in ("lb1", "lb2") if name != patient.holder())
    patient.lab.exec(other, ["systemctl", "stop", "keepalived"])
    try:
        done = patient.runbook("drill.py", "--yes", "--only", "haproxy-stop")
    finally:
        patient.lab.exec(other, ["systemctl", "start", "keepalived"])
    assert done.returncode == 1
    assert f"{other}: keepalived.service is inactive" in done.stderr
    assert "nothing was changed on any host" in done.stderr


def test_it_asks_on_a_terminal_and_no_is_no(patient: Site) -> None:
    main, terminal = pty.openpty()
    drill = patient.start("drill.py", "--only", "server-stop:s1", terminal=terminal)
    os.close(terminal)
    said = ""
    while "begin? [y/N]" not in said:
        said += os.read(main, 1000).decode(errors="replace")
    os.write(main, b"n\n")
    assert wait(drill) == 6, said
    os.close(main)
    assert "stop K3s on s1 for 8 s" in said
    healthy(patient)


HELD = 2000  # connections


class Held:
    """Connections through the VIP that last, as those of kubelets and controllers do."""

    def __init__(self, site: Site) -> None:
        self.to = access(site.kubeconfig)
        self.sockets: list[ssl.SSLSocket | None] = [None] * HELD

    def each(self, work: Callable[[int], bool]) -> int:
        """Do something with every connection; return with how many it worked."""
        with ThreadPoolExecutor(16) as pool:
            return sum(pool.map(work, range(HELD)))

    def connect(self, number: int) -> bool:
        """Connect, unless it is connected."""
        if self.sockets[number] is not None:
            return True
        try:
            raw = socket.create_connection((self.to.host, self.to.port), timeout=20)
            self.sockets[number] = self.to.context.wrap_socket(raw, server_hostname=self.to.host)
        except OSError:
            return False
        return self.answers(number)

    def answers(self, number: int) -> bool:
        """Ask on a connection; close it if there is no answer."""
        sock = self.sockets[number]
        if sock is None:
            return False
        try:
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: k3s\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
                if answer.endswith(b"\r\n\r\nok"):
                    return True
        except OSError:
            pass
        sock.close()
        self.sockets[number] = None
        return False

    def close(self) -> None:
        for sock in self.sockets:
            if sock is not None:
                sock.close()


@pytest.fixture
def held(patient: Site) -> Iterator[Held]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, HELD + 1000)), hard))
    connections = Held(patient)
    yield connections
    connections.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(site: Site, host: str) -> float:
    """Return how many MiB HAProxy's processes on a load balancer have."""
    rss = site.lab.exec(host, ["sh", "-c", "cat $(pgrep -x haproxy | sed 's|.*|/proc/&/status|')"]).stdout
    return sum(int(line.split()[1]) for line in rss.splitlines() if line.startswith("VmRSS:")) / 1024


def test_2000_connections_stay_when_a_server_dies_and_come_back_when_the_holder_does(patient: Site, held: Held) -> None:
    holder = patient.holder()
    assert held.each(held.connect) == HELD
    full = memory(patient, holder)
    assert held.each(held.answers) == HELD
    patient.lab.exec("s2", ["systemctl", "kill", "-s", "KILL", "--kill-who=main", "k3s"])
    stayed = held.each(held.answers)
    assert HELD / 2 < stayed < HELD * 0.8, "those to two of three servers"
    eventually(lambda: _assert(held.each(held.connect) == HELD))
    patient.lab.exec(holder, ["systemctl", "stop", "keepalived", "haproxy"])
    try:
        assert held.each(held.answers) == 0
        eventually(lambda: _assert(held.each(held.connect) == HELD))
        other = patient.holder()
        assert other != holder
        assert max(full, memory(patient, other)) < 150
    finally:
        patient.lab.exec(holder, ["systemctl", "start", "haproxy", "keepalived"])
    eventually(lambda: healthy(patient))


def wait(process: subprocess.Popen[str]) -> int:
    return process.wait(120)


def _assert(what: object) -> None:
    assert what
