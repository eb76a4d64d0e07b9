"""Three machines that are everything: datastore, servers and load balancers, with an agent beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import PREFIX, VIP, Site, bare, eventually, unchanged
from .had import had

MACHINES = ("s1", "s2", "s3")
BEFORE: dict[str, set[str]] = {}  # what the hosts had
URL = f"https://{VIP}:7443"


@pytest.fixture(scope="module")
def three(site: Site) -> Iterator[Site]:
    """A finished cluster: each machine has an etcd member, a K3s server, and a load balancer."""

    def alone(hosts: dict[str, Any]) -> None:
        for name in ("db1", "lb1", "lb2", "a2"):
            hosts[name].update(groups=[], data={"k3s_role": "none"})
        for name in MACHINES:
            hosts[name].update(groups=["datastore", "servers", "lb"])

    with bare(site):
        BEFORE.update(had(site, (*MACHINES, "a1")))
        site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore={"kind": "etcd"}))
        site.edit(alone, "hosts.yaml")
        site.deploy()
        yield site


def holders(site: Site, names: tuple[str, ...] = MACHINES) -> list[str]:
    return [name for name in names if f" {VIP}/" in site.lab.exec(name, ["ip", "-o", "addr"]).stdout]


def processes(site: Site) -> dict[str, str]:
    show = ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic,StateChangeTimestampMonotonic"]
    units = ("k3s", "etcd", "haproxy", "keepalived")
    return {name: site.lab.exec(name, [*show, *units]).stdout for name in MACHINES}


def test_three_machines_are_enough(three: Site) -> None:
    assert three.nodes() == dict.fromkeys((*MACHINES, "a1"), True)
    assert len(holders(three)) == 1
    assert f"server: {URL}" in three.kubeconfig.read_text()
    assert f"server: {URL}" in three.lab.exec("a1", ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
    before = processes(three)
    done = three.deploy()
    assert "nothing to change" in done.stdout
    assert f"registration.port is 7443: {', '.join(MACHINES)} run K3s" in done.stdout + done.stderr
    assert processes(three) == before
    assert three.runbook("status.py").returncode == 0
    eventually(lambda: unchanged(three))


def test_the_loss_of_any_machine_is_survived(three: Site) -> None:
    (holder,) = holders(three)
    lost = holder
    three.lab.poweroff(lost, hard=True)
    others = tuple(name for name in MACHINES if name != lost)
    eventually(three.answers)
    assert len(holders(three, others)) == 1
    assert three.kubectl("get", "nodes").returncode == 0
    three.lab.poweron(lost)
    eventually(lambda: unchanged(three), 300)


def test_a_drill_stops_and_cuts_off_machines_that_are_everything(three: Site, tmp_path: Path) -> None:
    """The limits are generous: other tests share this machine. Nothing may be lost, and all is put back."""
    kinds = ("haproxy-stop", "holder-cut", "datastore-stop", "datastore-cut")
    limits = {kind: {"gap": 20, "back": 20, "died": None} for kind in ("server-cut", *kinds)}
    config, path = three.folder / "config.yaml", tmp_path / "drill.json"
    kept = config.read_text()
    three.edit_config(lambda data: data["user_defined"]["k3s"].update(drill={"rate": 5, "limits": limits}))
    done = three.runbook("drill.py", "--yes", "--only", ",".join(kinds), "--json", str(path))
    config.write_text(kept)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(path.read_text())
    assert [one["kind"] for one in report["faults"]] == list(kinds)
    for one in report["faults"]:
        assert one["host"] in MACHINES
        assert one["acknowledged"] > 25
        assert (one["lost"], one["watch"]["missed"], one["watch"]["phantom"]) == ({}, 0, 0)
        assert {probe["place"] for probe in one["probes"]} == {"controller", "a1"}
    assert report["faults"][1]["host"] == report["faults"][1]["holders"][0] != report["faults"][1]["holders"][1]


def test_a_setting_is_changed_one_machine_at_a_time(three: Site) -> None:
    """Requests through the VIP are answered while K3s restarts on every machine, beside the VIP's own holder."""
    failed: list[str] = []
    asked: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            done = three.kubectl("get", "--raw", "/readyz")
            asked.append(done.returncode)
            if done.returncode != 0:
                failed.append(done.stderr)

    def label(hosts: dict[str, Any]) -> None:
        for name in MACHINES:
            hosts[name].setdefault("data", {}).update(k3s={"node-label": ["rack=1"]})

    three.edit(label, "hosts.yaml")
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        report = three.folder / "report.json"
        three.deploy("--yes", "--json", str(report))
    finally:
        ended.set()
        asking.join()
    hosts = json.loads(report.read_text())["hosts"]
    assert {name: hosts[name]["restarts"] for name in MACHINES} == {name: ["k3s.service"] for name in MACHINES}
    assert hosts["s1"]["roles"] == ["datastore", "servers", "lb"]
    assert len(asked) > 10
    assert not failed


def test_load_balancers_move_to_hosts_of_their_own(three: Site) -> None:
    """The machines give the VIP and its port away, and stop what only a load balancer needs; K3s is not restarted."""

    def apart(hosts: dict[str, Any]) -> None:
        for name in MACHINES:
            hosts[name].update(groups=["datastore", "servers"])
        for name in ("lb1", "lb2"):
            hosts[name].update(groups=["lb"])
            del hosts[name]["data"]

    before = {name: three.lab.exec(name, ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout for name in MACHINES}
    three.edit(apart, "hosts.yaml")
    found = three.folder / "drift.json"
    assert three.runbook("drift.py", "--no-history", "--json", str(found)).returncode == 3
    ids = {one["id"] for one in json.loads(found.read_text())["differences"]}
    assert "s1/unit:keepalived.service" in ids
    three.deploy("--yes")
    assert holders(three) == []
    assert len(holders(three, ("lb1", "lb2"))) == 1
    for name in MACHINES:
        states = three.lab.exec(name, ["systemctl", "is-active", "haproxy", "keepalived"], check=False).stdout
        assert states.split() == ["inactive", "inactive"], name
        assert three.lab.exec(name, ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout == before[name]
    assert f"server: https://{VIP}:6443" in three.lab.exec("a1", ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
    eventually(lambda: unchanged(three))


def test_k3s_may_leave_the_vip_its_own_port(three: Site) -> None:
    """With `bind-address` K3s and HAProxy have the same port on the same machine, each on its own address."""

    def together(hosts: dict[str, Any]) -> None:
        for number, name in enumerate(MACHINES, 12):
            hosts[name].update(groups=["datastore", "servers", "lb"])
            hosts[name]["data"]["k3s"]["bind-address"] = f"{PREFIX}.{number}"
        for name in ("lb1", "lb2"):
            hosts[name].update(groups=[], data={"k3s_role": "none"})

    done = three.runbook("remove.py", "lb2", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not there(three, "lb2", "/usr/sbin/haproxy")
    assert f"{PREFIX}.18" not in three.lab.exec("lb1", ["cat", "/etc/keepalived/keepalived.conf"]).stdout
    eventually(three.answers)
    three.lab.reset("lb1")
    three.edit(together, "hosts.yaml")
    three.deploy("--yes")
    (holder,) = holders(three)
    listening = three.lab.exec(holder, ["ss", "-Hlntp", "sport = :6443"]).stdout
    assert f"{VIP}:6443" in listening
    assert listening.count(":6443 ") == 2, listening
    assert three.nodes() == dict.fromkeys((*MACHINES, "a1"), True)
    eventually(lambda: unchanged(three))


def test_all_goes_but_the_data_and_they_bring_it_back(three: Site) -> None:
    """The reset is killed, and run again."""
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"key": "value"}}
    path = three.folder / "kept.json"
    path.write_text(json.dumps(kept))
    done = three.kubectl("create", "-f", str(path))
    assert done.returncode == 0, done.stderr
    killed = three.start("reset.py", "--yes")

    def begun() -> None:
        assert killed.poll() is not None or not there(three, "a1", "/usr/local/bin/k3s")

    eventually(begun, 300)
    killed.kill()
    killed.communicate()
    done = three.runbook("reset.py", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the datastore on s1, s2, s3 stays" in done.stdout
    for name in MACHINES:
        gone = ("/usr/local/bin/k3s", "/etc/rancher/k3s", "/usr/sbin/haproxy", "/etc/keepalived", "/var/lib/haproxy")
        assert [path for path in gone if there(three, name, path)] == [], name
        assert three.lab.exec(name, ["systemctl", "is-active", "etcd"], check=False).stdout.strip() == "active"
    (now,) = had(three, ["a1"]).values()
    assert {line for line in now - BEFORE["a1"] if "/etc/rancher" not in line} == set()
    assert there(three, "a1", "/etc/rancher/node/password")
    three.deploy("--yes")
    assert three.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.key}").stdout == "value"
    assert three.nodes() == dict.fromkeys((*MACHINES, "a1"), True)


def test_nothing_is_left_that_was_not_there_before(three: Site) -> None:
    state = three.folder / ".state" / "lab"
    token = (state / "token").read_text()
    assert three.runbook("reset.py", "--yes", "--datastore", "prod").returncode == 2
    done = three.runbook("reset.py", "--yes", "--datastore", "lab")
    assert done.returncode == 0, done.stdout + done.stderr
    now = had(three, BEFORE)
    assert {name: now[name] ^ lines for name, lines in BEFORE.items()} == {name: set[str]() for name in BEFORE}
    assert not state.exists()
    assert token in [(path / "token").read_text() for path in state.parent.glob("lab.reset-*")]


def there(site: Site, name: str, path: str) -> bool:
    return site.lab.exec(name, ["test", "-e", path], check=False).returncode == 0
