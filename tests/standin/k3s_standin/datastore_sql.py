"""kine's log table: rows are only ever added, the newest row of a name counts (kine pkg/drivers/generic)."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import ssl
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from k3s_standin.log import log
from k3s_standin.store import Change, Compared, Entry, Expired, Feed, Store, StoreError

KEEP = 1000
_COLUMNS = "name, created, deleted, create_revision, prev_revision, lease, value, old_value"


class Driver(ABC):
    """What differs between databases."""

    mark = "%s"

    @abstractmethod
    def connect(self, *, quick: bool = False) -> Any:
        """Return a new connection in autocommit mode; a quick one gives up after two seconds."""

    @abstractmethod
    def is_duplicate(self, error: Exception) -> bool:
        """Tell whether the unique index refused a row."""

    def words(self, error: Exception) -> str:
        """Return an error in the Go driver's words."""
        return str(error)


class SqlStore(Store):
    """The table, on any of the databases, with a pool of connections."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._prober: Any = None

    def run(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run one statement; on an idle connection that was lost meanwhile, once more on a new one."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            fresh = connection is None
            try:
                if connection is None:
                    connection = self.driver.connect()
                rows = self._execute(connection, sql, args)
            except Exception as error:
                if self.driver.is_duplicate(error):
                    self._keep(connection)
                    raise _DuplicateError from None
                _close(connection)
                if fresh:
                    raise StoreError(self.driver.words(error)) from error
                self._drop_idle()
            else:
                self._keep(connection)
                return rows

    def _execute(self, connection: Any, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        cursor.execute(sql.replace("?", self.driver.mark), args)
        rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        cursor.close()
        return rows

    def _keep(self, connection: Any) -> None:
        with self._lock:
            if len(self._idle) < 20:
                self._idle.append(connection)
                return
        _close(connection)

    def _drop_idle(self) -> None:
        with self._lock:
            lost, self._idle = self._idle, []
        for connection in lost:
            _close(connection)

    def probe(self) -> None:
        try:
            if self._prober is None:
                self._prober = self.driver.connect(quick=True)
            self._execute(self._prober, "SELECT MAX(id) FROM kine", ())
        except Exception as error:
            _close(self._prober)
            self._prober = None
            raise StoreError(self.driver.words(error)) from error

    def _latest(self, key: str) -> tuple[int, bool, int, bytes] | None:
        rows = self.run(
            "SELECT id, deleted, create_revision, value FROM kine WHERE name = ? ORDER BY id DESC LIMIT 1", key
        )
        if not rows:
            return None
        number, deleted, created, value = rows[0]
        return int(number), bool(deleted), int(created or 0) or int(number), _bytes(value)

    def _insert(self, key: str, created: int, deleted: int, born: int, previous: int, value: Any, old: Any) -> bool:
        try:
            self.run(
                f"INSERT INTO kine({_COLUMNS}) VALUES(?, ?, ?, ?, ?, 0, ?, ?)",
                *(key, created, deleted, born, previous, value, old),
            )
        except _DuplicateError:
            return False
        return True

    def get(self, key: str) -> Entry | None:
        row = self._latest(key)
        return None if row is None or row[1] else Entry(row[3], row[0])

    def list(self, prefix: str) -> list[tuple[str, Entry]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self.run(
            "SELECT k.name, k.value, k.id FROM kine k JOIN"
            " (SELECT MAX(id) AS id FROM kine WHERE name >= ? AND name < ? GROUP BY name) m ON k.id = m.id"
            " WHERE k.deleted = 0 ORDER BY k.name",
            prefix,
            end,
        )
        return [(str(name), Entry(_bytes(value), int(number))) for name, value, number in rows]

    def revision(self) -> int:
        return int(self.run("SELECT MAX(id) FROM kine")[0][0] or 0)

    def feed(self, prefix: str, revision: int) -> Feed:
        ((compacted,),) = self.run("SELECT MAX(prev_revision) FROM kine WHERE name = 'compact_rev_key'")
        if 0 < revision < int(compacted or 0):  # kine: pkg/server/watch.go
            raise Expired(revision, int(compacted))
        return _Log(self, prefix, revision) if revision else Compared(self, prefix, 0)

    def create(self, key: str, value: bytes) -> bool:
        row = self._latest(key)
        if row is not None and not row[1]:
            return False
        return self._insert(key, 1, 0, 0, row[0] if row else 0, value or None, None)

    def swap(self, key: str, value: bytes, revision: int) -> bool:
        row = self._latest(key)
        if row is None or row[1] or row[0] != revision:
            return False
        return self._insert(key, 0, 0, row[2], revision, value or None, row[3] or None)

    def delete(self, key: str) -> bool:
        while True:
            row = self._latest(key)
            if row is None or row[1]:
                return False
            if self._insert(key, 0, 1, row[2], row[0], row[3] or None, row[3] or None):
                return True

    def compact(self) -> None:
        newest = self.revision()
        self.run(
            "DELETE FROM kine WHERE id <= ? AND id NOT IN"
            " (SELECT newest FROM (SELECT MAX(id) AS newest FROM kine GROUP BY name) AS kept)",
            newest - KEEP,
        )


class _Log(Feed):
    """The rows that were added; one with a smaller number may be committed a moment after its successor."""

    LATE = 100  # rows

    def __init__(self, store: SqlStore, prefix: str, revision: int) -> None:
        self.store, self.prefix, self.revision, self.newest = store, prefix, revision, revision
        self.seen: set[int] = set()

    def poll(self) -> list[Change]:
        since = max(self.revision, self.newest - self.LATE)
        rows = self.store.run(
            "SELECT id, name, created, deleted, value FROM kine WHERE id > ? ORDER BY id LIMIT 1000", since
        )
        found = []
        for number, name, created, deleted, value in rows:
            self.newest = max(self.newest, int(number))
            if int(number) in self.seen or not str(name).startswith(self.prefix):
                continue
            self.seen.add(int(number))
            kind = "DELETED" if deleted else "ADDED" if created else "MODIFIED"
            found.append((kind, str(name), Entry(_bytes(value), int(number))))
        self.seen = {one for one in self.seen if one > self.newest - 2 * self.LATE}
        return found


class _DuplicateError(Exception):
    """The unique index refused a row: another writer was faster."""


def _bytes(value: Any) -> bytes:
    return b"" if value is None else bytes(value)


def _close(connection: Any) -> None:
    try:
        if connection is not None:
            connection.close()
    except Exception:  # what is lost cannot be closed
        return


class _Sqlite(Driver):
    mark = "?"

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, *, quick: bool = False) -> Any:
        patience = 2 if quick else 30
        return sqlite3.connect(self.path, check_same_thread=False, timeout=patience, isolation_level=None)

    def is_duplicate(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.IntegrityError)


def sqlite_store(path: Path) -> SqlStore:
    """Return the table in a local file."""
    store = SqlStore(_Sqlite(path))
    store.run(
        "CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER,"
        " deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB,"
        " UNIQUE(name, prev_revision))"
    )
    return store


def pooling(driver: str) -> None:
    """Log what kine logs before it makes its table."""
    names = {"maxIdle": ("MAX_IDLE_CONNECTIONS", "20"), "maxOpen": ("MAX_OPEN_CONNECTIONS", "0")}
    names["maxLifetime"] = ("CONNECTION_MAX_LIFETIME", "0s")
    given = {word: os.environ.get(f"KINE_DATASTORE_{name}") or default for word, (name, default) in names.items()}
    pool = ", ".join(f"{word}={value}" for word, value in given.items()) + ", maxIdleTime=2m0s"
    log("info", f"Configuring {driver} database connection pooling: {pool}")
    log("info", "Configuring database table schema and indexes, this may take a moment...")


def client_context(files: dict[str, str]) -> ssl.SSLContext | None:
    """Return the TLS settings that the datastore-*file flags make; None when none of them is set."""
    if not any(files.values()):
        return None
    context = ssl.create_default_context(cafile=files.get("cafile") or None)
    if files.get("certfile"):
        context.load_cert_chain(files["certfile"], files.get("keyfile") or None)
    return context


def dial_words(error: BaseException, host: str, port: int) -> str | None:
    """Return a failed connection in Go's words; None when it is something else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_x509(error, host)}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}".lower()
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    reasons = {
        errno.ECONNREFUSED: "connect: connection refused",
        errno.EHOSTUNREACH: "connect: no route to host",
        errno.ENETUNREACH: "connect: network is unreachable",
        errno.ETIMEDOUT: "connect: connection timed out",
    }
    if isinstance(error, OSError) and error.errno in reasons:
        return f"dial tcp {host}:{port}: {reasons[error.errno]}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {host}:{port}: i/o timeout"
    return None


def _x509(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code == 62:
        return f"certificate is not valid for any names, but wanted to match {host}"
    if error.verify_code == 64:
        return f"cannot validate certificate for {host} because it doesn't contain any IP SANs"
    if error.verify_code in (9, 10):
        return "certificate has expired or is not yet valid"
    return "certificate signed by unknown authority"
