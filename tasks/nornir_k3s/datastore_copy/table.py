"""Table: K3s' table in one SQL database, read and written in pieces.

Sources: kine v0.16.4 `pkg/drivers/{sqlite,mysql,pgsql}` (columns, collations and indexes), `pkg/drivers/generic` (a row
is never changed, its id is the revision); docs.k3s.io `datastore/backup-restore.md`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nornir_k3s.errors import K3sError

COLUMNS = ("id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value")
DRAFT = "nornir_k3s_move"  # the table while it is filled: K3s does not know it
_ROWS, _BYTES = 200, 1 << 20  # of one piece; a database accepts statements of 16 MiB or more
_LIST = ", ".join(COLUMNS)
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Dialect:
    """What differs between databases.

    Arguments:
        mark: The placeholder of a value.
        exists: SQL that returns a row if there is a table of this name, `{}`.
        create: SQL that makes the draft as kine makes its table.
        index: SQL that makes kine's indexes.
        publish: SQL that makes the draft K3s' table, at once or not at all; `{newest}` is the highest id.
        ignores_case: Names that differ in their case only are the same.
    """

    mark: str
    exists: str
    create: str
    index: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    ignores_case: bool = False


_INDEXES = (
    f"CREATE INDEX kine_name_index ON {DRAFT} (name)",
    f"CREATE INDEX kine_name_id_index ON {DRAFT} (name, id)",
    f"CREATE INDEX kine_id_deleted_index ON {DRAFT} (id, deleted)",
    f"CREATE INDEX kine_prev_revision_index ON {DRAFT} (prev_revision)",
    f"CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON {DRAFT} (name, prev_revision)",
)
SQLITE = Dialect(
    mark="?",
    exists="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{}'",
    create=f"CREATE TABLE {DRAFT} (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, "
    "create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)",
    index=_INDEXES,
    publish=(f"ALTER TABLE {DRAFT} RENAME TO kine",),
)
MYSQL = Dialect(
    mark="%s",
    exists="SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{}'",
    create=f"CREATE TABLE {DRAFT} (id BIGINT UNSIGNED AUTO_INCREMENT, name VARCHAR(630) CHARACTER SET ascii, "
    "created INTEGER, deleted INTEGER, create_revision BIGINT UNSIGNED, prev_revision BIGINT UNSIGNED, lease INTEGER, "
    "value MEDIUMBLOB, old_value MEDIUMBLOB, PRIMARY KEY (id))",
    index=_INDEXES,  # InnoDB counts on from the highest id by itself
    publish=(f"RENAME TABLE {DRAFT} TO kine",),
    ignores_case=True,
)
POSTGRESQL = Dialect(
    mark="%s",
    exists="SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = '{}'",
    create=f'CREATE TABLE {DRAFT} (id BIGSERIAL CONSTRAINT kine_pkey PRIMARY KEY, name text COLLATE "C", '
    "created INTEGER, deleted INTEGER, create_revision BIGINT, prev_revision BIGINT, lease INTEGER, "
    "value bytea, old_value bytea)",
    index=(*_INDEXES, f"CREATE INDEX kine_list_query_index ON {DRAFT} (name, id DESC, deleted)"),
    publish=(
        "BEGIN",
        f"SELECT setval('{DRAFT}_id_seq', {{newest}})",
        f"ALTER SEQUENCE {DRAFT}_id_seq RENAME TO kine_id_seq",
        f"ALTER TABLE {DRAFT} RENAME TO kine",
        "COMMIT",
    ),
)


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
        last = 0
        text = f"SELECT {_LIST} FROM {name} WHERE id > {self.dialect.mark} ORDER BY id LIMIT {_ROWS}"  # noqa: S608 - our own names
        while page := self._query(text, (last,)):
            for row in page:
                yield _normal(row)
            last = page[-1][0]

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

    def insert(self, rows: Sequence[Row]) -> None:
        """Add rows to the draft."""
        one = f"({', '.join([self.dialect.mark] * len(COLUMNS))})"
        text = f"INSERT INTO {DRAFT} ({_LIST}) VALUES {', '.join([one] * len(rows))}"  # noqa: S608 - our own names
        self._query(text, [value for row in rows for value in row])

    def index(self) -> None:
        """Make the draft's indexes, as kine makes them."""
        for statement in self.dialect.index:
            self._query(statement)

    def publish(self, newest: int) -> None:
        """Make the draft K3s' table; from then on a server can start with it.

        Arguments:
            newest: Its highest id: the next one is higher.
        """
        for statement in self.dialect.publish:
            self._query(statement.format(newest=newest))


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


def fill(source: Table, target: Table) -> Content:
    """Copy all rows into the target's draft, in pieces; return what was read.

    Arguments:
        source: Nobody writes to it.
        target: With an empty draft.
    """
    digest, piece, size = _Digest(), list[Row](), 0
    for row in source.rows():
        digest.add(row)
        piece.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if len(piece) >= _ROWS or size >= _BYTES:
            target.insert(piece)
            piece, size = [], 0
    if piece:
        target.insert(piece)
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
