"""Table: K3s' table in one SQL database, read and written in pieces.

Sources: kine v0.16.4 `pkg/drivers/{sqlite,mysql,pgsql}` (columns, collations and indexes), `pkg/drivers/generic` (a row
is never changed, its id is the revision); docs.k3s.io `datastore/backup-restore.md`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nornir_k3s.datastore_copy.content import COMPACTION, Content, Digest, Live
from nornir_k3s.datastore_copy.dialect import DRAFT, Dialect
from nornir_k3s.errors import K3sError

COLUMNS = ("id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value")
_TRIAL = f"{DRAFT}_trial"
_LIVE = "id IN (SELECT MAX(id) FROM kine GROUP BY name) AND deleted = 0"
# Of one piece. Some databases accept statements of 4 MiB alone: a row that is larger than a piece has its own.
_ROWS, _BYTES = 200, 1 << 20
_DELETED = 20_000
_LOCK = 60  # seconds that MySQL waits until nobody else uses a table that is renamed
_LIST = ", ".join(COLUMNS)
Row = tuple[Any, ...]


class Table:
    """K3s' table on a connection in autocommit mode.

    Arguments:
        connection: Of a DB-API driver.
        dialect: Of its database.
        driver_errors: What the driver raises; every method raises a K3sError, without secrets, instead.
    """

    def __init__(self, connection: Any, dialect: Dialect, driver_errors: tuple[type[Exception], ...]) -> None:  # noqa: ANN401 - three drivers, two without types
        self._connection, self.dialect, self._errors = connection, dialect, (*driver_errors, OSError)
        self.name = "the datastore"
        self.on_rows: Callable[[int], None] = lambda _: None  # gets the number of rows that were read, now and then

    @property
    def ignores_case(self) -> bool:
        """Return whether names that differ in their case only are the same."""
        return self.dialect.ignores_case

    def _query(self, text: str, values: Sequence[object] = ()) -> list[Row]:
        try:
            cursor = self._connection.cursor()
            cursor.execute(text, tuple(values)) if values else cursor.execute(text)
            found = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
            cursor.close()
        except Exception as error:
            if not isinstance(error, self._errors):
                raise
            raise K3sError(f"{self.name}: {why(error)}") from None
        return found

    def query(self, text: str, *values: object) -> list[Row]:
        """Return what a statement returns.

        Raises:
            K3sError: The database refuses it.
        """
        return self._query(text, values)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read what is there now inside, whatever K3s writes meanwhile."""
        for statement in self.dialect.snapshot:
            self._query(statement)
        try:
            yield
        finally:
            with contextlib.suppress(K3sError):
                self._query("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything inside, or nothing."""
        self._query("BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(K3sError):
                self._query("ROLLBACK")
            raise
        self._query("COMMIT")

    def use(self, database: str) -> None:
        """Use a database of MySQL or MariaDB."""
        self._query("SET autocommit = 1")
        self._query(f"USE `{database.replace('`', '``')}`")
        # By default a day or a year: somebody's transaction that has read the table would keep K3s stopped so long.
        self._query(f"SET SESSION lock_wait_timeout = {_LOCK}")

    def close(self) -> None:
        """Close the connection; one that is lost is closed already."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def exists(self, name: str = "kine") -> bool:
        """Return whether there is a table of this name."""
        return bool(self._query(self.dialect.exists.format(name)))

    def is_replica(self) -> bool:
        """Return whether a PostgreSQL takes no writes."""
        return bool(self._query("SELECT pg_is_in_recovery()")[0][0])

    def size(self) -> tuple[int, int]:
        """Return the number of rows, and the highest id."""
        ((rows, newest),) = self._query("SELECT COUNT(*), COALESCE(MAX(id), 0) FROM kine")
        return int(rows), int(newest)

    def mark(self) -> tuple[int, int]:
        """Return what differs after somebody has written."""
        return self.size()

    def newest(self) -> int:
        """Return the highest id."""
        return self.size()[1]

    def summary(self) -> str:
        """Return how much it has, in words."""
        rows, newest = self.size()
        return f"{rows} rows up to id {newest}"

    def largest(self) -> tuple[str, int]:
        """Return the key with the largest value, and its size in bytes."""
        text = f"SELECT name, COALESCE(LENGTH(value), 0) FROM kine WHERE {_LIVE} ORDER BY 2 DESC LIMIT 1"  # noqa: S608 - our own names
        return next(((_text(name), int(size)) for name, size in self._query(text)), ("", 0))

    def live(self) -> Iterator[Live]:
        """Yield the newest value of each key that is not deleted, by its id, but what kine keeps for itself."""
        numbers = [int(number) for (number,) in self._query(f"SELECT id FROM kine WHERE {_LIVE} ORDER BY id")]  # noqa: S608 - our own names
        for begin in range(0, len(numbers), _ROWS):
            some = ", ".join(str(number) for number in numbers[begin : begin + _ROWS])
            for row in self._query(f"SELECT {_LIST} FROM kine WHERE id IN ({some}) ORDER BY id"):  # noqa: S608 - numbers
                _, name, *_, lease, value, _ = _normal(row)
                if name not in COMPACTION:
                    yield Live(name, value or b"", lease or 0)

    def alike(self) -> list[str]:
        """Return names that differ from another one in their case only: MySQL's column cannot hold both."""
        rows = self._query(
            "SELECT MIN(name) FROM (SELECT DISTINCT name FROM kine) AS names GROUP BY LOWER(name) "
            "HAVING COUNT(*) > 1 ORDER BY 1 LIMIT 3"
        )
        return [_text(name) for (name,) in rows]

    def rows(self, name: str = "kine") -> Iterator[Row]:
        """Yield all rows by their ids."""
        last, number = 0, 0
        text = f"SELECT {_LIST} FROM {name} WHERE id > {self.dialect.mark} ORDER BY id LIMIT {_ROWS}"  # noqa: S608 - our own names
        while page := self._query(text, (last,)):
            for row in page:
                yield _normal(row)
            last, number = page[-1][0], number + len(page)
            self.on_rows(number)

    def content(self, name: str = "kine") -> Content:
        """Read all rows, and return what they are."""
        digest = Digest()
        for row in self.rows(name):
            digest.add(row[0], *row)
        return digest.content

    def draft(self) -> Content:
        """Return what is in the draft."""
        return self.content(DRAFT)

    def take(self, source: Any) -> Content:  # noqa: ANN401 - a table or an etcd's keys
        """Fill the draft with all rows of another datastore; return what was read."""
        self.begin()
        found = fill(source, self)
        self.index()
        return found

    def try_out(self) -> None:
        """Check that a table can be made, filled, indexed, renamed and dropped."""
        self.begin()
        self.insert([(1, "nornir-k3s", 1, 0, 0, 0, 0, b"", None)])
        self.index()
        with self.transaction():
            for text in self.dialect.publish:
                self._query(text.format(newest=1, keep="").replace(" TO kine", f" TO {_TRIAL}"))
        self.drop()

    def begin(self) -> None:
        """Make an empty draft; one of an interrupted run goes."""
        self.drop()
        self._query(self.dialect.create)

    def drop(self) -> None:
        """Remove the draft."""
        for name in (DRAFT, _TRIAL):
            self._query(f"DROP TABLE IF EXISTS {name}")

    def insert(self, rows: Sequence[Row], name: str = DRAFT) -> None:
        """Add rows to the draft, or to K3s' table."""
        one = f"({', '.join([self.dialect.mark] * len(COLUMNS))})"
        text = f"INSERT INTO {name} ({_LIST}) VALUES {', '.join([one] * len(rows))}"  # noqa: S608 - our own names
        self._query(text, [value for row in rows for value in row])

    def index(self) -> None:
        """Make the draft's indexes, as kine makes them."""
        for statement in self.dialect.index:
            self._query(statement)

    def publish(self, newest: int, *, keep: str = "") -> None:
        """Make the draft K3s' table; from then on a server can start with it.

        Arguments:
            newest: Its highest id: the next one is higher.
            keep: The name that the table gets which K3s has had; empty if there is none.
        """
        asked = self.dialect.belongings.format(keep=keep) if keep else ""
        more = self._query(asked) if asked else []
        said = self.dialect.replace if keep else self.dialect.publish
        statements = [text.format(newest=newest, keep=keep) for text in said]
        with self.transaction():
            for statement in (*_texts(more, 0), *statements, *_texts(more, 1)):
                self._query(statement)

    def empty(self) -> None:
        """Delete all rows of K3s' table, some at a time: a statement has its time."""
        some = f"SELECT MAX(id) FROM (SELECT id FROM kine ORDER BY id LIMIT {_DELETED}) AS some"  # noqa: S608 - a number
        while (last := self._query(some)[0][0]) is not None:
            self._query(f"DELETE FROM kine WHERE id <= {self.dialect.mark}", (last,))  # noqa: S608 - a placeholder

    def go_on_after(self, revision: int) -> None:
        """Let ids go on after this one, as if all up to the next one were compacted; K3s is stopped.

        Who watches from this one or an earlier one is told to list again. kine reads from there on, and fills no gap.
        """
        if self.newest() >= revision:
            return
        self.count_on(revision + 2)
        with self.transaction():
            self._query(f"DELETE FROM kine WHERE name = '{COMPACTION[0]}'")  # noqa: S608 - a constant
            self.insert([compacted(revision + 2, revision + 1)], "kine")

    def count_on(self, newest: int) -> None:
        """Let ids go on after the highest one: K3s fills each gap, one second after the other."""
        if self.dialect.count_on:
            self._query(self.dialect.count_on.format(newest=newest + 1))


def compacted(number: int, revision: int) -> Row:
    """Return the row of this id with which kine knows that all is compacted up to a revision."""
    return (number, COMPACTION[0], 1, 0, 0, revision, 0, b"", None)


def _texts(rows: Sequence[Row], when: int) -> list[str]:
    return [_text(text) for number, text in rows if number == when]


def fill(source: Any, target: Table, name: str = DRAFT) -> Content:  # noqa: ANN401 - a table or an etcd's keys
    """Copy all rows into the target's draft, in pieces; return what was read.

    Arguments:
        source: Nobody writes to it.
        target: With an empty draft.
        name: Another table of the target, which is empty.
    """
    digest, piece, size = Digest(), list[Row](), 0
    for row in source.rows():
        own = sum(len(value) for value in row if isinstance(value, bytes))
        if len(piece) >= _ROWS or (piece and size + own > _BYTES):
            target.insert(piece, name)
            target.on_rows(digest.rows)
            piece, size = [], 0
        digest.add(row[0], *row)
        piece.append(row)
        size += own
    if piece:
        target.insert(piece, name)
    return digest.content


def why(error: Exception) -> str:
    """Return what an error says: drivers give a number and a text, or PostgreSQL's fields."""
    said = error.args[0] if error.args else ""
    if isinstance(said, dict):
        return str(said.get("M") or "no reason given")
    return str(error.args[1]) if isinstance(said, int) and len(error.args) > 1 else str(error) or type(error).__name__


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _normal(row: Row) -> Row:
    """Return a row in Python's types, whatever the driver makes of the columns."""
    number, name, *numbers, value, old = row
    integers = [None if one is None else int(one) for one in numbers]
    return int(number), _text(name), *integers, _blob(value), _blob(old)


def _blob(value: object) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]  # bytes, bytearray or memoryview
