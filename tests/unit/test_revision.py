"""A datastore whose newest revision is lower than before: noticed, remembered, over when all servers have restarted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nornir_k3s.compare import datastore, passing
from nornir_k3s.datastore_probe.probe import probe
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.machine_facts import Unreachable
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.went_back import WentBack
from nornir_k3s.planner import plan_host
from nornir_k3s.state import revision
from nornir_k3s.state.store import Store
from tests.unit.conftest import HOSTS
from tests.unit.hosts import changed
from tests.unit.test_promises import NOW, RUNNING, STARTED, converged, known

Load = Callable[..., Cluster]
OTHERS = {name: host for name, host in HOSTS.items() if name != "db1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", base=tmp_path)


def look(
    store: Store, cluster: Cluster, newest: int, now: float = 100, starts: tuple[float, ...] = ()
) -> revision.Seen:
    seen = revision.look(store, cluster, newest, now=now, starts=starts)
    revision.save(store, seen)
    return seen


def test_a_lower_revision_is_told_until_all_servers_have_restarted(store: Store, load: Load) -> None:
    cluster = load()
    assert [look(store, cluster, newest).back for newest in (0, 5, 9, 0, 9)] == [None] * 5
    back = WentBack(9, 4, 200)
    assert look(store, cluster, 4, now=200).back == back
    assert look(store, cluster, 30, now=300, starts=(100, 250)).back == back, "one still has the old caches"
    assert look(store, cluster, 31, now=400, starts=()).back == back, "nothing is known of the servers"
    assert look(store, cluster, 32, now=500, starts=(210, 250)).back is None
    assert look(store, cluster, 31, now=600).back == WentBack(32, 31, 600)


def test_another_datastore_or_another_cluster_in_it_begins_anew(store: Store, load: Load) -> None:
    own = load()
    external, moved = (replace(own, endpoint=Secret(f"postgres://k3s:pw@{host}/k3s")) for host in ("one", "two"))
    assert [look(store, one, newest).back for one, newest in ((external, 90), (moved, 3))] == [None, None]
    assert look(store, own, 2).back is None
    assert look(store, own, 1).back == WentBack(2, 1, 100)


def test_what_is_saved_has_no_secret_and_only_root_reads_it(store: Store, load: Load) -> None:
    look(store, replace(load(), endpoint=Secret("postgres://k3s:hunter2@one/k3s")), 90)
    path = store.folder / "revision.json"
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("started", "restarts"), [(STARTED, True), (NOW, True), (NOW + 61, False)])
def test_servers_that_ran_by_then_restart_by_their_own_clock(load: Load, started: int, restarts: bool) -> None:
    cluster, back = load(), WentBack(9, 4, NOW)
    for name, expected in (("s1", restarts), ("a1", False)):
        facts = changed(converged(cluster, name), skew=60.0)
        unit = "k3s.service" if name == "s1" else "k3s-agent.service"
        facts = changed(facts, units={unit: replace(RUNNING, started=started, changed=started)})
        found_out = known(cluster, facts.api.nodes or converged(cluster, "s1").api.nodes or ())
        plan = plan_host(cluster, cluster.member(name), facts, replace(found_out, went_back=back))
        told = [step.summary for step in plan.steps]
        words = (
            "restart k3s.service: the datastore went back from revision 9 to 4, and the server answers from its caches"
        )
        assert (words in told) == expected, told


def test_it_is_an_error_of_drift_that_a_deploy_repairs_after_a_second_look(load: Load) -> None:
    assert list(datastore.went_back(None)) == []
    (one,) = datastore.went_back(WentBack(9, 4, 200))
    assert (one.id, one.severity, one.fixed_by) == ("cluster/revision:datastore", "error", "deploy")
    assert "went back from revision 9 to 4" in one.found
    assert passing.hosts(load(), {}, [one]) == {"db1", "s1", "s2"}


@pytest.mark.parametrize(
    ("kind", "name", "what", "command"),
    [
        ("mariadb", "k3s_old_0a1b2c3d", "database", "mariadb k3s -e 'DROP DATABASE k3s_old_0a1b2c3d'"),
        ("mysql", "kine_before_0a1b2c3d", "table", "mysql k3s -e 'DROP TABLE kine_before_0a1b2c3d'"),
        ("postgresql", "k3s_old_0a", "database", "runuser -u postgres -- psql k3s -c 'DROP DATABASE k3s_old_0a'"),
        ("etcd", "/var/lib/etcd/test.old_0a1b2c3d", "folder", "rm -r /var/lib/etcd/test.old_0a1b2c3d"),
        ("", "kine_before_0a1b2c3d", "table", "DROP TABLE kine_before_0a1b2c3d;"),
    ],
)
def test_what_a_restore_has_kept_is_a_note_with_the_command_that_removes_it(
    load: Load, kind: str, name: str, what: str, command: str
) -> None:
    outside = {"kind": "etcd", "hosts": ["10.0.0.9"]}
    cluster = load({"datastore": {"kind": kind} if kind else outside}, hosts=HOSTS if kind else OTHERS)
    kept = Database(alive=True, aside={name: what})
    hosts = ("db1",) if kind else ("s1", "s2")  # each server reads an external one
    where = "db1" if kind else "the datastore"
    assert datastore.kept_aside(cluster, {host: HostFacts(host, database=kept) for host in hosts}) == [
        f"{where} keeps what was there before a restore in {what} {name}; to remove it when nobody needs it: {command}"
    ]
    assert datastore.kept_aside(cluster, {}) == []


def test_a_datastore_that_no_server_reaches_has_no_revision(load: Load) -> None:
    outside = replace(load(), endpoint=Secret("mysql://k3s:pw@tcp(10.0.0.9:3306)/k3s"))
    facts = HostFacts("s1", unreachable=(Unreachable("10.0.0.9:3306", "Connection refused"),))
    assert probe(outside, facts, None, test_rights=True).database.revision == 0  # type: ignore[arg-type]  # no connection
