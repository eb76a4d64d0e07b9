"""K3s' table is copied row for row; what the drivers of real databases do runs end to end."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pg8000.dbapi
import pymysql
import pytest
from k3s_standin.datastore_sql import sqlite_store
from k3s_standin.store import Expired

from nornir_k3s.datastore_copy import connect, table
from nornir_k3s.datastore_copy.connect import Files
from nornir_k3s.datastore_copy.dialect import DRAFT, MYSQL, POSTGRESQL, Dialect
from nornir_k3s.datastore_copy.table import Table, fill
from nornir_k3s.datastore_probe import mysql, mysql_login, postgresql, tls
from nornir_k3s.datastore_probe.answers import ProbeFailed, problem
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.errors import K3sError
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.secret import Secret

MARIADB = parse(Secret("mysql://u:hush@tcp(10.0.0.9:3306)/k3s"))
SEVERAL = parse(Secret("postgres://u:hush@10.0.0.8:5432,10.0.0.9:5432/k3s"))


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Table]:
    """What K3s leaves after changes, a deletion, and a compaction."""
    path = tmp_path / "old.db"
    store = sqlite_store(path)
    for number in range(450):
        store.create(f"/registry/configmaps/default/c{number}", b"x" * (number * 20))
    store.put("/registry/configmaps/default/c7", "ü\0'\"\\%s?".encode())
    store.delete("/registry/configmaps/default/c9")
    with connect.sqlite(path) as found:
        found._query("DELETE FROM kine WHERE id IN (3, 4, 200)")
        yield found


def test_every_row_arrives_as_it_was_and_ids_go_on(
    source: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_BYTES", 100_000)
    with connect.sqlite(tmp_path / "new.db") as new:
        new.begin()
        new.insert([(1, "left of an interrupted run", 1, 0, 0, 0, 0, None, None)])
        new.begin()
        found = fill(source, new)
        new.index()
        assert not new.exists(), "K3s does not find it before it is whole"
        assert found == source.content() == new.content(DRAFT)
        assert (found.rows, found.newest) == source.size()
        new.publish(found.newest)
        assert (new.exists(), new.exists(DRAFT)) == (True, False)
        assert list(new.rows()) == list(source.rows())
    later = sqlite_store(tmp_path / "new.db")
    later.put("/registry/configmaps/default/new", b"")
    assert later.revision() == found.newest + 1
    assert later.get("/registry/configmaps/default/c9") is None
    entry = later.get("/registry/configmaps/default/c7")
    assert entry is not None
    assert entry.value == "ü\0'\"\\%s?".encode()


def test_ids_go_on_after_a_higher_one_as_if_all_before_were_compacted(source: Table, tmp_path: Path) -> None:
    source.query("INSERT INTO kine (name, prev_revision) VALUES ('compact_rev_key', 40)")
    before = source.newest()
    source.go_on_after(before - 1)
    assert source.newest() == before, "they do already"
    for _ in range(2):
        source.go_on_after(before + 1000)
        notes = [row for row in source.rows() if row[1] == "compact_rev_key"]
        assert notes == [(before + 1002, "compact_rev_key", 1, 0, 0, before + 1001, 0, b"", None)]
    store = sqlite_store(tmp_path / "old.db")
    store.put("/registry/configmaps/default/new", b"")
    assert store.revision() == before + 1003
    with pytest.raises(Expired):
        store.feed("/registry/configmaps/", before + 1000)
    assert [change[1] for change in store.feed("/registry/configmaps/", before + 1001).poll()] == [
        "/registry/configmaps/default/new"
    ]


def test_the_sequence_of_a_postgresql_goes_on_too() -> None:
    found, said = said_by(POSTGRESQL, [(7, 70)], [], [], [], [], [])
    found.go_on_after(90)
    assert [text.split("(")[0] for text in said[1:]] == [
        "SELECT setval", "BEGIN", "DELETE FROM kine WHERE name = 'compact_rev_key'", "INSERT INTO kine ", "COMMIT",
    ]  # fmt: skip
    assert said[1].endswith("::regclass, 93, false)")


def test_a_changed_value_another_order_and_null_are_other_contents(source: Table) -> None:
    before = source.content()
    for statement in (
        "UPDATE kine SET value = value || x'00' WHERE id = 20",
        "UPDATE kine SET old_value = x'' WHERE id = 20",
        "UPDATE kine SET name = name || 'x' WHERE id = 20",
        "UPDATE kine SET id = 4 WHERE id = 20",
    ):
        source._query(statement)
        assert source.content().sha256 != before.sha256, statement
        before = source.content()


def test_names_that_a_column_that_ignores_case_cannot_hold(source: Table) -> None:
    assert source.alike() == []
    for name in ("/registry/clusterroles/View", "/registry/clusterroles/view", "/registry/clusterroles/view"):
        source._query("INSERT INTO kine (name, prev_revision) VALUES (?, (SELECT MAX(id) FROM kine))", [name])
    assert source.alike() == ["/registry/clusterroles/View"]


def test_what_is_alive_is_the_newest_value_of_each_key_but_what_kine_keeps_for_itself(source: Table) -> None:
    for name in ("compact_rev_key", "compact_rev_key_apiserver", "gap-461"):
        source._query("INSERT INTO kine (name, deleted, prev_revision) VALUES (?, ?, 0)", [name, int("gap" in name)])
    source._query("INSERT INTO kine (name, deleted, prev_revision, lease) VALUES ('/registry/events/e', 0, 0, 3600)")
    found = {one.name.rpartition("/")[2]: one for one in source.live()}
    assert len(found) == 450 - 1 - 3 + 1, "one was deleted, three are lost, one is new"
    assert found["c7"].value == "ü\0'\"\\%s?".encode()
    assert found["e"] == ("/registry/events/e", b"", 3600)
    assert source.largest() == ("/registry/configmaps/default/c449", 449 * 20)


def test_rights_are_tried_with_a_table_that_is_made_renamed_and_dropped(source: Table, tmp_path: Path) -> None:
    with connect.sqlite(tmp_path / "new.db") as new:
        new.try_out()
        assert new._query("SELECT name FROM sqlite_master WHERE name LIKE '%kine%' OR name LIKE '%nornir%'") == []


def test_what_drivers_return_is_one_form() -> None:
    rows = [
        (b"5", "n", 1, 0, None, b"3", 0, bytearray(b"x"), "text"),
        (5, b"n", 1, 0, None, 3, 0, memoryview(b"x"), b"text"),
    ]
    assert [table._normal(row) for row in rows] == [(5, "n", 1, 0, None, 3, 0, b"x", b"text")] * 2


def said_by(dialect: Dialect, *answers: list[tuple[Any, ...]]) -> tuple[Table, list[str]]:
    """Return a table of a database that only notes what it is asked; its queries get these answers."""
    said, left = list[str](), list(answers)

    def cursor() -> Any:
        asks = SimpleNamespace(close=lambda: None, description=None, fetchall=lambda: left.pop(0) if left else [])

        def execute(text: str, *_: object) -> None:
            said.append(text)
            asks.description = "rows" if text.lstrip().startswith("SELECT") else None

        asks.execute = execute
        return asks

    return Table(SimpleNamespace(cursor=cursor), dialect, ()), said


@pytest.mark.parametrize("dialect", [MYSQL, POSTGRESQL])
def test_a_draft_becomes_the_table_at_once_with_the_sequence_after_its_newest_row(dialect: Dialect) -> None:
    drafted, said = said_by(dialect)
    drafted.index()
    drafted.publish(4711)
    assert sum("UNIQUE" in one for one in said) == 1
    begin = said.index("BEGIN")
    assert said[-1] == "COMMIT"
    if dialect is POSTGRESQL:
        assert said[begin + 1] == f"SELECT setval('{DRAFT}_id_seq', 4711)"
        assert any("(name, id DESC, deleted)" in one for one in said)
        made = {one.split(" INDEX ")[1].split()[0] for one in said if one.startswith("CREATE")} | {f"{DRAFT}_pkey"}
        renamed = [one.split() for one in said[begin:] if one.startswith("ALTER INDEX")]
        assert {words[2] for words in renamed} == made, "each index gets the name that kine gives it"
        assert {words[5] for words in renamed} == {one.replace(DRAFT, "kine") for one in made}
    else:
        assert said[begin + 1 : -1] == [f"RENAME TABLE {DRAFT} TO kine"]


def test_a_table_that_is_there_keeps_its_rows_under_another_name() -> None:
    drafted, said = said_by(MYSQL)
    drafted.publish(7, keep="kine_before_1")
    assert said[1:-1] == [f"RENAME TABLE kine TO kine_before_1, {DRAFT} TO kine"]
    renames = [
        (0, "ALTER INDEX a RENAME TO b"),
        (1, 'ALTER TABLE kine OWNER TO "o"'),
        (0, "ALTER TABLE kine RENAME TO c"),
    ]
    drafted, said = said_by(POSTGRESQL, renames)
    drafted.publish(7, keep="kine_before_1")
    assert "substr('kine_before_1', 5)" in said[0]
    assert "ALTER TABLE kine RENAME TO kine_before_1" in said[0]
    assert said[1:4] == ["BEGIN", "ALTER INDEX a RENAME TO b", "ALTER TABLE kine RENAME TO c"]
    assert said[-3:] == [f"ALTER TABLE {DRAFT} RENAME TO kine", 'ALTER TABLE kine OWNER TO "o"', "COMMIT"]


def test_a_snapshot_ends_whatever_happens_inside() -> None:
    for dialect in (MYSQL, POSTGRESQL):
        one, said = said_by(dialect)
        with pytest.raises(ZeroDivisionError), one.snapshot():
            raise ZeroDivisionError
        assert "REPEATABLE READ" in said[0]
        assert "READ ONLY" in said[-2]
        assert said[-1] == "ROLLBACK"


def test_a_table_is_filled_anew_in_place_or_not_at_all(
    source: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_DELETED", 100)
    path = tmp_path / "used.db"
    store = sqlite_store(path)
    for number in range(250):
        store.create(f"/registry/configmaps/default/other{number}", b"")
    with connect.sqlite(path) as used:
        before = used.content()
        for fails in (True, False):
            with contextlib.suppress(K3sError), used.transaction():
                used.empty()
                assert used.size() == (0, 0)
                assert fill(source, used, "kine") == used.content() == source.content()
                if fails:
                    used.query("SELECT nonsense")
            assert used.content() == (before if fails else source.content())
        used.count_on(99)
    one, said = said_by(MYSQL)
    one.count_on(99)
    assert said == ["ALTER TABLE kine AUTO_INCREMENT = 100"]


def test_how_many_rows_were_read_is_told(source: Table) -> None:
    told = list[int]()
    source.on_rows = told.append
    source.content()
    assert told[0] == 200
    assert told[-1] == source.size()[0]


class Connection:
    """What two drivers have in common; it says what it was asked."""

    def __init__(self, *answers: list[tuple[Any, ...]], fails: Exception | None = None) -> None:
        self.answers, self.fails, self.asked, self.closed = list(answers), fails, list[str](), False

    def execute(self, text: str, *_: object) -> None:
        self.asked.append(text)
        if self.fails:
            raise self.fails

    def cursor(self) -> Any:
        return SimpleNamespace(
            execute=self.execute,
            fetchall=lambda: self.answers.pop(0),
            close=lambda: None,
            description="rows",
        )

    def close(self) -> None:
        self.closed = True


def opened(endpoint: Any = MARIADB, **files: Path) -> Any:
    return connect.opened(endpoint, Files(**files), SimpleNamespace(), "v1.34.9+k3s1")  # type: ignore[arg-type]  # its transport


def test_a_database_is_opened_as_k3s_does_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Connection([], [], [], [(1,)])
    monkeypatch.setattr(mysql_login, "connect", lambda *_: made)
    with opened() as found:
        assert found.exists()
    assert made.asked[:3] == ["SET autocommit = 1", "USE `k3s`", "SET SESSION lock_wait_timeout = 60"]
    assert made.closed


def test_of_several_hosts_the_one_that_takes_writes_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    replica, primary = Connection([(True,)]), Connection([(False,)])
    both = iter((replica, primary))
    monkeypatch.setattr(postgresql, "login", lambda *_: next(both))
    with opened(SEVERAL) as found:
        assert found._connection is primary
    assert replica.closed
    assert primary.closed
    again = iter((Connection([(True,)]), Connection([(True,)])))
    monkeypatch.setattr(postgresql, "login", lambda *_: next(again))
    with pytest.raises(K3sError, match=r"10\.0\.0\.8:5432: it is a read-only replica; 10\.0\.0\.9"), opened(SEVERAL):
        pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ProbeFailed(problem("datastore-login", "the database refuses user u", "a login", "")), "refuses user u"),
        (paramiko.ChannelException(1, "Administratively prohibited"), "Administratively prohibited"),
        (ssl.SSLError("handshake failed"), "handshake failed"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_why_it_cannot_be_opened_is_told_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(connect, "_mysql", fails)
    with pytest.raises(K3sError, match=words) as caught, opened():
        pass
    assert "hush" not in str(caught.value)


def test_what_a_driver_says_to_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: Exception) -> Any:
        def fails(*_: object) -> None:
            raise error

        return fails

    denied = pymysql.err.OperationalError(1130, "Host is not allowed")
    monkeypatch.setattr(mysql_login, "connect", raises(denied))
    with pytest.raises(K3sError, match="does not allow connections from this server's address"), opened():
        pass
    denied.__cause__ = ssl.SSLError("wrong version number")
    with pytest.raises(K3sError, match="wrong version number"), opened():
        pass
    refused = pg8000.dbapi.DatabaseError({"C": "28P01", "M": "password authentication failed"})
    monkeypatch.setattr(postgresql, "login", raises(refused))
    with pytest.raises(K3sError, match=r"10\.0\.0\.8:5432: .*10\.0\.0\.9:5432: "), opened(SEVERAL):
        pass


def test_a_database_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Connection(fails=pymysql.err.OperationalError(1049, "Unknown database 'k3s'"))
    monkeypatch.setattr(mysql_login, "connect", lambda *_: made)
    with pytest.raises(K3sError, match="Unknown database"), opened():
        pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (pg8000.dbapi.DatabaseError({"M": "permission denied"}), "permission denied"),
        (pg8000.dbapi.DatabaseError({}), "no reason given"),
        (pymysql.err.OperationalError(1142, "CREATE command denied"), "CREATE command denied"),
        (sqlite3.OperationalError("no such table"), "no such table"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_a_statement_failed_with_is_told(error: Exception, words: str) -> None:
    one = Table(Connection(fails=error), POSTGRESQL, (type(error),))
    one.name = "the new datastore"
    with pytest.raises(K3sError, match=f"the new datastore: {words}"):
        one.exists()
    one = Table(Connection(fails=ZeroDivisionError()), POSTGRESQL, (pg8000.dbapi.DatabaseError,))
    with pytest.raises(ZeroDivisionError):
        one.exists()


def test_tls_files_are_used_and_the_way_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts, ways = list[Any](), list[Any]()

    def context(*files: object) -> str:
        contexts.append(files)
        return "context"

    monkeypatch.setattr(tls, "context", context)

    def connects(_: object, connector: Any, used: object) -> Any:
        contexts.append(used)
        connector.connect()
        return Connection([], [], [])

    class Forward:
        def __init__(self, *where: object, **_: object) -> None:
            ways.append(where[1:])

        def __enter__(self) -> None:
            ways.append("open")

        def __exit__(self, *_: object) -> None:
            ways.append("closed")

    monkeypatch.setattr(connect, "forward", Forward)
    monkeypatch.setattr(mysql_login, "connect", connects)
    with opened(cafile=Path("/ca.pem")):
        assert ways == [("10.0.0.9", 3306), "open"]
    assert ways[-1] == "closed"
    assert contexts == [(Path("/ca.pem"), None, None), "context"]


def test_a_mysql_that_does_not_answer_is_not_waited_for_without_end() -> None:
    here, there = socket.socketpair()
    here.settimeout(0.05)
    with here, there, pytest.raises(pymysql.err.OperationalError, match="timed out"):
        mysql_login.connect(MARIADB, Connector(lambda: here, "10.0.0.9", None, "v1.34.9+k3s1"), None)


def test_a_probe_of_a_mysql_that_is_lost_ends_as_one_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Connection(fails=pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query"))
    monkeypatch.setattr(mysql_login, "connect", lambda *_: made)
    monkeypatch.setattr(mysql, "_read", lambda found, *_, **__: found.cursor().execute("SELECT 1"))
    connector = Connector(socket.socket, "10.0.0.9", None, "v1.34.9+k3s1")
    with pytest.raises(ConnectionError, match="Lost connection"):
        mysql.ask(MARIADB, connector)
    assert made.closed
    made.fails = pymysql.err.OperationalError(1317, "interrupted")
    with pytest.raises(pymysql.err.OperationalError):
        mysql.ask(MARIADB, connector)


def test_no_statement_is_larger_than_its_largest_row_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = list[list[int]]()
    monkeypatch.setattr(Table, "insert", lambda _, rows, __: pieces.append([len(row[7]) for row in rows]))
    sizes = [500_000, 500_000, 3_000_000, 10, 1_000_000, 100_000]
    rows = [(number, f"/x/{number}", 1, 0, 0, 0, 0, bytes(size), None) for number, size in enumerate(sizes, 1)]
    with connect.sqlite(tmp_path / "new.db") as table:
        assert fill(SimpleNamespace(rows=lambda: rows), table).rows == 6
    assert pieces == [[500_000, 500_000], [3_000_000], [10, 1_000_000], [100_000]]
