"""What an operator sees and asks for: findings, plans, reports, parts of the chain, status; on real hosts."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from nornir_k3s import Plan, Report, Status
from nornir_k3s.inventory import cluster as inventory
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import load_balancer
from nornir_k3s.state.store import Store
from tests.e2e.conftest import LAB, PREFIX, VIP, Site, eventually
from tests.unit.conftest import HOSTS, SETTINGS
from tests.unit.conftest import inventory as unit_inventory

NAMES = ("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2")


def data(site: Site, runbook: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    path = site.folder / "out.json"
    done = site.runbook(runbook, *arguments, "--json", str(path))
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def cluster_settings(site: Site, **values: Any) -> None:
    site.edit(lambda data: data["data"]["k3s_cluster"].update(values))


def without(site: Site, *keys: str) -> None:
    site.edit(lambda data: [data["data"]["k3s_cluster"].pop(key, None) for key in keys])


def test_a_run_s_report_is_data_with_the_documented_form(cluster: Site) -> None:
    found = data(cluster, "deploy.py")
    jsonschema.validate(found, Report.model_json_schema(mode="serialization"))
    assert (found["outcome"], found["exit_code"], found["changed"]) == ("ok", 0, False)
    assert set(found["hosts"]) == set(NAMES)
    assert all(host["round_trips"] <= 2 and not host["changes"] for host in found["hosts"].values()), found["hosts"]
    assert [phase["name"] for phase in found["phases"]][:3] == ["observe", "artifacts", "preflight"]
    assert all(phase["state"] in ("done", "nothing to do") for phase in found["phases"])


def test_a_plan_is_data_with_stable_ids_and_changes_nothing(cluster: Site) -> None:
    kept = cluster.kubeconfig.rename(cluster.folder / "kubeconfig")
    plan = data(cluster, "deploy.py", "--plan")
    kept.rename(cluster.kubeconfig)
    assert plan["changes"] is False
    assert any(note.startswith("the kubeconfig would be written again") for note in plan["notes"]), plan["notes"]
    before = cluster.processes()
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["agent"].update({"node-label": ["a=b"]})
                 if "agent" in data["data"]["k3s_cluster"]
                 else data["data"]["k3s_cluster"].update(agent={"node-label": ["a=b"]}))  # fmt: skip
    try:
        first, second = (data(cluster, "deploy.py", "--plan") for _ in range(2))
        jsonschema.validate(first, Plan.model_json_schema(mode="serialization"))
        assert first == second
        changes = [change for host in first["hosts"].values() for change in host["changes"]]
        assert {change["id"] for change in changes} == {
            f"{name}/{what}"
            for name in ("a1", "a2")
            for what in ("file:/etc/rancher/k3s/config.yaml", "unit:k3s-agent.service")
        }
        assert all(change["phase"] == "agents" for change in changes)
        assert first["restarts"] == ["a1/k3s-agent.service", "a2/k3s-agent.service"]
        assert first["batches"] == [["a1"], ["a2"]]
        assert "+- a=b" in changes[0]["diff"]
        assert "K10" not in json.dumps(first), "a token"
        assert cluster.processes() == before
    finally:
        cluster.edit(lambda data: data["data"]["k3s_cluster"]["agent"].pop("node-label"))


def test_only_the_hosts_and_phases_that_were_asked_for(cluster: Site) -> None:
    before = cluster.processes()
    for name in ("a1", "a2"):
        cluster.lab.exec(name, ["rm", "/etc/rancher/k3s/config.yaml"])
    found = data(cluster, "deploy.py", "--until", "servers")
    assert [phase["name"] for phase in found["phases"]][-1] == "servers"
    assert not found["changed"]
    found = data(cluster, "deploy.py", "--limit", "a1")
    assert [name for name, host in found["hosts"].items() if host["changed"]] == ["a1"]
    found = data(cluster, "deploy.py", "--only", "agents")
    assert [name for name, host in found["hosts"].items() if host["changed"]] == ["a2"]
    assert [phase["name"] for phase in found["phases"]][-1] == "agents"
    after = cluster.processes()
    assert {name for name in NAMES if after[name] != before[name]} == {"a1", "a2"}


def test_a_limited_run_does_without_hosts_that_are_down(cluster: Site) -> None:
    cluster.lab.exec("a1", ["rm", "/etc/rancher/k3s/config.yaml"])
    cluster.edit_config(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=5))
    cluster.lab.poweroff("a2")
    try:
        found = data(cluster, "deploy.py", "--limit", "a1,lb")
        assert found["hosts"]["a1"]["changed"]
        assert "a2: " in found["notes"][0]
        state = data(cluster, "status.py", code=4)
        assert state["unreachable"] == ["a2"]
        # An agent stops nothing else.
        planned = data(cluster, "deploy.py", "--plan", code=4)
        assert (planned["skipped"], planned["changes"]) == (["a2"], False)
        cluster.lab.exec("a1", ["rm", "/etc/rancher/k3s/config.yaml"])
        found = data(cluster, "deploy.py", code=4)
        assert (found["skipped"], found["outcome"]) == (["a2"], "ok")
        assert found["hosts"]["a1"]["changed"]
        assert any(note.startswith("a2: ") and "left out" in note for note in found["notes"])
        # Without those that the cluster does not need now, everything else is done.
        idle = next(name for name in ("lb1", "lb2") if name != cluster.holder())
        cluster.lab.poweroff(idle)
        cluster.lab.exec("a1", ["rm", "/etc/rancher/k3s/config.yaml"])
        found = data(cluster, "deploy.py", "--skip-unreachable", code=4)
        assert (sorted(found["skipped"]), found["outcome"]) == (["a2", idle], "ok")
        assert found["hosts"]["a1"]["changed"]
        assert all(phase["state"] != "not begun" for phase in found["phases"])
    finally:
        for name in ("a2", "lb1", "lb2"):
            cluster.lab.poweron(name)
        cluster.edit_config(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=60))
    eventually(lambda: _healthy(cluster))


def _healthy(site: Site) -> None:
    done = site.runbook("status.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_inventory_may_not_mean_is_said(cluster: Site) -> None:
    folder = cluster.folder / "inventory"
    before = {path: path.read_text() for path in folder.iterdir()}
    try:
        cluster.edit(lambda data: data.update(x1={"hostname": f"{PREFIX}.99", "groups": ["agent"]}), "hosts.yaml")
        cluster.edit(lambda data: data.update(agent={}), "groups.yaml")
        for runbook in ("status.py", "drift.py"):
            left_out = "1 host has no role and is left out: x1 (group agent: did you mean `agents`?)"
            assert any(left_out in note for note in data(cluster, runbook)["notes"])
            assert left_out in cluster.runbook(runbook).stdout
        a1 = {"k3s": {"node-label": ["zone=b"]}}
        cluster.edit(lambda data: data["a1"].update(data=a1), "hosts.yaml")
        wide = {"k3s": {"node-label": ["zone=a", "team=x"], "kubelet-arg": ["max-pods=99"]}}
        cluster.edit(lambda data: data.update(agents={"data": wide}), "groups.yaml")
        found = data(cluster, "deploy.py", "--plan")
        assert any(left_out in note for note in found["notes"])
        assert "a1: `node-label` of the host hides zone=a of group agents" in found["notes"]
        shown = {name: host["changes"][0]["diff"] for name, host in found["hosts"].items() if host["changes"]}
        assert set(shown) == {"a1", "a2"}
        assert "+- team=x\n+- zone=b\n" in shown["a1"]
        assert "+- zone=a\n+- team=x\n" in shown["a2"]
        assert all("+- max-pods=99\n" in text for text in shown.values())
    finally:
        for path, text in before.items():
            path.write_text(text)


def test_the_status_is_told_at_a_glance(cluster: Site) -> None:
    eventually(lambda: _healthy(cluster))
    found = data(cluster, "status.py")
    jsonschema.validate(found, Status.model_json_schema(mode="serialization"))
    assert {node["name"]: node["ready"] for node in found["nodes"]} == dict.fromkeys(
        ("s1", "s2", "s3", "a1", "a2"), True
    )
    assert found["holder"] == [cluster.holder()]
    assert found["datastore"] == {"db1": "active"}
    assert found["certificates"][0]["days"] > 300
    renewed = {("lb1", "/etc/haproxy/k3s-check.pem"), ("db1", "/etc/mysql/nornir-k3s-cert.pem")}
    assert renewed <= {(one["host"], one["path"]) for one in found["certificates"]}
    cluster.lab.exec("s2", ["systemctl", "stop", "k3s"])
    try:
        eventually(lambda: _says(cluster, "HAProxy on lb1 reports server s2 as DOWN", "server s2 is not ready"))
    finally:
        cluster.lab.exec("s2", ["systemctl", "start", "k3s"])
    eventually(lambda: _healthy(cluster))


def _says(site: Site, *words: str) -> None:
    done = site.runbook("status.py")
    assert done.returncode == 1, done.stdout
    for word in words:
        assert word in done.stdout, done.stdout


def test_every_problem_of_every_host_in_one_run_and_nothing_changed(cluster: Site) -> None:
    before = cluster.processes()
    cluster.lab.exec("s1", ["mkdir", "-p", "/var/lib/rancher/k3s/server/db/etcd/member/wal"])
    cluster.lab.exec("a1", ["cp", "/etc/systemd/system/k3s-agent.service", "/etc/systemd/system/k3s.service"])
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"cluster-cidr": "10.44.0.0/16"}))
    try:
        found = data(cluster, "deploy.py", "--preflight-only", code=1)
        errors = {(f["host"], f["subject"]) for f in found["findings"] if f["severity"] == "error"}
        assert errors == {("s1", "embedded-etcd"), ("a1", "role"), *((s, "for-ever") for s in ("s1", "s2", "s3"))}
        assert all(f["found"] and f["expected"] and f["remedy"] for f in found["findings"])
        assert cluster.processes() == before
    finally:
        cluster.lab.exec("s1", ["rm", "-r", "/var/lib/rancher/k3s/server/db/etcd"])
        cluster.lab.exec("a1", ["rm", "/etc/systemd/system/k3s.service"])
        cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].pop("cluster-cidr"))


def test_services_of_others_are_not_taken_over_without_a_word(cluster: Site) -> None:
    """Hosts without this tool's notes: what runs there is another's."""
    state = "/var/lib/nornir-k3s"
    installed = cluster.lab.exec("lb1", ["cat", f"{state}/packages"]).stdout.split()
    assert {"haproxy", "keepalived"} < set(installed), "with what came along"
    cluster.lab.exec("db1", ["mariadb", "-e", "CREATE DATABASE shop"])
    assert in_use(data(cluster, "deploy.py", "--preflight-only")) == []
    for name in ("db1", "lb1"):
        cluster.lab.exec(name, ["mv", state, f"{state}.away"])
    try:
        assert in_use(data(cluster, "deploy.py", "--preflight-only", code=1)) == [
            ("db1", "error", "mariadb on this host serves others: database shop"),
            ("lb1", "error", "haproxy on this host serves others: frontend k3s, frontend stats"),
            ("lb1", "error", "keepalived on this host serves others: vrrp_instance k3s"),
        ]
        cluster.edit(lambda data: data["data"]["k3s_cluster"].update(take_over=["db1", "lb1"]))
        found = in_use(data(cluster, "deploy.py", "--preflight-only"))
        assert [severity for _, severity, _ in found] == ["note"] * 3
    finally:
        for name in ("db1", "lb1"):
            cluster.lab.exec(name, ["mv", f"{state}.away", state])
        cluster.edit(lambda data: data["data"]["k3s_cluster"].pop("take_over", None))
        cluster.lab.exec("db1", ["mariadb", "-e", "DROP DATABASE shop"])


def in_use(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = report["findings"]
    return sorted((one["host"], one["severity"], one["found"]) for one in found if one["subject"] == "in-use")


@pytest.mark.parametrize("number", [1, 2, 5, 30])
def test_any_number_of_load_balancers_gets_what_haproxy_and_keepalived_accept(
    cluster: Site, tmp_path: Path, number: int
) -> None:
    balancers = {f"lb{one}": (f"{PREFIX}.{100 + one}", "lb") for one in range(1, number + 1)}
    hosts = {**{name: one for name, one in HOSTS.items() if one[1] != "lb"}, **balancers}
    settings = {**SETTINGS, "lb": {"vips": ["10.0.0.101", "fd00::100"], "preempt_delay": 9, "stats": {"address": "::"}}}
    settings = SETTINGS if number == 1 else settings
    wanted = inventory.load(unit_inventory(settings, hosts, {}), store=Store(tmp_path, base=tmp_path), base=tmp_path)
    for member in (wanted.of("lb")[0], wanted.of("lb")[-1]):
        spec = load_balancer.spec(wanted, member, interface="eth0", check_pem=Secret(""), server_ca="")
        for file in spec.files:
            if file.check:
                text, check = file.text.reveal(), file.check.replace("{}", "/tmp/draft")  # noqa: S108 - on the host
                cluster.lab.exec("lb1", ["sh", "-c", f"cat >/tmp/draft; {check}"], input=text)


def test_a_host_that_cannot_reach_a_server_is_found_before_the_first_change(cluster: Site) -> None:
    cluster.lab.reset("a2")
    cluster.lab.exec("a2", ["ip", "route", "add", "unreachable", f"{PREFIX}.13/32"])
    cluster.lab.exec("a2", ["ip", "route", "add", "10.42.200.0/24", "dev", "lo"])
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["registration"].update(name="k3s.example.test"))
    found = data(cluster, "deploy.py", "--preflight-only", code=1)
    assert {(f["host"], f["subject"]) for f in found["findings"] if f["severity"] == "error"} == {
        ("a2", "reach"),
        ("a2", "cidr"),
        ("a2", "reimaged"),
        *((name, "name") for name in ("s1", "s2", "s3", "a1", "a2")),
    }
    told = {f["subject"]: f["remedy"] for f in found["findings"] if f["host"] == "a2"}
    assert "k3s kubectl delete node a2; " in told["reimaged"]
    assert f"`{VIP} k3s.example.test` to /etc/hosts" in told["name"]
    cluster.lab.exec("a2", ["ip", "route", "del", "unreachable", f"{PREFIX}.13/32"])
    cluster.lab.exec("a2", ["ip", "route", "del", "10.42.200.0/24", "dev", "lo"])
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["registration"].pop("name"))
    without_its_node(cluster, "a2")  # as it was told: then the host joins again
    cluster.deploy()


def without_its_node(site: Site, name: str) -> None:
    """Delete the node of a host that was reset, and the password that K3s keeps for it."""
    for what in (["node", name], ["secret", f"{name}.node-password.k3s", "--namespace=kube-system"]):
        site.lab.exec("s1", ["k3s", "kubectl", "delete", "--ignore-not-found", *what])


class _Mirror(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.asked.append(f"{self.client_address[0]} {self.path.rpartition('/')[2]}")
        super().do_GET()


@pytest.fixture
def mirror(cluster: Site) -> Iterator[str]:
    """A mirror of the releases on this machine, which the hosts reach over the lab's bridge."""
    folder = cluster.folder / "mirror" / cluster.version
    folder.mkdir(parents=True)
    sums = []
    for name in ("k3s", "install.sh"):
        shutil.copy(cluster.folder / "bundle" / name, folder / name)
        sums.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
    (folder / "sha256sum-amd64.txt").write_text(sums[0])
    (folder / "install.sh.sha256sum").write_text(sums[1])
    _Mirror.asked = []
    handler = partial(_Mirror, directory=str(cluster.folder / "mirror"))
    with http.server.ThreadingHTTPServer((f"{PREFIX}.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{PREFIX}.1:{server.server_port}"
        server.shutdown()
        thread.join()
    shutil.rmtree(cluster.folder / "mirror")


def test_a_release_comes_from_a_mirror_once_or_to_each_host_by_itself(cluster: Site, mirror: str) -> None:
    cluster.lab.reset("a2")
    without_its_node(cluster, "a2")
    settings: dict[str, Any] = {"url": mirror}
    folder = "../bundle"
    cluster_settings(cluster, artifacts=settings)
    try:
        before = cluster.processes()
        found = data(cluster, "deploy.py", "--limit", "a1,servers,datastore,lb")
        assert not found["changed"], "the same files by another way are no change"
        assert cluster.processes() == before
        assert [line for line in _Mirror.asked if line.startswith(f"{PREFIX}.1 ")] == _Mirror.asked
        count = len(_Mirror.asked)
        cluster_settings(cluster, artifacts={**settings, "push": False})
        data(cluster, "deploy.py", "--limit", "a2")
        asked = sorted(line for line in _Mirror.asked[count:] if not line.startswith(f"{PREFIX}.1 "))
        assert asked == [f"{PREFIX}.16 install.sh", f"{PREFIX}.16 k3s"]
        version = cluster.lab.exec("a2", ["k3s", "--version"]).stdout
        assert cluster.version in version
    finally:
        cluster_settings(cluster, artifacts={"folder": folder})
    # Images come with the folder alone.
    found = data(cluster, "deploy.py")
    assert all("/agent/images/" in change for host in found["hosts"].values() for change in host["changes"]), found
    assert not data(cluster, "deploy.py")["changed"]


def test_images_of_the_folder_are_brought_to_every_node_once(cluster: Site) -> None:
    images = cluster.folder / "bundle" / "images"
    had = images.exists()
    images.mkdir(exist_ok=True)
    path = images / "few.tar"
    manifest = json.dumps([{"RepoTags": ["docker.io/rancher/few:1"]}]).encode()
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    before = cluster.processes()
    nodes = ("s1", "s2", "s3", "a1", "a2")
    target = "/var/lib/rancher/k3s/agent/images/few.tar"
    try:
        found = data(cluster, "deploy.py")
        changes = {name: host["changes"] for name, host in found["hosts"].items() if host["changed"]}
        assert changes == {name: [f"artifact:{target}"] for name in nodes}
        assert not data(cluster, "deploy.py")["changed"]
        assert cluster.processes() == before
    finally:
        path.unlink()
        if not had:
            images.rmdir()
        for name in nodes:
            cluster.lab.exec(name, ["rm", "-f", target])
    assert not data(cluster, "deploy.py")["changed"]


def test_registries_and_proxy_are_delivered_and_taken_away_again(cluster: Site) -> None:
    registries = cluster.folder / "registries.yaml"
    registries.write_text("configs:\n  registry.example:\n    auth: {username: u, password: canary-5f1d}\n")
    (cluster.folder / "proxy").write_text(f"http://u:canary-77aa@{PREFIX}.1:3128\n")
    cluster_settings(cluster, registries="../registries.yaml", proxy={"https": {"file": "../proxy"}})
    try:
        plan = cluster.runbook("deploy.py", "--plan")
        assert "canary" not in plan.stdout + plan.stderr
        cluster.deploy("--yes")
        for name in ("s1", "a1"):
            text = cluster.lab.exec(name, ["cat", "/etc/rancher/k3s/registries.yaml"]).stdout
            assert text == registries.read_text()
            modes = cluster.lab.exec(
                name, ["sh", "-c", "stat -c %a /etc/rancher/k3s/registries.yaml /etc/default/k3s*"]
            ).stdout
            assert set(modes.split()) == {"600"}
            unit = "k3s" if name == "s1" else "k3s-agent"
            environ = cluster.lab.exec(
                name, ["sh", "-c", f"tr '\\0' '\\n' </proc/$(systemctl show -p MainPID --value {unit})/environ"]
            ).stdout
            assert f"HTTPS_PROXY=http://u:canary-77aa@{PREFIX}.1:3128" in environ
            assert f"{PREFIX}.12" in next(line for line in environ.splitlines() if line.startswith("NO_PROXY="))
    finally:
        without(cluster, "registries", "proxy")
    found = data(cluster, "deploy.py")
    assert "remove:/etc/rancher/k3s/registries.yaml" in found["hosts"]["s1"]["changes"]
    assert cluster.lab.exec("a1", ["sh", "-c", "ls /etc/rancher/k3s /etc/default"]).stdout.count("registries") == 0
    assert not data(cluster, "deploy.py")["changed"]


def test_ctrl_c_leaves_a_report_of_what_was_and_was_not_done(cluster: Site) -> None:
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=4h"]}))
    path = cluster.folder / "stopped.json"
    with cluster.start("deploy.py", "--json", str(path)) as process:
        assert process.stdout
        for line in process.stdout:
            if "[servers]" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130, said
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].pop("kube-apiserver-arg"))
    found = json.loads(path.read_text())
    assert (found["outcome"], found["exit_code"], found["error"]["kind"]) == ("interrupted", 130, "Interrupted")
    states = {phase["name"]: phase["state"] for phase in found["phases"]}
    assert (states["preflight"], states["servers"], states["verify"]) == ("done", "interrupted", "not begun")
    changed = [name for name in ("s1", "s2", "s3") if found["hosts"][name]["changed"]]
    assert changed, "the first server was changed"
    assert len(changed) < 3
    assert "not begun: load-balancers, agents, tidy, verify" in said
    cluster.deploy()


def test_on_a_terminal_it_asks_once_before_a_running_cluster_is_changed(cluster: Site) -> None:
    cluster.lab.exec("a1", ["rm", "/etc/rancher/k3s/config.yaml"])
    before = cluster.processes()
    code, said = on_terminal(cluster, "n\n")
    assert code == 6, said
    assert "a1: write /etc/rancher/k3s/config.yaml" in said
    assert said.count("go on? [y/N]") == 1
    assert cluster.processes() == before
    code, said = on_terminal(cluster, "y\n")
    assert code == 0, said
    assert not data(cluster, "deploy.py")["changed"]


def on_terminal(site: Site, answer: str) -> tuple[int, str]:
    """Run a deploy with a terminal of its own, and answer its question."""
    ours, theirs = pty.openpty()
    with site.start("deploy.py", terminal=theirs) as process:
        os.close(theirs)
        said, answered = b"", False
        while select.select([ours], [], [], 300)[0]:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux's word for the end of a terminal
                break
            if not block:
                break
            said += block
            if not answered and b"[y/N]" in said:
                os.write(ours, answer.encode())
                answered = True
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # it has said nothing for five minutes
            process.kill()
    os.close(ours)
    return process.returncode, said.decode(errors="replace")


def test_a_host_key_that_changed_is_refused_and_both_fingerprints_are_told(cluster: Site) -> None:
    known = cluster.folder / ".lab" / LAB / "known_hosts"
    text = known.read_text()
    lines = text.splitlines()
    keys = {line.split()[0]: line.split(" ", 1)[1] for line in lines}
    swapped = [f"{PREFIX}.18 {keys[f'{PREFIX}.17']}" if line.startswith(f"{PREFIX}.18 ") else line for line in lines]
    known.write_text("\n".join(swapped) + "\n")
    try:
        done = cluster.runbook("deploy.py")
        assert done.returncode == 4, done.stdout + done.stderr
        assert "lb2: its SSH host key is not the one on record" in done.stderr
        assert "man-in-the-middle" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        known.write_text(text)


def test_a_login_that_every_host_refuses_names_them_all(cluster: Site) -> None:
    key = cluster.folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    defaults = cluster.folder / "inventory" / "defaults.yaml"
    text = defaults.read_text()
    cluster.edit(lambda data: data["connection_options"]["netmiko"]["extras"].update(key_file="../stranger"))
    try:
        done = cluster.runbook("deploy.py")
        assert done.returncode == 4, done.stdout + done.stderr
        for name in NAMES:
            assert f"{name}: " in done.stderr
        assert "the user, key or password was refused" in done.stderr
    finally:
        defaults.write_text(text)
