"""Table: K3s' table in one SQL database, read and written in pieces.

Sources: kine v0.16.4 `pkg/drivers/{sqlite,mysql,pgsql}` (columns, collations and indexes), `pkg/drivers/generic` (a row
is never changed, its id is the revision); docs.k3s.io `datastore/backup-restore.md`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nornir_k3s.datastore_copy.dialect import DRAFT, Dialect
from nornir_k3s.errors import K3sError

COLUMNS = ("id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value")
_ROWS, _BYTES = 200, 1 << 20  # of one piece; a database accepts statements of 16 MiB or more
_DELETED = 20_000
_LIST = ", ".join(COLUMNS)
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Content:
    """What a table holds: the number of its rows, the highest id, and a hash over all of them in this order."""

    rows: int = 0
    newest: int = 0
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.rows} rows up to id {self.newest}, SHA-256 {self.sha256[:12]}"


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
        digest = _Digest()
        for row in self.rows(name):
            digest.add(row)
        return digest.content

    def begin(self) -> None:
        """Make an empty draft; one of an interrupted run goes."""
        self.drop()
        self._query(self.dialect.create)

    def drop(self) -> None:
        """Remove the draft."""
        self._query(f"DROP TABLE IF EXISTS {DRAFT}")

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

    def count_on(self, newest: int) -> None:
        """Let ids go on after the highest one: K3s fills each gap, one second after the other."""
        if self.dialect.count_on:
            self._query(self.dialect.count_on.format(newest=newest + 1))


def _texts(rows: Sequence[Row], when: int) -> list[str]:
    return [_text(text) for number, text in rows if number == when]


class _Digest:
    """The content of the rows so far."""

    def __init__(self) -> None:
        self._hash, self._rows, self._newest = hashlib.sha256(), 0, 0

    def add(self, row: Row) -> None:
        for value in row:
            data = b"" if value is None else value if isinstance(value, bytes) else str(value).encode()
            self._hash.update(f"{'-' if value is None else len(data)} ".encode() + data)
        self._rows, self._newest = self._rows + 1, int(row[0])

    @property
    def content(self) -> Content:
        return Content(self._rows, self._newest, self._hash.hexdigest())


def fill(source: Table, target: Table, name: str = DRAFT) -> Content:
    """Copy all rows into the target's draft, in pieces; return what was read.

    Arguments:
        source: Nobody writes to it.
        target: With an empty draft.
        name: Another table of the target, which is empty.
    """
    digest, piece, size = _Digest(), list[Row](), 0
    for row in source.rows():
        digest.add(row)
        piece.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if len(piece) >= _ROWS or size >= _BYTES:
            target.insert(piece, name)
            piece, size = [], 0
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
