"""Several controllers for one cluster: each has the inventory, and a state folder of its own, or none yet."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Site, controller, eventually, unchanged

SAVED = ("token", "datastore-password", "ca.json", "lb-check.json", "datastore-keys.json", "kubeconfig")
WHO = re.compile(r"\S+@\S+ deploys since \d\d:\d\d:\d\d UTC")
CHANGED = "echo '# by hand' >>/etc/haproxy/haproxy.cfg"


def state(site: Site, name: str) -> Path:
    return site.folder / ".state" / "lab" / name


@pytest.fixture(scope="module")
def second(cluster: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A controller that lives as long as the tests."""
    return controller(cluster, tmp_path_factory.mktemp("second"))


def test_a_controller_without_a_state_takes_it_back_and_finds_nothing_to_do(cluster: Site, second: Site) -> None:
    done = second.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    (note,) = (line for line in done.stdout.splitlines() if "taken back from the hosts" in line)
    assert "(s1, s2, s3, db1, lb1, lb2): token, database password, keys of the datastore" in note
    for name in SAVED[:2]:
        assert state(second, name).read_text() == state(cluster, name).read_text()
        assert state(second, name).read_text().strip() not in done.stdout + done.stderr
    assert all(state(second, name).stat().st_mode & 0o777 == 0o600 for name in SAVED)
    unchanged(second)
    before = cluster.processes()
    assert "nothing to change" in second.deploy("--yes").stdout
    assert cluster.processes() == before
    second.answers()


def passwords(site: Site) -> set[str]:
    """The logins to the datastore that servers have."""
    read = ["grep", "^datastore-endpoint", "/etc/rancher/k3s/config.yaml"]
    return {site.lab.exec(name, read).stdout for name in ("s1", "s2", "s3")}


def test_what_one_controller_rotates_the_other_takes_over(cluster: Site, second: Site, tmp_path: Path) -> None:
    old, third = state(cluster, "datastore-password").read_text(), controller(cluster, tmp_path)

    def begun() -> None:
        assert len(passwords(cluster)) == 2

    cluster.lab.exec("s2", ["systemd-run", "--unit=busy", "flock", "/var/lib/nornir-k3s/lock", "sleep", "600"])
    running = second.start("rotate.py", "database-password", "--yes")
    try:
        eventually(begun)
        for command in (("drift.py", "--no-history"), ("deploy.py", "--plan")):
            done = third.runbook(*command)
            assert done.returncode == 5, done.stdout + done.stderr
            for words in (r"\S+@\S+ rotates since \d\d:\d\d:\d\d UTC; meanwhile", "do not agree: database password"):
                assert re.search(words, done.stderr), done.stdout + done.stderr
        assert not state(third, "token").exists()
    finally:
        cluster.lab.exec("s2", ["systemctl", "stop", "busy"], check=False)
        said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert state(cluster, "datastore-password").read_text() == old != state(second, "datastore-password").read_text()
    before = cluster.processes()
    done = cluster.deploy("--yes")
    assert "taken back from the hosts, where they are newer: database password" in done.stdout, done.stdout
    assert "nothing to change" in done.stdout
    assert state(cluster, "datastore-password").read_text() == state(second, "datastore-password").read_text()
    assert cluster.processes() == before
    unchanged(cluster)


def test_a_job_with_secrets_by_reference_needs_no_state(
    cluster: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = controller(cluster, tmp_path)
    monkeypatch.setenv("K3S_DATABASE_PASSWORD", state(cluster, "datastore-password").read_text().strip())
    secrets = {
        "token": {"command": ["cat", str(state(cluster, "token"))]},
        "datastore": {"kind": "mariadb", "password": {"env": "K3S_DATABASE_PASSWORD"}},
    }
    job.edit(lambda data: data["data"]["k3s_cluster"].update(secrets))
    done = job.runbook("deploy.py", "--plan", "--exit-code")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(job.folder / ".state")
    done = job.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not state(job, "token").exists()


def change_by_hand(site: Site, *hosts: str) -> None:
    for name in hosts:
        site.lab.exec(name, ["sh", "-c", CHANGED])


@contextmanager
def working(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A deploy that has changed a load balancer, and waits for the other one; it is killed at the end."""
    change_by_hand(site, "lb1", "lb2")
    wait = ["systemd-run", "--unit=busy", "flock", "/var/lib/nornir-k3s/lock", "sleep", "600"]
    site.lab.exec("lb2", wait)
    running, said = site.start("deploy.py", "--yes"), ""
    assert running.stdout
    try:
        for line in running.stdout:
            said += line
            if line.strip().startswith("load balancers:"):
                break
        else:
            raise AssertionError(said)
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
        site.lab.exec("lb2", ["systemctl", "stop", "busy"], check=False)


def lease(site: Site) -> dict[str, object]:
    answer = site.kubectl("get", "lease", "nornir-k3s", "-n", "kube-system", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    spec: dict[str, object] = json.loads(answer.stdout)["spec"]
    return spec


def race(one: Site, other: Site) -> None:
    """Both deploy at once: one of them makes the change, the other one none."""
    change_by_hand(one, "lb1")

    def deploy(site: Site) -> tuple[int, bool, str]:
        report = site.folder / "race.json"
        report.unlink(missing_ok=True)
        done = site.runbook("deploy.py", "--yes", "--json", str(report))
        changed = report.exists() and any(host["changes"] for host in json.loads(report.read_text())["hosts"].values())
        return done.returncode, changed, done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(deploy, (one, other)))
    codes = sorted(code for code, _, _ in outcomes)
    assert codes in ([0, 0], [0, 5]), outcomes
    assert sum(changed for _, changed, _ in outcomes) == 1, outcomes
    assert all(WHO.search(said) or "has just begun" in said for code, _, said in outcomes if code == 5), outcomes
    assert "nothing to change" in other.deploy("--yes").stdout


def test_two_controllers_race_and_one_at_a_time_changes_the_cluster(cluster: Site, second: Site) -> None:
    for _ in range(3):
        race(cluster, second)
    assert not lease(cluster)["holderIdentity"]


@pytest.mark.matrix
def test_two_controllers_race_fifty_times(cluster: Site, second: Site) -> None:
    for _ in range(50):
        race(cluster, second)


def test_all_are_told_who_is_at_work_and_a_dead_owner_stops_nobody(cluster: Site, second: Site) -> None:
    def leased() -> None:
        assert re.fullmatch(r"\S+@\S+/[0-9a-f]{8}", str(lease(cluster)["holderIdentity"]))

    with working(second):
        eventually(leased)  # where the API was too slow, it is taken with the next renewal
        status = cluster.runbook("status.py")
        assert WHO.search(status.stdout), status.stdout + status.stderr
        plan = cluster.runbook("deploy.py", "--plan")
        assert (plan.returncode, bool(WHO.search(plan.stdout))) == (0, True), plan.stdout + plan.stderr
        drift = cluster.runbook("drift.py", "--no-history")
        assert (drift.returncode, bool(WHO.search(drift.stderr))) == (5, True), drift.stdout + drift.stderr
        refused = cluster.runbook("deploy.py", "--yes")
        assert (refused.returncode, bool(WHO.search(refused.stderr))) == (5, True), refused.stdout + refused.stderr
    begin = time.monotonic()
    cluster.deploy("--yes")
    assert time.monotonic() - begin < 180, "no lock of a dead owner lasts so long"
    assert "nothing to change" in second.deploy("--yes").stdout


@pytest.mark.matrix
def test_a_controller_that_was_suspended_stops_when_another_one_has_the_cluster(cluster: Site, second: Site) -> None:
    cluster.lab.exec("a1", ["chmod", "640", "/etc/rancher/k3s/config.yaml"])
    with working(second) as running:
        running.send_signal(signal.SIGSTOP)
        cluster.lab.exec("lb2", ["systemctl", "stop", "busy"])
        time.sleep(31)  # what the test is about: hosts wait so long for its beats
        cluster.deploy("--yes")
        running.send_signal(signal.SIGCONT)
        said, _ = running.communicate(timeout=300)
        assert running.returncode == 5, said
        assert "has lost its lock" in said
    assert "nothing to change" in cluster.deploy("--yes").stdout


def test_a_reviewed_plan_is_carried_out_by_another_controller_or_not_at_all(cluster: Site, second: Site) -> None:
    saved, report = cluster.folder / "plan.json", second.folder / "applied.json"
    change_by_hand(cluster, "lb1")
    cluster.deploy("--plan", "--out", str(saved))
    assert saved.stat().st_mode & 0o777 == 0o600
    for secret in ("token", "datastore-password"):
        assert (cluster.folder / ".state" / "lab" / secret).read_text().strip() not in saved.read_text()
    change_by_hand(cluster, "lb2")
    moved = second.runbook("deploy.py", "--apply", str(saved))
    assert moved.returncode == 1, moved.stdout + moved.stderr
    for text in ("file /etc/haproxy/haproxy.cfg has changed", "would be needed, and is not in the plan"):
        assert f"lb2: {text}" in moved.stderr.replace("the step file:/etc/haproxy/haproxy.cfg ", ""), moved.stderr
    assert "lb1:" not in moved.stderr
    cluster.deploy("--yes", "--limit", "lb2")
    done = second.deploy("--apply", str(saved), "--json", str(report))
    hosts = json.loads(report.read_text())["hosts"]
    applied = {f"{name}/{one}" for name, host in hosts.items() for one in host["changes"]}
    plan = json.loads(saved.read_text())["plan"]["hosts"]
    assert applied == {change["id"] for host in plan.values() for change in host["changes"]} != set(), done.stdout
    assert "nothing to change" in cluster.deploy("--yes").stdout
