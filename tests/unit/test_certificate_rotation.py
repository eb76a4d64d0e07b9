"""K3s' certificates are made anew: what is planned, what happens on a host, and what the next run finishes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import Busy, Declined, NotReady
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import CertificateFile
from nornir_k3s.model.plan import HostPlan, Plan
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.planner import plan_host
from nornir_k3s.roles.desired import Known
from nornir_k3s.run.options import check
from nornir_k3s.state import check_certificate, locks
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows import rotate, rotate_certificates

from .conftest import HOSTS
from .hosts import changed
from .test_certificate import CA, signed
from .test_left import nr, prepared
from .test_promises import converged, known, listed
from .test_rollback import SPEC, Host, ready
from .test_rotation import change

Load = Callable[..., Cluster]
BEGUN = 5000.0
SERVER, AGENT = f"{k3s.DATA}/server/tls/client-admin.crt", f"{k3s.DATA}/agent/client-kubelet.crt"
LATER = datetime.now(UTC) + timedelta(days=300)


def planned(cluster: Cluster, name: str, *files: CertificateFile, **more: Any) -> list[str]:
    facts = changed(converged(cluster, name), certificates=files, **more)
    found_out = known(cluster, listed(cluster))
    found_out = Known(**{**vars(found_out), "renew": BEGUN})
    return [step.summary for step in plan_host(cluster, cluster.member(name), facts, found_out).steps]


def file(path: str, written: float, *, authority: bool = False) -> CertificateFile:
    return CertificateFile(path, LATER, authority, int(written))


DROP = "delete K3s' certificates with `k3s certificate rotate`"
ANEW = "it makes new certificates when it starts"


def test_a_server_deletes_old_ones_at_once_before_its_restart(load: Load) -> None:
    cluster = load()
    steps = [DROP, f"restart k3s.service: {ANEW}"]
    assert planned(cluster, "s1", file(SERVER, BEGUN - 1)) == steps
    assert planned(cluster, "s1", file(SERVER, BEGUN - 1), file(AGENT, BEGUN + 9)) == steps
    assert planned(cluster, "s1", file(SERVER, BEGUN + 1)) == []
    config = converged(cluster, "s1").files[k3s.CONFIG]
    differs = {"files": {k3s.CONFIG: config.__class__(**{**vars(config), "sha256": "0"})}}
    assert planned(cluster, "s1", file(SERVER, BEGUN - 1), **differs)[-2:] == [DROP, "restart k3s.service"]


def test_an_agent_makes_its_own_anew_at_any_start(load: Load) -> None:
    cluster = load()
    assert planned(cluster, "a1", file(AGENT, BEGUN - 1)) == [f"restart k3s-agent.service: {ANEW}"]
    assert planned(cluster, "a1", file(AGENT, BEGUN + 1)) == []


def test_old_cas_and_other_files_are_no_reason(load: Load) -> None:
    cluster = load()
    ca, other = file(f"{k3s.DATA}/server/tls/server-ca.crt", 1, authority=True), file("/etc/other.pem", 1)
    assert planned(cluster, "s1", ca, other, file(SERVER, BEGUN + 1)) == []


def test_the_clock_of_a_host_counts(load: Load) -> None:
    cluster = load()
    assert planned(cluster, "s1", file(SERVER, BEGUN + 55), skew=60.0) != []
    assert planned(cluster, "s1", file(SERVER, BEGUN + 55), skew=60.0, skew_error=6.0) == []


def test_one_that_was_killed_before_its_restart_is_restarted_by_any_deploy(load: Load) -> None:
    pending = {"ledger": {**vars(HostFacts("s1").ledger), "installed": "", "pending": frozenset(["k3s.service"])}}
    steps = planned(load(), "s1", file(f"{k3s.DATA}/server/tls/server-ca.crt", 1, authority=True), **pending)
    assert steps[-1] == "restart k3s.service"
    assert DROP not in steps


K3S = """#!/bin/sh
[ "$1 $2 $3" = 'certificate rotate --data-dir' ] || exit 9
[ ! -e "$4/fails" ] || { echo 'level=fatal msg="no space left"' >&2; exit 1; }
now=$(date +%s)
cp -r "$4/server/tls" "$4/server/tls-$now"
rm "$4/server/tls/client-admin.crt"
"""


class Node(Host):
    """A server whose K3s deletes its certificates, and whose unit only notes what it is told."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        super().__init__(root)
        self.data = root / "data"
        (self.data / "server" / "tls").mkdir(parents=True)
        (self.data / "server" / "tls" / "client-admin.crt").write_text("old")
        (self.data / "server" / "tls-1600000000").mkdir()  # somebody else's
        (root / "k3s").write_text(K3S)
        (root / "k3s").chmod(0o755)
        facts = changed(converged(cluster, "s1"), certificates=(file(SERVER, 1),))
        found_out = Known(**{**vars(known(cluster, listed(cluster))), "renew": BEGUN})
        self.steps = plan_host(cluster, cluster.member("s1"), facts, found_out).steps

    def run(self, script: str, *, fails: bool = False) -> str:
        moved = script.replace(k3s.DATA, str(self.data)).replace(k3s.BINARY, str(self.root / "k3s"))
        return super().run(moved, fails=fails)

    def folders(self) -> int:
        return len(list((self.data / "server").glob("tls-*")))


@pytest.fixture
def node(load: Load, tmp_path: Path) -> Node:
    return Node(tmp_path, load())


def test_the_old_ones_are_kept_until_the_server_is_ready(node: Node) -> None:
    said = node.change(*node.steps, seen=ready())
    assert f"@did\t{node.steps[0].id}\tchanged" in said
    assert not (node.data / "server" / "tls" / "client-admin.crt").exists()
    assert (node.root / "calls").read_text().splitlines()[-2:] == ["stop k3s.service", "start --no-block k3s.service"]
    assert not list((node.state / "pending").glob("*"))
    assert node.folders() == 2
    node.run(apply.forget("k3s.service"))
    assert node.folders() == 1
    assert (node.data / "server" / "tls-1600000000").is_dir()
    node.run(apply.forget("k3s.service"))  # nothing is left to do


def test_a_run_that_is_killed_between_the_two_leaves_the_note_that_it_must_restart(node: Node) -> None:
    node.change(node.steps[0], seen=ready())
    assert (node.state / "pending" / "k3s.service").exists()
    node.change(node.steps[1], seen=ready())
    node.run(apply.forget("k3s.service"))
    assert node.folders() == 1


def test_what_k3s_says_is_told_where_it_fails(node: Node) -> None:
    (node.data / "fails").touch()
    script = apply.script(node.steps, SPEC).reveal()
    node.run(script, fails=True)
    assert "no space left" in (node.state / "certificates.log").read_text()
    assert "k3s" not in (node.root / "calls").read_text()


def test_a_certificate_of_the_health_check_from_before_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", base=tmp_path)
    csr, key = check_certificate.request()
    check_certificate.save(store, CA, signed(csr, 365), key)
    assert check_certificate.load(store, CA, since=time.time() - 9)
    assert not check_certificate.load(store, CA, since=time.time() + 9)


class Deploys:
    """A cluster in memory whose deploys are recorded; `fails` and `skips` say how they end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.given = folder, list[dict[str, Any]]()
        self.file = folder / "state" / "test" / rotate_certificates.NAME
        self.fails, self.skips = False, list[str]()
        monkeypatch.setattr(rotate_certificates, "deploy", self._deploy)
        monkeypatch.setattr(plans, "plan", self._plan)

    def _deploy(self, _: object, **given: Any) -> Report:
        check(given["options"])
        assert json.loads(self.file.read_text())["begun"] == given["options"]["renew"]
        self.given.append(given)
        if self.fails:
            raise NotReady("s2", "not ready")
        return Report(cluster="test", skipped=self.skips)

    def _plan(self, _: object, **given: Any) -> Plan:
        check(given["options"])
        hosts = {name: HostPlan(role="servers", changes=[change(name, "servers", DROP)]) for name in ("s1", "s2")}
        return Plan(cluster="test", version="v", hosts=hosts, phases=["servers"], batches=[], notes=["a note"])

    def rotate(self, **given: Any) -> Report:
        return rotate.rotate(nr(HOSTS), "certificates", base=self.folder, state=self.folder / "state", **given)

    def begun(self) -> float:
        return float(self.given[-1]["options"]["renew"])


@pytest.fixture
def deploys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploys:
    return Deploys(tmp_path, monkeypatch)


def test_a_rotation_is_a_deploy_that_renews(deploys: Deploys) -> None:
    asked: list[Rotation] = []

    def confirm(plan: Rotation) -> bool:
        asked.append(plan)
        return True

    before = time.time()
    deploys.rotate(confirm=confirm, ignore_window=True)
    assert before <= deploys.begun() <= time.time()
    assert deploys.given[0]["options"]["renew_datastore"] == deploys.begun()
    assert deploys.given[0]["choice"].ignore_window
    assert [(step.hosts, step.what) for step in asked[0].steps] == [(["s1", "s2"], DROP)]
    assert asked[0].notes == ["a note"]
    assert not deploys.file.exists()


@pytest.mark.parametrize("how", ["fails", "skips"])
def test_one_that_did_not_end_is_finished_by_the_next(deploys: Deploys, how: str) -> None:
    deploys.fails, deploys.skips = how == "fails", ["a1"] if how == "skips" else []
    if deploys.fails:
        with pytest.raises(NotReady):
            deploys.rotate()
    else:
        deploys.rotate()
    first = deploys.begun() - 9
    deploys.file.write_text(json.dumps({"begun": first}))
    plan = rotate.plan_rotation(nr(HOSTS), "certificates", base=deploys.folder, state=deploys.folder / "state")
    assert plan.notes[-1].startswith("it goes on with the rotation that began at 20")
    deploys.fails, deploys.skips = False, []
    deploys.rotate()
    assert deploys.begun() == first
    assert not deploys.file.exists()


def test_one_of_a_filtered_inventory_goes_on_with_the_whole_one(deploys: Deploys) -> None:
    prepared(HOSTS, deploys.folder)
    team = nr({name: host for name, host in HOSTS.items() if name != "a1"})
    rotate.rotate(team, "certificates", base=deploys.folder, state=deploys.folder / "state")
    first = deploys.begun()
    deploys.rotate()
    assert deploys.begun() == first
    assert not deploys.file.exists()


@pytest.mark.parametrize("later", [-8 * 86400, 9999], ids=["long ago", "not yet"])
def test_one_from_another_time_begins_anew(deploys: Deploys, later: float) -> None:
    deploys.file.parent.mkdir(parents=True)
    deploys.file.write_text(json.dumps({"begun": time.time() + later}))
    deploys.rotate()
    assert abs(deploys.begun() - time.time()) < 60


def test_a_no_and_a_deploy_meanwhile_change_nothing(deploys: Deploys) -> None:
    with pytest.raises(Declined):
        deploys.rotate(confirm=lambda _: False)
    deploys.file.parent.mkdir(parents=True, exist_ok=True)
    with locks.deploy_lock(deploys.file.parent), pytest.raises(Busy):
        deploys.rotate()
    assert not deploys.given
    assert not deploys.file.exists()
