"""Backup, dump and restore of an external database with K3s' own login; SQLite plays the database."""

from __future__ import annotations

import gzip
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s import (
    Backup,
    Interrupted,
    K3sError,
    Report,
    UsageError,
    backup,
    k3s,
    plan_backup,
    plan_restore,
    restore,
)
from nornir_k3s.checks import host, network
from nornir_k3s.datastore_copy import connect, rights, scratch
from nornir_k3s.datastore_copy.content import COMPACTION, Content, Digest
from nornir_k3s.datastore_copy.dialect import DRAFT, MYSQL, POSTGRESQL, SQLITE, Dialect
from nornir_k3s.datastore_copy.table import Table, fill
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import backup as parts
from nornir_k3s.phases import dump, rows
from nornir_k3s.phases import restore as hosts_phases
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backup_file, backup_folder, backups, restoring
from nornir_k3s.workflows import restore as workflow
from nornir_k3s.workflows import restore_revision as revisions

from .test_backup import TOKEN, external, nornir
from .test_datastore_copy import said_by

CA = "K10" + "c" * 64
# Indexes have names of their own in SQLite, too; those that databases get are tested with the dialects.
PLAYED = replace(SQLITE, index=(), replace=("ALTER TABLE kine RENAME TO {keep}", f"ALTER TABLE {DRAFT} RENAME TO kine"))


class Played(Table):
    """Its table on one connection; a statement fails that begins as the database says."""

    def __init__(self, of: Outside, connection: sqlite3.Connection) -> None:
        super().__init__(connection, of.dialect, (sqlite3.Error,))
        self.of = of

    def _query(self, text: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        if self.of.fails and text.startswith(self.of.fails):
            raise K3sError("the datastore: disk full")
        return super()._query(text, values)


class Outside:
    """A database, the servers that reach it, and what was done on them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.path = folder, folder / "external.db"
        self.reached, self.did, self.logins = {"s1", "s2"}, list[str](), list[Endpoint]()
        self.lacks: dict[str, list[str]] = {}
        self.dialect: Dialect = PLAYED
        self.fails = ""  # the beginning of a statement
        self.fill("one")
        for name in ("for_database", "for_table", "for_renaming", "for_rows"):
            patch.setattr(rights, name, lambda *_, name=name: self.lacks.get(name, []))
        self.lacks["for_database"] = ["CREATEDB"]
        patch.setattr(connect, "opened", self.opened)
        patch.setattr(gather, "gather_host", self.gathered)
        patch.setattr(gather, "read_facts", lambda task, *_: HostFacts(task.host.name))
        patch.setattr(gather, "find_artifacts", lambda _: None)
        for module in (parts, rows, hosts_phases):
            patch.setattr(module, "session_of", self.session)
        patch.setattr(workflow, "deploy", self.deploy)
        for check in (host, network):
            patch.setattr(check, "check", lambda *_: ())  # these facts say nothing of a system

    def fill(self, value: str) -> None:
        self.path.unlink(missing_ok=True)
        with connect.sqlite(self.path) as table:
            table.begin()
            table.insert([(n, f"/registry/x/{n}", 1, 0, 0, n - 1, 0, value.encode() * n, None) for n in range(1, 451)])
            table.index()
            table.publish(450)

    def content(self, name: str = "kine") -> Content:
        """Return its content without the note of what is compacted."""
        digest = Digest()
        with connect.sqlite(self.path) as table:
            for row in table.rows(name):
                if row[1] not in COMPACTION:
                    digest.add(row[0], *row)
        return digest.content

    def tables(self) -> set[str]:
        with connect.sqlite(self.path) as table:
            return {name for (name,) in table.query("SELECT name FROM sqlite_master WHERE type = 'table'")} - {
                "sqlite_sequence"
            }

    @contextmanager
    def opened(self, endpoint: Endpoint, files: connect.Files, _: paramiko.Transport, __: str) -> Iterator[Table]:
        self.logins.append(endpoint)
        if files.cafile:
            assert files.cafile.stat().st_mode & 0o777 == 0o600
        path = self.path if endpoint.database == "k3s" else self.folder / endpoint.database
        connection = sqlite3.connect(path, isolation_level=None)

        try:
            yield Played(self, connection)
        finally:
            connection.close()

    def gathered(self, task: Task, run: Run) -> Result:
        name = task.host.name
        roles = {"s1": ("control-plane",), "s2": ("control-plane",), "a1": ()}
        nodes = tuple(NodeState(one, True, "v1.34.9+k3s1", found) for one, found in roles.items())
        found = HostFacts(name, node_password=True)
        if name[0] == "s":
            key = {k3s.bootstrap_key(run.cluster.token): 12}
            store = Database(alive=name in self.reached, bootstrap=key, revision=450)
            found = replace(found, database=store, api=Api(ready=True, nodes=nodes), server=ServerFiles(ca_prefix=CA))
        run.facts[name] = found
        return Result(host=task.host)

    def session(self, task: Task, _: Run) -> Any:
        def run(_: str, *, what: str, **__: Any) -> Any:
            if what == "stopping K3s":
                self.did.append(f"stop {task.host.name}")
            return SimpleNamespace(stdout="")

        return SimpleNamespace(run=run, transport=None, host=task.host.name)

    def deploy(self, *_: Any, choice: Choice, **__: Any) -> Report:
        self.did.append(f"deploy {choice.until}".strip())
        (self.folder / "state" / "test" / restoring.FILE).unlink()
        return Report(cluster="test")

    @property
    def given(self) -> dict[str, Any]:
        return {"base": self.folder, "state": self.folder / "state", "options": {"whole": True}}

    def backup(self, nr: Nornir | None = None, **options: Any) -> Backup:
        given = {**self.given, "options": {"whole": True, "backup": options}}
        return backup(nr or external(), **given)

    def run(self) -> Run:
        found = gather.prepare(external(), **self.given)
        found.phase("observe", found.present, self.gathered)
        return found


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outside:
    monkeypatch.setenv("TOKEN", TOKEN)
    return Outside(tmp_path, monkeypatch)


def nothing_left(state: Path) -> bool:
    return not [path for path in state.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_a_backup_has_every_row_as_it_was(database: Outside, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    report = database.backup(external(cafile=str(tmp_path / "ca.pem")))
    assert (report.verified, report.unverified) == (False, "")
    path = Path(report.place)
    manifest = backup_file.check(path)
    assert (manifest.datastore, manifest.database, manifest.revision) == ("postgresql", "k3s", 450)
    assert [part.name for part in manifest.parts][:2] == ["datastore.sqlite.gz", "token"]
    backup_file.extract(path, "datastore.sqlite.gz", tmp_path / "packed")
    (tmp_path / "plain").write_bytes(gzip.decompress((tmp_path / "packed").read_bytes()))
    with connect.sqlite(tmp_path / "plain") as found:
        assert found.content() == database.content()
        (made,) = found.query("SELECT COUNT(*) FROM sqlite_master WHERE name = 'kine_name_prev_revision_uindex'")
        assert made == (1,), "K3s itself could start with it"
    assert [login.database for login in database.logins] == ["k3s"]
    assert database.tables() == {"kine"}
    assert nothing_left(tmp_path / "state" / "test")


def test_the_plan_says_how(database: Outside, tmp_path: Path) -> None:
    given = {**database.given, "options": {"whole": True, "backup": {"verify": True}}}
    found = plan_backup(external(), **given)
    assert found.steps[:2] == [
        "dump the postgresql by way of a server, with the login that K3s has",
        "restore the dump into a scratch database, or table, there, compare, and remove it",
    ]
    assert not database.logins


def test_it_is_verified_in_a_scratch_table_where_no_database_can_be_made(database: Outside) -> None:
    report = database.backup(verify=True)
    assert (report.verified, report.unverified) == (True, "")
    assert database.tables() == {"kine"}, "it is dropped"
    known = backups.last(database.run().store)
    assert known.verified is not None
    database.fails = "INSERT"
    with pytest.raises(K3sError, match="the datastore: disk full"):
        database.backup(verify=True)


def test_what_was_put_back_and_differs_is_no_backup(database: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "fill", lambda *_: None)
    with pytest.raises(K3sError, match="and that differs from it: 0 rows"):
        database.backup(verify=True)
    assert database.tables() == {"kine"}


def test_which_right_is_missing_is_told_and_remembered(database: Outside) -> None:
    database.lacks["for_table"] = ["CREATE on schema public"]
    report = database.backup(verify=True)
    why = "user k3s lacks CREATE on schema public"
    assert (report.verified, report.unverified) == (False, why)
    assert any(note.startswith(f"not verified: {why}; the file has 450 rows up to id 450") for note in report.notes)
    known = backups.last(database.run().store)
    assert (known.verified, known.unverified) == (None, why)
    assert str(known).endswith(f"none was verified; the last one could not be: {why}")


def test_a_dump_that_differs_from_what_was_read_is_none(database: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "fill", lambda *_: Content(1, 2, "x"))
    with pytest.raises(K3sError, match="the dump differs: 0 rows"):
        database.backup()
    database.path.unlink()
    with pytest.raises(K3sError, match="has no data of K3s"):
        database.backup()


def test_another_server_is_the_way_where_one_does_not_reach_it(database: Outside) -> None:
    database.reached = {"s2"}
    run = database.run()
    assert rows.reached(run) == ["s2"]
    database.reached = set()
    with pytest.raises(K3sError, match="no server reaches the datastore"):
        rows.dump(database.run(), database.folder)


def test_a_server_whose_login_is_refused_is_not_the_only_way(
    database: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, opened = list[str](), connect.opened
    refused = {"s2"}

    @contextmanager
    def some(endpoint: Endpoint, files: connect.Files, by: Any, version: str) -> Iterator[Any]:
        asked.append(by)
        if by in refused:
            raise K3sError(f"{by}: the datastore cannot be opened")
        with opened(endpoint, files, by, version) as table:
            yield table

    def session(task: Task, _: Run) -> Any:
        return SimpleNamespace(transport=task.host.name)

    monkeypatch.setattr(connect, "opened", some)
    monkeypatch.setattr(rows, "session_of", session)
    run = database.run()
    run.facts["s1"] = replace(run.facts["s1"], api=Api(ready=False))
    assert revisions.newest(run, database.folder) == 450
    assert asked == ["s2", "s1"], "ready servers first"
    refused.add("s1")
    with pytest.raises(K3sError, match=r"s2: the datastore cannot be opened(.|\n)*s1: "):
        revisions.newest(run, database.folder)
    assert not run.nr.data.failed_hosts, "they can do all else"
    asked.clear()

    def fails(_: rows.Reach) -> None:
        raise K3sError("disk full")

    refused.clear()
    with pytest.raises(K3sError, match="disk full"):
        rows.on_table(run, database.folder, "dump", fails, "dumping")
    assert asked == ["s2"], "what has begun is not begun again elsewhere"


def test_a_stop_ends_it(database: Outside) -> None:
    run = database.run()
    stop = threading.Event()
    run.nr = run.nr.with_runner(K3sRunner(stop=stop))

    def work(reach: rows.Reach) -> None:
        stop.set()
        list(reach.table.rows())

    with pytest.raises(Interrupted, match="stopped while dumping"):
        rows.on_table(run, database.folder, "dump", work, "dumping")


def test_an_upgrade_and_a_rotation_leave_a_backup_on_this_machine(database: Outside) -> None:
    run = database.run()
    dump.now(run)
    (path,) = (run.store.folder / "dumps").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert backup_file.check(path).revision == 450
    assert run.report.notes[-1].startswith(f"dump of the datastore: {path} (")
    assert dump.announced(run) == f"dump the datastore to {run.store.folder / 'dumps'}"
    assert nothing_left(run.store.folder)
    (run.store.folder / "dumps" / path.name).rename(run.store.folder / "file")
    (run.store.folder / "dumps").rmdir()
    (run.store.folder / "dumps").write_text("")
    with pytest.raises(K3sError, match="the datastore cannot be dumped"):
        dump.now(run)


# restore


def test_it_comes_back_and_the_table_that_was_there_is_kept(database: Outside) -> None:
    path, before = Path(database.backup().place), database.content()
    database.fill("two")
    other = database.content()
    plan = plan_restore(external(), path, **database.given)
    (kept, data) = plan.changes["datastore"]
    assert kept.startswith("keep its table kine as kine_before_")
    assert data.startswith("restore the postgresql of ")
    assert database.content() == other
    restore(external(), path, **database.given)
    assert sorted(database.did) == ["deploy", "stop s1", "stop s2"]
    assert database.content() == before
    (aside,) = database.tables() - {"kine"}
    assert aside.startswith("kine_before_")
    assert database.content(aside) == other
    assert nothing_left(database.folder / "state" / "test")


@pytest.mark.parametrize("lacks", [[], ["DROP"]])
def test_no_revision_is_given_again(database: Outside, lacks: list[str]) -> None:
    path = Path(database.backup().place)
    with connect.sqlite(database.path) as table:
        for number in range(451, 500):
            table.query("INSERT INTO kine (name, prev_revision) VALUES ('/registry/since', ?)", number)
    database.lacks["for_renaming"] = lacks
    plan = plan_restore(external(), path, **database.given)
    assert "revisions go on after the highest one that was seen" in " ".join(plan.notes)
    restore(external(), path, **database.given)
    with connect.sqlite(database.path) as table:
        assert [row[:6] for row in table.rows() if row[0] > 450] == [(501, "compact_rev_key", 1, 0, 0, 500)]
        table.query("INSERT INTO kine (name, prev_revision) VALUES ('/registry/new', 0)")
        assert table.newest() == 502


def test_without_the_right_to_rename_the_rows_are_kept_in_a_backup(database: Outside) -> None:
    path, before = Path(database.backup().place), database.content()
    database.fill("two")
    other = database.content()
    database.lacks["for_renaming"] = ["DROP"]
    (kept, _) = plan_restore(external(), path, **database.given).changes["datastore"]
    assert kept.startswith("keep its content in ")
    assert kept.endswith(", since it cannot be renamed: user k3s lacks DROP")
    report = restore(external(), path, **database.given)
    assert "what was there is in " in " ".join(report.notes)
    assert database.content() == before
    assert database.tables() == {"kine"}
    (aside,) = (database.folder / "state" / "test").glob("before-restore-*")
    restore(external(), aside, **database.given)
    assert database.content() == other


def test_one_that_fails_half_way_is_finished_by_the_next(database: Outside) -> None:
    path, before = Path(database.backup().place), database.content()
    database.fill("two")
    other = database.content()
    database.lacks["for_renaming"] = ["DROP"]
    database.fails = "INSERT INTO kine"
    with pytest.raises(K3sError, match="disk full"):
        restore(external(), path, **database.given)
    assert database.content() == other, "all of it, or nothing"
    (aside,) = (database.folder / "state" / "test").glob("before-restore-*")
    written = aside.stat().st_mtime_ns
    database.fails, database.lacks = "", {**database.lacks, "for_renaming": []}
    database.fails = "ALTER TABLE kine"
    with pytest.raises(K3sError, match="disk full"):
        restore(external(), path, **database.given)
    assert database.tables() == {"kine", DRAFT}
    database.fails, database.lacks["for_renaming"] = "", ["DROP"]
    restore(external(), path, **database.given)
    assert database.content() == before
    assert aside.stat().st_mtime_ns == written, "what was there first is kept"


@pytest.mark.parametrize("lacks", [[], ["DROP"]])
def test_a_server_that_goes_on_writing_is_noticed(
    database: Outside, lacks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(database.backup().place)
    database.fill("two")
    database.lacks["for_renaming"] = lacks

    def written(*given: Any) -> Content:
        with connect.sqlite(database.path) as table:
            table.query("INSERT INTO kine (name, prev_revision) VALUES ('/registry/leases/x', 0)")
        return fill(*given)

    with monkeypatch.context() as patch:
        patch.setattr(rows, "fill", written)
        with pytest.raises(K3sError, match="somebody goes on writing to the datastore") as raised:
            restore(external(), path, **database.given)
    assert raised.value.hint.startswith("stop K3s on servers that the inventory does not have; then run the same")
    with connect.sqlite(database.path) as table:
        assert table.size() == (451, 451), "what it has written is there"
    restore(external(), path, **database.given)


def test_what_an_earlier_run_has_put_in_place_stays(database: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(database.backup().place)
    database.fill("two")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(revisions, "go_on_after", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(external(), path, **database.given)
    tables = database.tables()
    assert restoring.load(database.run().store) is not None
    restore(external(), path, **database.given)
    assert database.tables() == tables, "the table from before is not replaced by the restored one"


def test_what_k3s_has_written_since_an_earlier_run_is_kept_too(database: Outside) -> None:
    path = Path(database.backup().place)
    database.fill("two")
    database.lacks["for_renaming"], database.fails = ["DROP"], "INSERT INTO kine"
    with pytest.raises(K3sError, match="disk full"):
        restore(external(), path, **database.given)
    with connect.sqlite(database.path) as table:  # the user has given up, and started K3s
        table.query("INSERT INTO kine (name, prev_revision) VALUES ('/registry/late', 0)")
    late, database.fails = database.content(), ""
    restore(external(), path, **database.given)
    _, second = sorted((database.folder / "state" / "test").glob("before-restore-*"), key=lambda one: len(one.name))
    restore(external(), second, **database.given)
    assert database.content() == late


def test_a_disk_that_is_full_when_k3s_is_stopped_is_told_as_it_is(
    database: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(database.backup().place)
    database.fill("two")
    other, database.lacks["for_renaming"] = database.content(), ["DROP"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_folder, "keep", full)
    with pytest.raises(K3sError, match="No space left on device; the datastore has what it had") as raised:
        restore(external(), path, **database.given)
    assert raised.value.hint.startswith("make room there; then run the same command again")
    assert database.content() == other


def test_what_is_kept_has_the_token_of_the_data(database: Outside, tmp_path: Path) -> None:
    run = database.run()
    first, second = "before-both", "of-the-first-file"
    run.store.write("token.before-restore-aa", f"{first}\n")
    run.store.write("token.before-restore-bb", f"{second}\n")
    content = tmp_path / "datastore.sqlite.gz"
    content.write_bytes(b"rows")
    for token in (first, second, TOKEN):
        store = Database(alive=True, bootstrap={k3s.bootstrap_key(Secret(token)): 12})
        run.facts = {"s1": HostFacts("s1", database=store)}
        folder = tmp_path / token
        folder.mkdir()
        whole, manifest = parts.of_rows(run, rows.Rows(content, Content()), folder, number="bb")
        said = backup_file.text(whole, "token")
        assert said is not None
        assert (said.reveal(), manifest.token) == (token, Secret(token).fingerprint())


def test_an_empty_database_needs_nothing_kept(database: Outside) -> None:
    path, before = Path(database.backup().place), database.content()
    for lacks in ([], ["DROP"]):
        database.path.unlink()
        database.lacks["for_renaming"] = lacks
        assert len(plan_restore(external(), path, **database.given).changes["datastore"]) == 1
        restore(external(), path, **database.given)
        assert database.content() == before
        assert database.tables() == {"kine"}


def test_what_is_missing_is_told_before_the_first_change(database: Outside) -> None:
    path = Path(database.backup().place)
    with connect.sqlite(database.path) as table:
        for name in ("/x/View", "/x/view"):
            table.query("INSERT INTO kine (name, prev_revision) VALUES (?, 451)", name)
    alike = Path(database.backup().place)
    database.lacks |= {"for_renaming": ["DROP"], "for_rows": ["INSERT"]}
    database.dialect = replace(PLAYED, ignores_case=True)
    for work in (plan_restore, restore):
        with pytest.raises(UsageError, match="user k3s lacks INSERT"):
            work(external(), path, **database.given)
        with pytest.raises(
            UsageError, match=r"/x/View: another name differs in its case only.*; user k3s lacks INSERT"
        ):
            work(external(), alike, **database.given)
    assert not database.did


def test_rows_that_arrive_as_others_are_not_taken(database: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(database.backup().place)
    database.fill("two")
    other = database.content()
    monkeypatch.setattr(rows, "fill", lambda *_: Content(1, 2, "x"))
    for lacks in ([], ["DROP"]):
        database.lacks["for_renaming"] = lacks
        monkeypatch.setattr(workflow, "_keep", lambda *_: None)
        with pytest.raises(K3sError, match="the datastore differs from the backup"):
            restore(external(), path, **database.given)
        assert database.content() == other


def test_rows_go_into_a_managed_database_too(database: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = Path(database.backup().place), database.content()
    database.fill("two")
    gathered = database.gathered

    def managed(task: Task, run: Run) -> Result:
        gathered(task, run)
        if task.host.name == "db1":
            run.facts["db1"] = HostFacts("db1", database=Database(alive=True))
        return Result(host=task.host)

    monkeypatch.setattr(gather, "gather_host", managed)
    restore(nornir(), path, **database.given)
    assert database.content() == before


# rights

MARIADB = parse(Secret("mysql://ops:hush@tcp(10.0.0.9:3306)/k3s-prod"))
FEW = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `k3s-prod`.* TO `ops`@`%`"


@pytest.mark.parametrize(
    ("grant", "renaming", "in_place"),
    [
        (FEW, ["DROP"], []),
        (FEW.replace("INDEX", "INDEX, DROP"), [], []),
        ("GRANT ALL PRIVILEGES ON `k3s-prod`.* TO `ops`@`%`", [], []),
        ("GRANT SELECT, INSERT ON *.* TO `ops`@`%`", ["CREATE", "DROP", "INDEX", "ALTER"], ["DELETE", "ALTER"]),
    ],
)
def test_what_a_user_of_mysql_lacks(grant: str, renaming: list[str], in_place: list[str]) -> None:
    def asked(*, exists: bool = True) -> Table:
        return Granted(grant, exists=exists)

    assert rights.for_renaming(asked(), MARIADB) == renaming
    assert rights.for_rows(asked(), MARIADB) == in_place
    assert rights.for_table(asked(), MARIADB) == [one for one in renaming if one != "ALTER"]
    assert rights.for_database(asked(), replace(MARIADB, database="kine_verify_1")) == (
        ["CREATE", "DROP", "INDEX"] if "*.*" in grant else list(rights.SCRATCH)
    )
    assert set(rights.for_rows(asked(exists=False), MARIADB)) >= set(in_place)
    assert rights.said(MARIADB, ["DROP"]) == "user ops lacks DROP on k3s-prod"


class Granted(Table):
    """A table of a MariaDB whose user has one grant."""

    def __init__(self, grant: str, *, exists: bool) -> None:
        super().__init__(None, MYSQL, ())
        self.grant, self.there = grant, exists

    def query(self, text: str, *_: object) -> list[tuple[Any, ...]]:
        return [("11.8.2-MariaDB",)] if "VERSION" in text else [(self.grant,)]

    def exists(self, _: str = "kine") -> bool:
        return self.there


def test_what_a_user_of_postgresql_lacks() -> None:
    login = parse(Secret("postgres://k3s:hush@10.0.0.8/k3s"))
    assert rights.for_database(said_by(POSTGRESQL, [(False,)])[0], login) == ["CREATEDB"]
    assert rights.for_database(said_by(POSTGRESQL, [(True,)])[0], login) == []
    assert rights.for_table(said_by(POSTGRESQL, [(True, "public")])[0], login) == []
    both = said_by(POSTGRESQL, [(False,)], [(False, "public")])[0]
    assert rights.for_rows(both, login) == ["CREATE on schema public", "the ownership of table kine"]
    assert rights.for_renaming(said_by(POSTGRESQL, [], [(True, "public")])[0], login) == []
    assert rights.said(login, ["CREATEDB"]) == "user k3s lacks CREATEDB"


def test_a_scratch_database_is_made_where_it_can_be(database: Outside, tmp_path: Path) -> None:
    database.lacks.clear()
    wanted, asked = database.content(), list[str]()
    endpoint = parse(Secret("postgres://k3s:hush@10.0.0.8/k3s"))

    class Server(Table):
        def query(self, text: str, *_: object) -> list[tuple[Any, ...]]:
            asked.append(text)
            return []

    def verify(again: Any) -> str:
        with connect.sqlite(database.path) as found:
            place = Server(found._connection, PLAYED, (sqlite3.Error,))
            return scratch.verify(found, wanted, place, endpoint, again)

    @contextmanager
    def again(other: Endpoint) -> Iterator[Table]:
        assert other.database.startswith("kine_verify_")
        with connect.sqlite(tmp_path / "scratch.db") as place:
            yield place

    assert verify(again) == ""
    assert [text.split()[0] for text in asked] == ["DROP", "CREATE", "DROP"]

    def refused(_: Endpoint) -> Any:
        raise K3sError("no pg_hba.conf entry")

    asked.clear()
    assert verify(refused) == "", "a scratch table does it"
    assert asked[-1].startswith("DROP DATABASE"), "the database that nobody may log in to is dropped"
    assert database.tables() == {"kine"}
