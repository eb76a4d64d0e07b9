"""What goes wrong on the way, on the real command: a clear message, the right exit code, a next run that finishes."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from .asked import Asked
from .balancers import BALANCERS, drained
from .conftest import DB, PREFIX, Site, eventually


@pytest.fixture
def intact(cluster: Site) -> Iterator[Site]:
    """The finished cluster; inventory files are put back afterwards."""
    folder = cluster.folder / "inventory"
    kept = {path: path.read_text() for path in folder.iterdir()}
    yield cluster
    for path, text in kept.items():
        path.write_text(text)


def untouched(site: Site) -> dict[str, str]:
    return site.processes()


def test_a_host_that_is_down_is_named_and_nothing_is_changed(intact: Site) -> None:
    intact.edit(lambda data: data.update({"s1": dict(data["s1"], hostname=f"{PREFIX}.201")}), "hosts.yaml")
    intact.edit(lambda data: data.update({"a1": dict(data["a1"], hostname=f"{PREFIX}.202")}), "hosts.yaml")
    (intact.folder / "config.yaml").write_text(
        (intact.folder / "config.yaml").read_text().replace("connect: 60", "connect: 3")
    )
    before = untouched(intact)
    done = intact.runbook("deploy.py")
    (intact.folder / "config.yaml").write_text(
        (intact.folder / "config.yaml").read_text().replace("connect: 3", "connect: 60")
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "s1: " in done.stderr
    assert "a1: " in done.stderr
    assert "Traceback" not in done.stderr
    assert untouched(intact) == before


def test_a_wrong_sudo_password_is_told_and_nothing_is_changed(intact: Site) -> None:
    wrong = intact.folder / "wrong-password"
    wrong.write_text("not the password\n")
    intact.edit(lambda data: data["s3"]["data"]["k3s_ssh"].update(sudo_password={"file": str(wrong)}), "hosts.yaml")
    before = untouched(intact)
    done = intact.runbook("deploy.py")
    assert done.returncode == 4
    assert "s3: sudo refuses this user" in done.stderr
    assert "not the password" not in done.stdout + done.stderr
    assert untouched(intact) == before


def test_a_wrong_token_is_found_before_anything_is_changed(intact: Site) -> None:
    (intact.folder / "other-token").write_text("another-token-than-before\n")
    token = {"file": str(intact.folder / "other-token")}
    intact.edit(lambda data: data["data"]["k3s_cluster"].update(token=token))
    before = untouched(intact)
    done = intact.runbook("deploy.py")
    assert done.returncode == 1
    assert "another token" in done.stderr
    assert "[foreign-data]" in done.stderr
    assert "another-token-than-before" not in done.stdout + done.stderr
    assert untouched(intact) == before


def test_ctrl_c_ends_the_run_with_130_and_the_next_one_finishes(intact: Site) -> None:
    intact.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=3h"]}))
    said = ""
    with intact.start("deploy.py") as process:
        assert process.stdout
        for line in process.stdout:  # servers are changed one at a time: the first has just been
            said += line
            if "[servers]" in line:
                break
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    intact.deploy()
    assert "nothing to change" in intact.deploy().stdout


def change_servers(data: dict[str, Any], change: dict[str, Any]) -> None:
    data["data"]["k3s_cluster"]["server"].update(change)


def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(intact: Site) -> None:
    dice = random.Random(7)  # noqa: S311 - moments, not secrets
    for number in range(4):
        change = {"kube-apiserver-arg": [f"event-ttl={4 + number}h"]}
        intact.edit(partial(change_servers, change=change))
        with intact.start("deploy.py") as process:
            try:
                process.wait(dice.uniform(1.5, 12))
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
    intact.deploy()
    for host in ("s1", "s2", "s3"):
        running = intact.lab.exec(host, ["k3s", "kubectl", "get", "node", host, "-o", "json"]).stdout
        arguments = json.loads(running)["metadata"]["annotations"]["k3s.io/node-args"]
        assert "event-ttl=7h" in arguments, "a server runs with settings that were written but never read"
    assert "nothing to change" in intact.deploy().stdout


EARLIER = "/etc/rancher/k3s/config.yaml.d/99-earlier.yaml"
RKE2 = "/usr/lib/systemd/system/rke2-server.service"
# Whoever manages the host has given K3s a config file of another name, with another datastore.
BROKEN = "/etc/systemd/system/k3s.service.d/broken.conf"
BREAK = """
mkdir -p "${1%/*}"
printf '[Service]\nEnvironment=K3S_CONFIG_FILE=/etc/other.yaml\n' >"$1"
systemctl daemon-reload
(umask 077; sed "s|^datastore-endpoint:.*|datastore-endpoint: '$2'|" /etc/rancher/k3s/config.yaml >/etc/other.yaml)
"""
MEND = 'rm -r "${1%/*}" /etc/other.yaml; systemctl daemon-reload'


def test_settings_and_kubernetes_of_earlier_times_are_found_before_anything_is_changed(intact: Site) -> None:
    sh = partial(intact.lab.exec, "s2")
    sh(
        [
            "sh",
            "-c",
            f"mkdir -p $(dirname {EARLIER}); echo 'token: another' >{EARLIER}; mkdir -p /usr/lib/systemd/system",
        ]
    )
    sh(["touch", "/usr/lib/systemd/system/rke2-server.service"])
    before = untouched(intact)
    try:
        done = intact.runbook("deploy.py")
    finally:
        sh(["rm", EARLIER, RKE2])
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"s2: {EARLIER} sets token, which would hold instead of the inventory's" in done.stderr
    assert f"mv {EARLIER} {EARLIER}.before" in done.stderr
    assert "s2: rke2-server.service is installed" in done.stderr
    assert untouched(intact) == before


def test_a_server_that_cannot_start_stops_the_run_at_the_first_one(intact: Site) -> None:
    """A canary: the other servers keep their old settings and keep running."""
    intact.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=1h"]}))
    intact.lab.exec("s1", ["sh", "-c", BREAK, "-", BROKEN, f"mysql://nobody:wrong@tcp({DB}:3306)/k3s"])
    before = untouched(intact)
    done = intact.runbook("deploy.py")
    intact.lab.exec("s1", ["sh", "-c", MEND, "-", BROKEN])
    after = untouched(intact)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "s1: not ready" in done.stderr
    assert "the database refuses user or password" in done.stderr
    assert "Error 1045" in done.stderr
    assert {h for h in before if before[h] != after[h]} == {"s1"}
    eventually(intact.answers)


FILES = "/etc/rancher/k3s/config.yaml /etc/rancher/k3s/registries.yaml /etc/default/k3s /var/lib/nornir-k3s/files"
PREVIOUS = "/var/lib/nornir-k3s/previous"


def state(site: Site, host: str = "s1") -> str:
    """Return content, mode and owner of a server's files, those that are not there too; a list of files is a set."""
    content = "case $f in */files) sort $f;; *) cat $f;; esac | sha256sum"
    script = f"for f in {FILES}; do stat -c '%n %a %U %G' $f; {content}; done 2>&1; ls -A /etc/default | grep k3s"
    return site.lab.exec(host, ["sh", "-c", script], check=False).stdout


def k3s_refuses(site: Site) -> None:
    """Ask for settings that only K3s itself finds wrong: one file changes, one is new."""
    site.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"v": "loud"}))
    site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore_pool={"max_open": 50}))


def test_a_server_that_does_not_come_back_gets_its_previous_files_again(intact: Site) -> None:
    intact.deploy()
    kept = {path: path.read_text() for path in (intact.folder / "inventory").iterdir()}
    files, before = state(intact), untouched(intact)
    k3s_refuses(intact)
    with Asked(intact) as asked:
        done = intact.runbook("deploy.py", "--json", str(intact.folder / "out.json"))
    after = untouched(intact)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((intact.folder / "out.json").read_text())
    for words in (
        "s1: not ready",
        "a setting has an invalid value",
        "for flag -v",
        "its previous files were restored (/etc/rancher/k3s/config.yaml, /etc/default/k3s), and it is ready again",
        "it plans the same change",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert report["hosts"]["s1"]["restored"] == ["/etc/rancher/k3s/config.yaml", "/etc/default/k3s"]
    assert report["seconds"] < 120, "a hopeless cause was waited for"
    assert state(intact) == files
    assert {h for h in before if before[h] != after[h]} == {"s1"}
    # A kubelet that has just been restarted may say for a moment that it is not ready.
    eventually(lambda: _all_ready(intact))
    asked.lost_few()
    assert intact.lab.exec("s1", ["ls", "-d", PREVIOUS], check=False).returncode != 0
    assert "+v: loud" in intact.deploy("--plan").stdout
    for path, text in kept.items():
        path.write_text(text)
    assert "nothing to change" in intact.deploy().stdout


@pytest.mark.parametrize(
    ("role", "argument", "reason"),
    [
        ("server", "eviction-hard=nonsense", "invalid eviction threshold syntax"),
        ("agent", "no-such-flag=1", "a component does not know its argument"),
    ],
)
def test_a_kubelet_argument_that_ends_k3s_stops_the_run_at_the_first_host(
    intact: Site, role: str, argument: str, reason: str
) -> None:
    """A server is active for seconds before it ends, and its node is Ready from before."""
    intact.deploy()

    def add(data: dict[str, Any]) -> None:
        data["data"]["k3s_cluster"].setdefault(role, {}).setdefault("kubelet-arg", []).append(argument)

    intact.edit(add)
    before, first = untouched(intact), f"{role[0]}1"
    done = intact.runbook("deploy.py", "--json", str(intact.folder / "out.json"))
    after = untouched(intact)
    assert done.returncode == 1, done.stdout + done.stderr
    for words in (f"{first}: not ready", reason, "kubelet exited", "were restored", "and it is ready again"):
        assert words in done.stderr
    report = json.loads((intact.folder / "out.json").read_text())
    assert report["hosts"][first]["restored"] == ["/etc/rancher/k3s/config.yaml"]
    assert report["seconds"] < 200, "a crash loop was waited for"
    assert {host for host in before if before[host] != after[host]} == {first}


LATE = "echo K3S_STANDIN_STATUS_EVERY=24 >>/etc/default/k3s-agent; : >/run/k3s-standin-policies-wait"


def test_an_agent_whose_network_policies_start_late_does_not_hold_up_the_run(intact: Site) -> None:
    intact.deploy()
    intact.lab.exec("a1", ["sh", "-c", f"cat /etc/default/k3s-agent >/run/kept 2>/dev/null; {LATE}"])

    def add(data: dict[str, Any]) -> None:  # no label, which a node would keep
        data["data"]["k3s_cluster"].setdefault("agent", {}).setdefault("kubelet-arg", []).append("max-pods=111")

    intact.edit(add)
    try:
        intact.deploy("--json", str(intact.folder / "out.json"))
    finally:
        intact.lab.exec(
            "a1", ["sh", "-c", "mv /run/kept /etc/default/k3s-agent; find /etc/default/k3s-agent -empty -delete"]
        )
    notes = json.loads((intact.folder / "out.json").read_text())["notes"]
    assert [note for note in notes if note.startswith("a1: its node is Ready") and "network policies" in note], notes
    assert intact.lab.exec("a1", ["systemctl", "is-active", "k3s-agent"], check=False).stdout.strip() == "active"


def _all_ready(site: Site) -> None:
    assert site.nodes() == dict.fromkeys(("s1", "s2", "s3", "a1", "a2"), True)


@pytest.mark.parametrize("mended", [True, False])
def test_a_restore_that_was_killed_is_made_right_by_the_next_run(intact: Site, mended: bool) -> None:
    intact.deploy()
    kept = {path: path.read_text() for path in (intact.folder / "inventory").iterdir()}
    files = state(intact)
    k3s_refuses(intact)
    with intact.start("deploy.py") as process:
        try:
            eventually(lambda: _has(intact, "v: loud"))
            eventually(lambda: _has_not(intact, "v: loud"))
        finally:
            process.kill()
            process.communicate()
    if mended:
        for path, text in kept.items():
            path.write_text(text)
        intact.deploy()
    else:
        intact.lab.exec("s1", ["systemctl", "stop", "k3s"])  # this run finds it as a slow machine would: not ready
        done = intact.runbook("deploy.py")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "and it is ready again" in done.stderr
        assert state(intact) == files
        assert {name: drained(intact, name) for name in BALANCERS} == {name: set() for name in BALANCERS}
        for path, text in kept.items():
            path.write_text(text)
    assert "nothing to change" in intact.deploy().stdout
    assert state(intact) == files
    assert intact.lab.exec("s1", ["ls", "-d", PREVIOUS], check=False).returncode != 0


def _has(site: Site, words: str) -> None:
    assert words in site.lab.exec("s1", ["cat", "/etc/rancher/k3s/config.yaml"]).stdout


def _has_not(site: Site, words: str) -> None:
    assert words not in site.lab.exec("s1", ["cat", "/etc/rancher/k3s/config.yaml"]).stdout


def test_a_pool_for_the_datastore_is_rolled_out_and_taken_away(intact: Site) -> None:
    kept = {path: path.read_text() for path in (intact.folder / "inventory").iterdir()}
    before = untouched(intact)
    pool = {"max_open": 50, "max_idle": 50, "max_lifetime": "5m"}
    intact.edit(lambda data: data["data"]["k3s_cluster"].update(datastore_pool=pool))
    intact.deploy()
    after = untouched(intact)
    assert {h for h in before if before[h] != after[h]} == {"s1", "s2", "s3"}
    for host in ("s1", "s2", "s3"):
        said = intact.lab.exec(host, ["journalctl", "-u", "k3s", "-o", "cat", "--no-pager"]).stdout
        line = [line for line in said.splitlines() if "connection pooling" in line][-1]
        # The names have changed between releases of kine.
        assert re.search(r"maxIdle(Conns)?=50, maxOpen(Conns)?=50, (max|connMax)Lifetime=5m", line), line
    for path, text in kept.items():
        path.write_text(text)
    intact.deploy()
    assert intact.lab.exec("s1", ["ls", "/etc/default/k3s"], check=False).returncode != 0
    assert "nothing to change" in intact.deploy().stdout


def test_a_server_that_came_up_with_a_datastore_of_its_own_is_not_taken_for_ready(intact: Site) -> None:
    intact.deploy()
    intact.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=2h"]}))
    intact.lab.exec("s1", ["sh", "-c", BREAK, "-", BROKEN, ""])
    before = untouched(intact)
    done = intact.runbook("deploy.py")
    intact.lab.exec("s1", ["sh", "-c", MEND, "-", BROKEN])
    after = untouched(intact)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a different datastore" in done.stderr
    assert {h for h in before if before[h] != after[h]} == {"s1"}


def test_a_living_cluster_s_datastore_is_dumped_before_its_host_is_changed(intact: Site) -> None:
    intact.deploy()
    intact.lab.exec("db1", ["sh", "-c", "echo '# by hand' >>/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf"])
    planned = intact.deploy("--plan").stdout
    assert "the datastore would be dumped first" in planned
    assert "db1: mariadb.service would restart: the API does not answer" in planned
    intact.deploy("--json", str(intact.folder / "out.json"))
    report = json.loads((intact.folder / "out.json").read_text())
    (note,) = [note for note in report["notes"] if ": dump of the datastore: " in note]
    assert [note for note in report["notes"] if "mariadb.service has restarted; all servers were ready again" in note]
    path = note.split(": ")[2].split()[0]
    token = (intact.folder / ".state" / "lab" / "token").read_text().strip()
    assert hashlib.sha256(token.encode()).hexdigest()[:12] in path
    assert intact.lab.exec("db1", ["stat", "-c", "%a %U", path]).stdout.strip() == "600 root"
    tables = f"zcat {path} | grep -cE '^(CREATE TABLE `kine`|INSERT INTO `kine`|-- Dump completed)'"
    assert int(intact.lab.exec("db1", ["sh", "-c", tables]).stdout) >= 3
    assert "dump of the datastore" not in intact.deploy().stdout
    eventually(intact.answers)


def test_the_cluster_is_whole_again_at_the_end(cluster: Site) -> None:
    cluster.lab.exec("s1", ["systemctl", "restart", "k3s"])
    cluster.deploy()
    assert "nothing to change" in cluster.deploy().stdout
