"""What can be moved to another datastore, in which order, and what an interrupted move leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k3s_standin.datastore_sql import sqlite_store
from nornir.core.task import Result

from nornir_k3s import Declined, Interrupted, K3sError, PreflightFailed, Report, UsageError, k3s
from nornir_k3s.apply import moving as scripts
from nornir_k3s.checks import datastore as datastore_checks
from nornir_k3s.checks import moving as checks
from nornir_k3s.checks import preflight
from nornir_k3s.checks.other_installs import SQLITE
from nornir_k3s.cli import move as command
from nornir_k3s.datastore_copy import connect
from nornir_k3s.datastore_copy.content import Content
from nornir_k3s.datastore_copy.dialect import DRAFT, MYSQL
from nornir_k3s.datastore_copy.table import Table
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.finding import problem
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles, SettingsFile
from nornir_k3s.model.move import Move
from nornir_k3s.model.paths import MOVED, MOVING
from nornir_k3s.phases import datastore as datastore_phase
from nornir_k3s.phases import moving, observe
from nornir_k3s.roles import datastore
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows import move

from .conftest import HOSTS, SETTINGS
from .test_command_ends import Ctx, ctx, parsed, returns
from .test_left import nr, prepared

__all__ = ["ctx"]  # a fixture
Load = Callable[..., Cluster]
UNIT = "/etc/systemd/system/k3s.service"
OLD = "datastore-endpoint: mysql://u:hush@tcp(10.0.0.99:3306)/k3s\ndatastore-cafile: /etc/ca.pem\n"
ENV = "/etc/systemd/system/k3s.service.env"


def server(name: str, config: str | None = OLD, *present: str, running: bool = True, ours: bool = False) -> HostFacts:
    """Return the facts of a server with K3s.

    Arguments:
        config: Its config.yaml; None if that is as wanted.
        present: Paths that exist besides the unit.
        ours: This tool has written the file.
    """
    state = UnitState(load="loaded", active="active" if running else "inactive")
    nodes = (NodeState(name, True, SETTINGS["version"], ("control-plane",), address=HOSTS[name][0]),)
    return HostFacts(
        name,
        present=frozenset({UNIT, *present}),
        units={"k3s.service": state},
        files={k3s.CONFIG: FileState("file", text=config)},
        ledger=Ledger(files=frozenset([k3s.CONFIG]) if ours else frozenset()),
        api=Api(ready=running, nodes=nodes if running else None),
    )


def bare(name: str) -> HostFacts:
    return HostFacts(name, files={k3s.CONFIG: FileState("absent")})


def seen(*servers: HostFacts) -> dict[str, HostFacts]:
    return {facts.host: facts for facts in (*servers, *(HostFacts(name) for name in ("db1", "a1", "lb1", "lb2")))}


ALONE = server("s1", "token: x\n", SQLITE)
WANTED = server("s1", None, ours=True)


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ((ALONE, bare("s2")), ""),
        ((server("s1"), server("s2")), ""),
        ((server("s1", running=False), server("s2", running=False)), ""),
        ((WANTED, server("s2", running=False)), ""),
        ((server("s1", "token: x\n"), bare("s2")), "no file of s1 says what K3s runs on"),
        ((server("s1"), server("s2", "token: x\n")), "no file of s2 says what K3s runs on, and it would go on writing"),
        ((server("s1"), server("s2", "token: x\n", running=False)), ""),
        ((bare("s1"), bare("s2")), "no server has K3s: there is nothing to move"),
        ((WANTED, bare("s2")), "s1 use the datastore of the inventory already"),
        ((ALONE, server("s2", "token: x\n", SQLITE)), "s1, s2 have an SQLite each"),
        (
            (ALONE, server("s2")),
            f"on different datastores: s1: SQLite, {SQLITE}; s2: MariaDB",
        ),
        ((WANTED, server("s2")), "s1 use the new datastore, and s2 run on the old one: stop K3s there"),
        ((server("s1", "datastore-endpoint: https://10.0.0.99:2379\n"), bare("s2")), ""),
        (
            (replace(ALONE, extra_settings=(SettingsFile(ENV, ("K3S_DATASTORE_ENDPOINT",), 1),)), bare("s2")),
            f"s1: {ENV} sets the endpoint",
        ),
        (
            (replace(ALONE, api=Api(ready=True, nodes=(NodeState("s1", True, "v1.33.1+k3s1"),))), bare("s2")),
            "the inventory has K3s v1.34.9+k3s1, and s1 runs v1.33.1+k3s1: move first, upgrade afterwards",
        ),
    ],
)
def test_what_can_be_moved(load: Load, servers: tuple[HostFacts, ...], words: str) -> None:
    told = "; ".join(checks.refusals(load(), seen(*servers)))
    assert words in told
    assert bool(told) == bool(words), told
    assert "hush" not in told


def test_etcd_is_a_place_to_move_to_and_who_left_is_removed_first(load: Load, tmp_path: Path) -> None:
    assert list(checks.refusals(load({"datastore": {"kind": "etcd"}}), seen(ALONE, bare("s2")))) == []
    prepared({**HOSTS, "s3": ("10.0.0.19", "servers")}, tmp_path)
    run = prepared(HOSTS, tmp_path)
    facts = seen(server("s1", running=False), server("s2", running=False))
    assert "s3 left the inventory" in "; ".join(checks.refusals(run.cluster, facts))


def test_an_endpoint_is_told_without_its_login(load: Load) -> None:
    found = checks.origins(load(), seen(server("s1"), server("s2")))
    assert str(found["s1"]) == "MariaDB or MySQL at 10.0.0.99:3306, database k3s"
    assert found["s1"].files == {"datastore-cafile": "/etc/ca.pem"}
    own = datastore.endpoint(load()).reveal()
    assert checks.origins(load(), seen(server("s1", f"datastore-endpoint: {own}\n"))) == {}
    assert checks.switched(load(), seen(server("s1", f"datastore-endpoint: {own}\n"), bare("s2"))) == ["s1"]


def test_no_deploy_starts_k3s_while_a_move_has_not_ended_and_a_moved_sqlite_is_none(load: Load) -> None:
    def errors(facts: HostFacts) -> set[str]:
        return {one.subject for one in preflight.check(load(), {"s1": facts}) if one.severity == "error"}

    assert "sqlite" in errors(ALONE)
    assert "sqlite" not in errors(server("s1", "token: x\n", SQLITE, MOVED, running=False))
    assert "moving" in errors(server("s1", OLD, MOVING, MOVED, running=False))


def test_stopped_servers_do_not_become_another_cluster_on_an_empty_datastore(load: Load) -> None:
    cluster = load()
    stopped = replace(server("s1", running=False), server=ServerFiles(token=cluster.token.fingerprint()))

    def found(**facts: HostFacts) -> list[str]:
        return [one.remedy for one in checks.check(cluster, {"s1": stopped, **facts})]

    empty = HostFacts("db1", database=Database(alive=True))
    (remedy,) = found(db1=empty)
    assert "nornir-k3s move" in remedy
    assert found(db1=HostFacts("db1")) == [remedy], "it was never set up"
    assert found(db1=HostFacts("db1", packages={"mariadb-server": "1"})) == [], "it is down: nobody knows"
    assert found(db1=empty, s2=server("s2", None, ours=True)) == [], "another one is ready"
    assert found(db1=HostFacts("db1", database=Database(bootstrap={"/bootstrap/x": 9}))) == []
    assert found(db1=empty, s1=replace(stopped, server=ServerFiles(token="of another cluster"))) == []
    moved = replace(stopped, present=frozenset({*stopped.present, MOVED}))
    assert found(db1=empty, s1=moved) == [remedy], "an earlier move has ended"


def test_an_etcd_with_a_part_of_a_copy_is_no_place_for_a_cluster(load: Load) -> None:
    begun = {"db1": HostFacts("db1", database=Database(alive=True, unfinished=True)), "s1": bare("s1")}
    (found,) = checks.check(load({"datastore": {"kind": "etcd"}}), begun)
    assert (found.host, found.subject, found.severity) == ("db1", "moving", "error")
    assert "after a restore, run `nornir-k3s restore FILE` again" in found.remedy
    assert "only if none of it is needed, remove its keys: etcdctl del --prefix" in found.remedy
    assert "s1" in {one.host for one in checks.check(load(), begun | {"s1": server("s1", OLD, MOVING, running=False)})}


def scripted(folder: Path, script: str) -> str:
    """Run a script of the move with a systemctl that only notes how it was called, and other folders."""
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{folder}/log\n')
    (folder / "systemctl").chmod(0o755)
    for path in ("/var/lib/nornir-k3s", k3s.CONFIG.rpartition("/")[0]):
        script = script.replace(path, str(folder / path.rpartition("/")[2]))
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["sh"], input=script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_server_keeps_and_forgets(tmp_path: Path) -> None:
    config, state, log = tmp_path / "k3s" / "config.yaml", tmp_path / "nornir-k3s", tmp_path / "log"
    config.parent.mkdir()
    config.write_text(OLD)
    config.chmod(0o600)
    pem = config.parent / "datastore-cafile.pem"
    pem.write_text("old")
    pem.chmod(0o600)
    for text in (OLD, "of a later run"):  # a run that was killed is run again
        config.write_text(text)
        scripted(tmp_path, scripts.stop())
        kept = state / "moved" / "config.yaml"
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == (OLD, 0o600)
        assert kept.parent.stat().st_mode & 0o777 == 0o700
        assert (state / "moving").exists()
    said = [line for line in log.read_text().splitlines() if "k3s.service" in line]
    assert said[:2] == ["disable -q k3s.service", "stop k3s.service"]
    scripted(tmp_path, scripts.end())
    assert ((state / "moving").exists(), kept.exists()) == (False, True)
    config.write_text("of the second datastore")  # and then to a third one
    scripted(tmp_path, scripts.stop())
    assert kept.read_text() == "of the second datastore", "it leads back to the datastore from before this move"
    kept_pem = kept.parent / "datastore-cafile.pem"
    assert (kept_pem.read_text(), kept_pem.stat().st_mode & 0o777) == ("old", 0o600)
    log.unlink()
    scripted(tmp_path, scripts.back())
    assert not kept.exists()
    assert log.read_text().splitlines()[-1] == "start --no-block k3s.service"


class Link:
    """A session whose host is this machine."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.transport, self.round_trips, self.alive = None, 0, False

    def run(self, script: str, **more: Any) -> Any:
        self.ran.append(more["what"])
        if more["what"].startswith("reading"):
            done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
            return SimpleNamespace(stdout=done.stdout)
        return SimpleNamespace(stdout="@end\n")


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    found = Link()
    monkeypatch.setattr(moving, "session_of", lambda *_: found)
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """SQLite's file of a server."""
    path = tmp_path / "state.db"
    store = sqlite_store(path)
    for number in range(300):
        store.create(f"/registry/configmaps/default/c{number}", b"x" * number)
    return path


@pytest.fixture
def run(tmp_path: Path, link: Link, old: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run from one server on SQLite; the new datastore is a file here."""
    found = prepared(HOSTS, tmp_path)
    found.facts = seen(ALONE, bare("s2"))
    found.sessions["s1"] = link  # type: ignore[assignment]  # what stands in for it
    monkeypatch.setattr(moving, "_SQLITE", (str(old), f"{old}-wal"))
    new = tmp_path / "new.db"

    @contextmanager
    def opened(*_: object) -> Iterator[Any]:
        with connect.sqlite(new) as table:
            yield table

    monkeypatch.setattr(connect, "opened", opened)
    return found


def way(run: Run) -> moving.Way:
    return moving.way(run)


def test_sqlite_is_copied_in_pieces_with_its_log_and_nothing_stays(
    run: Run, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "PIECE", 1)
    with connect.sqlite(old) as writer:  # K3s that was killed leaves its write-ahead log
        writer._query("PRAGMA journal_mode = WAL")
        writer._query("INSERT INTO kine (name, prev_revision, value) VALUES ('/late', 0, zeroblob(3000000))")
        found = moving.copy(run, way(run))
        assert (found.rows, found.newest) == writer.mark() == (301, 301)
    with connect.sqlite(tmp_path / "new.db") as new:
        assert new.content() == found
        assert not new.exists(DRAFT)
    assert not (run.store.folder / moving.FOLDER).exists()
    assert moving.copy(run, way(run)) == found, "a run that was killed after it is run again"
    assert run.report.notes[-1].startswith("the new datastore had the copy already")
    with connect.sqlite(tmp_path / "new.db") as new:
        new._query("INSERT INTO kine (name, prev_revision) VALUES ('/later', 0)")
    with pytest.raises(UsageError, match="has data already: 302 rows up to id 302; the old one has 301 rows"):
        moving.copy(run, way(run))


def test_a_full_disk_here_is_an_expected_error(
    run: Run, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(moving, "fetch", full)
    with pytest.raises(K3sError, match="moving: No space left on device\nK3s was started again"):
        moving.stop_and_copy(run, way(run))
    assert link.ran[-1] == "going back"
    assert not (run.store.folder / moving.FOLDER).exists()


def test_a_copy_that_differs_is_thrown_away(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def loses(self: Table, _: Table) -> Content:
        self.begin()
        return Content(5, 5, "a" * 64)

    monkeypatch.setattr(Table, "take", loses)
    with pytest.raises(K3sError, match="the copy differs: 0 rows"):
        moving.copy(run, way(run))
    with connect.sqlite(tmp_path / "new.db") as new:
        assert not new.exists()
        assert not new.exists(DRAFT)


def test_no_datastore_of_k3s_and_a_file_that_changes(run: Run, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect.sqlite(old) as writer:
        writer._query("ALTER TABLE kine RENAME TO other")
    with pytest.raises(K3sError, match="has no data of K3s"):
        moving.copy(run, way(run))
    monkeypatch.setattr(scripts, "piece", lambda *_: "echo '@piece\teA=='; echo @end\n".replace("\\t", "\t"))
    with pytest.raises(K3sError, match="changed while it was read"):
        moving.copy(run, way(run))


def test_what_would_stop_the_copy_is_found_before_k3s_stops(
    run: Run, old: Path, tmp_path: Path, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.rehearse(run, way(run))
    with connect.sqlite(tmp_path / "new.db") as new:
        assert not new.exists(DRAFT)
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    run.facts = seen(server("s1", OLD.replace("/etc/ca.pem", str(ca))), bare("s2"))
    files = []

    @contextmanager
    def opened(endpoint: Any, given: Any, *_: object) -> Iterator[Any]:
        files.append({name: path.read_text() for name, path in vars(given).items() if path})
        where = old if endpoint.hosts[0][0] == "10.0.0.99" else tmp_path / "new.db"
        with connect.sqlite(where) as table:
            table.dialect = MYSQL if where != old and mysql else table.dialect
            yield table

    mysql = False
    monkeypatch.setattr(connect, "opened", opened)
    moving.rehearse(run, way(run))
    assert files[1] == {"cafile": "PEM"}
    assert files[0]["cafile"].startswith("-----BEGIN CERTIFICATE-----")
    with connect.sqlite(old) as writer:
        for name in ("/x/View", "/x/view"):
            writer._query("INSERT INTO kine (name, prev_revision) VALUES (?, 0)", [name])
    moving.rehearse(run, way(run))
    with connect.sqlite(old) as one, connect.sqlite(tmp_path / "new.db") as two:
        two.dialect = MYSQL
        with pytest.raises(UsageError, match="/x/View: another name differs in its case only"):
            moving._require_names(one, two)
    with connect.sqlite(tmp_path / "new.db") as new:
        new._query("CREATE TABLE kine (id INTEGER)")
    with pytest.raises(UsageError, match="has data already: 0 rows"):
        moving.rehearse(run, way(run))
    run.facts = seen(server("s1", OLD, MOVING, running=False), bare("s2"))
    moving.rehearse(run, way(run))  # it may be the copy of an interrupted run
    run.facts = seen(server("s1", OLD, running=False), bare("s2"))
    moving.rehearse(run, way(run))  # one that was killed between the copy and the first server's new settings
    assert "stopping K3s" not in link.ran


def test_after_a_failure_k3s_runs_as_before_if_that_is_possible(
    run: Run, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    for raised, kind, words in (
        (K3sError("no space"), K3sError, "no space\nK3s was started again on the old datastore"),
        (KeyboardInterrupt(), Interrupted, "while the table was copied\nK3s was started again"),
        (ZeroDivisionError(), ZeroDivisionError, "^$"),
    ):

        def fails(*_: object, raised: BaseException = raised) -> Any:
            raise raised

        monkeypatch.setattr(moving, "copy", fails)
        with pytest.raises(kind, match=words):
            moving.stop_and_copy(run, way(run))
        assert link.ran[-2:] == ["stopping K3s", "going back"]

    def stopped(_: Run, __: object) -> None:
        raise Interrupted("stopped in 'back'")

    monkeypatch.setattr(moving, "go_back", stopped)
    monkeypatch.setattr(moving, "copy", stopped_in_copy)
    with pytest.raises(Interrupted, match="in 'read'\nK3s stays stopped: stopped in 'back'"):
        moving.stop_and_copy(run, way(run))
    monkeypatch.setattr(moving, "copy", lambda *_: Content(1, 1, "x"))
    moving.stop_and_copy(run, way(run))
    assert link.ran[-2:] == ["stopping K3s", "ending the move"]


def stopped_in_copy(*_: object) -> Any:
    raise Interrupted("stopped in 'read'")


def test_only_hosts_without_k3s_are_staged_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    staged: list[str] = []
    monkeypatch.setattr(Run, "phase", lambda _run, title, names, *_, **__: staged.extend([title, *names]))
    monkeypatch.setattr(Run, "planned", lambda *_: SimpleNamespace(stage=("x",)))
    monkeypatch.setattr(datastore_phase, "prepare", lambda _: staged.append("datastore"))
    moving.prepare(run)
    assert staged == ["stage", "db1", "s2", "a1", "lb1", "lb2", "datastore"]


def test_the_preflight_of_a_move_expects_what_it_changes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = problem("db1", "datastore-moved", "s1 run, but this datastore has no data", "x", "y")
    other = problem("db1", "datastore-moved", "data of another version", "x", "y")
    sqlite = problem("s1", "sqlite", "files", "x", "y")
    monkeypatch.setattr(datastore_checks, "emptied", lambda *_: [expected])
    monkeypatch.setattr(preflight, "check", lambda *_: [expected, sqlite])
    moving.require_sound(run)
    assert run.report.findings == []
    monkeypatch.setattr(preflight, "check", lambda *_: [expected, other])
    with pytest.raises(PreflightFailed):
        moving.require_sound(run)
    assert run.report.findings == [other]


DEPLOY = "deploy outside the window, too"


@pytest.fixture
def steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the workflow does, in order; the hosts are read from the run."""
    said: list[str] = []

    def does(what: str, result: object = None) -> Any:
        def work(*_: object, choice: Choice | None = None, **__: object) -> Any:
            said.append(what + (" outside the window, too" if choice and choice.ignore_window else ""))
            return result

        return work

    def again(*_: object, **__: object) -> Run:
        return run

    monkeypatch.setattr(gather, "prepare", again)
    monkeypatch.setattr(observe, "observe", does("observe"))
    monkeypatch.setattr(observe, "find_artifacts", does("artifacts"))
    monkeypatch.setattr(moving, "require_sound", does("preflight"))
    monkeypatch.setattr(moving, "prepare", does("prepare"))
    monkeypatch.setattr(moving, "rehearse", does("rehearse"))
    monkeypatch.setattr(moving, "stop_and_copy", does("copy", Content(3, 9, "a" * 64)))
    done = Report(cluster="test", notes=["of deploy"])
    done.hosts = {"s1": run.report.hosts["s1"].model_copy(update={"changes": ["file:x"]})}
    monkeypatch.setattr(move, "deploy", does("deploy", done))
    return said


@pytest.mark.usefixtures("steps")
def test_the_order_and_the_report(run: Run, steps: list[str], tmp_path: Path) -> None:
    report = move.move(nr(HOSTS), base=tmp_path, state=tmp_path / "state")
    assert steps == ["observe", "artifacts", "preflight", "prepare", "rehearse", "copy", DEPLOY]
    assert report.notes[0].startswith("copied and compared: 3 rows up to id 9, SHA-256 aaaa")
    assert f"keep their previous settings in {MOVED}" in report.notes[1]
    assert [phase.name for phase in report.phases] == ["preflight", "prepare", "copy"]
    assert report.notes[-1] == "of deploy"
    run.facts = seen(WANTED, server("s2", running=False))
    steps.clear()
    move.move(nr(HOSTS), base=tmp_path, state=tmp_path / "state", confirm=lambda plan: "copy" not in str(plan.changes))
    assert steps == ["observe", "artifacts", "preflight", DEPLOY], "servers have begun with the new datastore"


def test_no_and_every_reason_at_once_before_anything_is_changed(run: Run, steps: list[str], tmp_path: Path) -> None:
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    with pytest.raises(Declined):
        move.move(nr(HOSTS), **given, confirm=lambda _: False)
    assert "prepare" not in steps
    run.facts = seen(ALONE, server("s2"))
    with pytest.raises(UsageError, match="on different datastores") as caught:
        move.move(nr(HOSTS), **given)
    assert caught.value.report is run.report
    run.away = frozenset({"s2"})
    with pytest.raises(UsageError, match="s2: not in this inventory"):
        move.plan_move(nr(HOSTS), **given)


def test_ctrl_c_and_a_deploy_that_fails_say_how_to_go_on(
    run: Run, steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}

    def raises(error: BaseException) -> Any:
        def work(*_: object, **__: object) -> Any:
            raise error

        return work

    for error in (KeyboardInterrupt(), Interrupted("stopped in x", hint="run deploy again")):
        monkeypatch.setattr(moving, "stop_and_copy", raises(error))
        with pytest.raises(Interrupted) as stopped:
            move.move(nr(HOSTS), **given)
        assert "--back" in stopped.value.hint
    monkeypatch.setattr(moving, "stop_and_copy", lambda *_: Content(3, 9, "a" * 64))
    for hint, report in (("see the journal", Report(cluster="test")), ("", None)):
        failed = K3sError("s1: not ready", hint=hint)
        failed.report = report
        monkeypatch.setattr(move, "deploy", raises(failed))
        with pytest.raises(K3sError, match="the data are in the new datastore") as caught:
            move.move(nr(HOSTS), **given)
        assert "run `nornir-k3s move` again" in caught.value.hint
    assert steps


def test_a_plan_says_what_is_done_where(run: Run, steps: list[str], tmp_path: Path) -> None:
    plan = move.plan_move(nr(HOSTS), base=tmp_path, state=tmp_path / "state")
    assert steps == ["observe", "artifacts", "preflight"]
    assert (plan.origin, plan.servers) == (f"SQLite, {SQLITE}", ["s1"])
    assert plan.changes["s1"] == ["stop K3s until the copy is whole"]
    assert plan.changes["cluster"][0] == f"copy SQLite, {SQLITE} to {plan.target}, and compare"
    assert any("create database k3s" in one for one in plan.changes["db1"])
    assert "hush" not in plan.model_dump_json()
    assert run.report.hosts["s1"].changes == []


def test_the_way_back_is_open_until_a_server_begins_with_the_new_datastore(
    run: Run, steps: list[str], link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "gather_host", lambda task, _: Result(host=task.host))
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    report = move.move_back(nr(HOSTS), **given)
    assert link.ran == ["going back"]
    assert report.notes[-1] == "K3s was started on s1, as it was before the move"
    run.facts = seen(WANTED, server("s2", running=False))
    with pytest.raises(UsageError, match="s1 use the datastore of the inventory already"):
        move.move_back(nr(HOSTS), **given)
    run.facts = seen(server("s1", None, MOVING, running=False, ours=True), bare("s2"))
    move.move_back(nr(HOSTS), **given)
    assert link.ran == ["going back"] * 2, "the inventory has the old datastore again"
    assert steps == []


@pytest.mark.usefixtures("steps")
def test_servers_go_back_together_and_not_beside_a_whole_copy(
    run: Run, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "gather_host", lambda task, _: Result(host=task.host))
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    left = run.store.folder / moving.FOLDER
    left.mkdir()
    (left / "state.db").touch()
    run.facts = seen(server("s1", OLD, MOVING, MOVED, running=False), server("s2", OLD, MOVED, running=False))
    report = move.move_back(nr(HOSTS), **given)
    assert link.ran == ["going back"] * 2, "one of them had been let go on already"
    assert report.notes[-1].startswith("K3s was started on s1, s2")
    assert not left.exists(), "secret files of a run that was killed"
    link.ran.clear()
    copied = {"db1": HostFacts("db1", database=Database(bootstrap={"/bootstrap/x": 9}))}
    for config, files, words in (
        (OLD, (MOVING,), "the old one into the inventory"),
        ("token: x\n", (MOVING, SQLITE), "drop its table"),
        (OLD, (), "the old one into the inventory"),  # killed after that mark was gone
    ):
        run.facts = seen(server("s1", config, MOVED, *files, running=False), bare("s2")) | copied
        with pytest.raises(UsageError, match="the copy is whole") as caught:
            move.move_back(nr(HOSTS), **given)
        assert words in caught.value.hint
    assert link.ran == []


PLAN = Move(cluster="test", origin="SQLite", target="MariaDB", servers=["s1"], changes={"s1": ["stop K3s"]})


def test_the_command(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def moves(*_: object, confirm: Callable[[Move], bool] | None, **__: object) -> Report:
        if confirm and not confirm(PLAN):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        return Report(cluster="test")

    monkeypatch.setattr(command, "move", moves)
    monkeypatch.setattr(command, "plan_move", returns(PLAN))
    path = str(tmp_path / "out")
    assert command.run(parsed("move", "--plan", "--json", path)) == 0
    assert "move cluster test\n  from SQLite\n  to MariaDB\n  s1: stop K3s\n" in ctx.said
    assert Move.model_validate_json(Path(path).read_text()) == PLAN
    assert command.run(parsed("move", "--plan")) == 0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert command.run(parsed("move")) == 2
    assert "add --yes" in ctx.said
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(type(ctx.err), "is_terminal", True)
    for answer, code in (("n", Declined.exit_code), ("y", 0)):
        monkeypatch.setattr(ctx.err, "input", returns(answer))
        assert command.run(parsed("move", "--json", path)) == code
    monkeypatch.setattr(command, "move_back", returns(Report(cluster="test", notes=["as before"])))
    assert command.run(parsed("move", "--back")) == 0
    assert "as before" in ctx.said
    for report in (Report(cluster="test", notes=["how far"]), None):
        failed = K3sError("s1: it broke")
        failed.report = report

        def fails(*_: object, failed: K3sError = failed, **__: object) -> Report:
            raise failed

        monkeypatch.setattr(command, "move", fails)
        assert command.run(parsed("move", "--yes")) == 1
    assert "how far" in ctx.said
