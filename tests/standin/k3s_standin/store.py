"""kine's log table in MariaDB/MySQL, PostgreSQL or sqlite, and etcd itself: one small key-value interface."""

from __future__ import annotations

import base64
import json
import sqlite3
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from k3s_standin.endpoint import WRAP, Endpoint
from k3s_standin.log import Fatal, log

Row = tuple[str, bytes]


class StoreError(Exception):
    """The datastore does not answer."""


class Store(Protocol):
    """What the rest needs of a datastore."""

    def get(self, key: str) -> bytes | None: ...
    def list(self, prefix: str) -> list[Row]: ...
    def put(self, key: str, value: bytes) -> None: ...
    def create(self, key: str, value: bytes) -> bool: ...
    def delete(self, key: str) -> None: ...


class SqlStore:
    """Rows are only ever added, as kine does; the newest row of a name counts."""

    def __init__(self, kind: str, connect: Any) -> None:
        self.kind, self._connect = kind, connect
        self._lock = threading.Lock()
        self._connection: Any = None
        self._mark = "?" if kind == "sqlite" else "%s"

    def run(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own; a lost connection is opened once again."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    if self._connection is None:
                        self._connection = self._connect()
                    cursor = self._connection.cursor()
                    cursor.execute(sql.replace("?", self._mark), args)
                    rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
                    self._connection.commit()
                    return rows
                except Exception as error:
                    self._drop()
                    if attempt == 2 or "uplicate" in str(error) or "UNIQUE" in str(error):
                        raise StoreError(str(error)) from error
        return []

    def _drop(self) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        except Exception:
            pass
        self._connection = None

    def _latest(self, key: str) -> tuple[int, int, int, bytes] | None:
        rows = self.run(
            "SELECT id, deleted, create_revision, value FROM kine WHERE name = ? ORDER BY id DESC LIMIT 1", key
        )
        if not rows:
            return None
        found = rows[0]
        return int(found[0]), int(found[1]), int(found[2] or 0), bytes(found[3]) if found[3] is not None else b""

    def _insert(
        self, key: str, created: int, deleted: int, create_revision: int, previous: int, value: bytes | None
    ) -> None:
        self.run(
            "INSERT INTO kine(name, created, deleted, create_revision, prev_revision, lease, value, old_value)"
            " VALUES(?, ?, ?, ?, ?, 0, ?, NULL)",
            key,
            created,
            deleted,
            create_revision,
            previous,
            value,
        )

    def get(self, key: str) -> bytes | None:
        row = self._latest(key)
        return None if row is None or row[1] else row[3]

    def list(self, prefix: str) -> list[Row]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self.run(
            "SELECT k.name, k.value FROM kine k JOIN (SELECT MAX(id) AS id FROM kine WHERE name >= ? AND name < ? GROUP BY name) m"
            " ON k.id = m.id WHERE k.deleted = 0 ORDER BY k.name",
            prefix,
            end,
        )
        return [(str(name), bytes(value) if value is not None else b"") for name, value in rows]

    def put(self, key: str, value: bytes) -> None:
        for _ in range(10):
            row = self._latest(key)
            try:
                if row is None or row[1]:
                    self._insert(key, 1, 0, 0, row[0] if row else 0, value)
                else:
                    self._insert(key, 0, 0, row[2] or row[0], row[0], value)
                return
            except StoreError as error:
                if "uplicate" not in str(error) and "UNIQUE" not in str(error):
                    raise
        raise StoreError(f"too many writers of {key}")

    def create(self, key: str, value: bytes) -> bool:
        row = self._latest(key)
        if row is not None and not row[1]:
            return False
        try:
            self._insert(key, 1, 0, 0, row[0] if row else 0, value or None)
        except StoreError as error:
            if "uplicate" in str(error) or "UNIQUE" in str(error):
                return False
            raise
        return True

    def delete(self, key: str) -> None:
        row = self._latest(key)
        if row is not None and not row[1]:
            self._insert(key, 0, 1, row[2] or row[0], row[0], None)


_MYSQL = """CREATE TABLE IF NOT EXISTS kine (
id BIGINT UNSIGNED AUTO_INCREMENT, name VARCHAR(630) CHARACTER SET ascii, created INTEGER, deleted INTEGER,
create_revision BIGINT UNSIGNED, prev_revision BIGINT UNSIGNED, lease INTEGER, value MEDIUMBLOB, old_value MEDIUMBLOB,
PRIMARY KEY (id), UNIQUE KEY kine_name_prev_revision_uindex (name, prev_revision), KEY kine_name_index (name),
KEY kine_name_id_index (name, id), KEY kine_id_deleted_index (id, deleted), KEY kine_prev_revision_index (prev_revision))"""
_POSTGRES = [
    'CREATE TABLE IF NOT EXISTS kine (id BIGSERIAL PRIMARY KEY, name text COLLATE "C", created INTEGER, deleted INTEGER,'
    " create_revision BIGINT, prev_revision BIGINT, lease INTEGER, value bytea, old_value bytea)",
    "CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name)",
    "CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id)",
    "CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id, deleted)",
    "CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision)",
    "CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision)",
    "CREATE INDEX IF NOT EXISTS kine_list_query_index ON kine (name, id DESC, deleted)",
]
_SQLITE = (
    "CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,"
    " create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB, UNIQUE(name, prev_revision))"
)


def _context(files: dict[str, str]) -> ssl.SSLContext | None:
    if not any(files.values()):
        return None
    context = ssl.create_default_context(cafile=files.get("cafile") or None)
    if files.get("certfile"):
        context.load_cert_chain(files["certfile"], files.get("keyfile") or None)
    return context


def open_store(endpoint: Endpoint, files: dict[str, str]) -> Store:
    """Open the datastore and make its table, with each driver's own way of failing."""
    if endpoint.kind == "etcd":
        return EtcdStore(endpoint.urls, _context(files))
    store = _open_mysql(endpoint, files) if endpoint.kind == "mysql" else _open_postgres(endpoint, files)
    log("info", "Database tables and indexes are up to date")
    for key in ("compact_rev_key", "/registry/health"):
        store.create(key, b'{"health":"true"}' if key.startswith("/") else b"")
    return store


def open_sqlite(path: Path) -> Store:
    """The embedded datastore that K3s falls back to without an endpoint."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = SqlStore("sqlite", lambda: sqlite3.connect(path, check_same_thread=False, timeout=30))
    store.run(_SQLITE)
    return store


def _pooling(driver: str) -> None:
    log(
        "info",
        f"Configuring {driver} database connection pooling: maxIdle=20, maxOpen=0, maxLifetime=0s, maxIdleTime=2m0s",
    )
    log("info", "Configuring database table schema and indexes, this may take a moment...")


def _go(error: Exception, host: str, port: int) -> str:
    """Return a database error in the Go drivers' words."""
    import pymysql

    text = str(error)
    if isinstance(error, pymysql.err.OperationalError) and len(error.args) > 1:
        code, message = error.args[0], str(error.args[1])
        if code == 2003:
            reason = "connect: connection refused" if "refused" in message else "i/o timeout"
            return f"dial tcp {host}:{port}: {reason}"
        state = {1045: "28000", 1044: "42000", 1049: "42000"}.get(code, "HY000")
        return f"Error {code} ({state}): {message}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    return text


def _open_mysql(endpoint: Endpoint, files: dict[str, str]) -> SqlStore:
    import pymysql

    host, port = endpoint.hosts[0] if endpoint.hosts else ("", 0)
    context = _context(files)

    def connect(database: str | None = endpoint.database) -> Any:
        where = {"unix_socket": endpoint.socket} if endpoint.socket else {"host": host, "port": port}
        return pymysql.connect(
            **where,
            user=endpoint.user,
            password=endpoint.password,
            database=database,
            ssl=context,
            connect_timeout=10,
            read_timeout=15,
            write_timeout=15,
        )

    try:
        connect().close()
    except Exception as error:
        said = _go(error, host, port)
        log("warning", f"failed to check existence of database {endpoint.database}, going to attempt create: {said}")
        try:
            if error.args and error.args[0] == 1049:
                made = connect(None)
                made.cursor().execute(f"CREATE DATABASE IF NOT EXISTS `{endpoint.database}`")
                made.close()
                connect().close()
            else:
                raise error
        except Exception as second:
            raise Fatal(WRAP + _go(second, host, port)) from None
    _pooling("mysql")
    store = SqlStore("mysql", connect)
    store.run(_MYSQL)
    return store


def _open_postgres(endpoint: Endpoint, files: dict[str, str]) -> SqlStore:
    import pg8000.dbapi

    context = _context(files)
    mode = endpoint.params.get("sslmode", "verify-full" if context else "prefer")
    if mode in ("require", "verify-ca", "verify-full") and context is None:
        context = ssl.create_default_context(cafile=endpoint.params.get("sslrootcert"))
        if mode == "require":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def connect(database: str = endpoint.database) -> Any:
        last: Exception = OSError("no host")
        for host, port in endpoint.hosts:
            try:
                return pg8000.dbapi.connect(
                    endpoint.user,
                    host=host,
                    port=port,
                    database=database,
                    password=endpoint.password,
                    timeout=10,
                    ssl_context=context,
                )
            except Exception as error:
                last = error
        raise last

    def words(error: Exception, database: str) -> str:
        host, port = endpoint.hosts[0]
        text = str(error)
        detail = error.args[0] if error.args and isinstance(error.args[0], dict) else None
        if detail:
            text = f"server error: FATAL: {detail.get('M')} (SQLSTATE {detail.get('C')})"
        elif "refused" in text or "Can't create a connection" in text:
            text = f"dial error: dial tcp {host}:{port}: connect: connection refused"
        return f"failed to connect to `user={endpoint.user} database={database}`: {host}:{port} ({host}): {text}"

    try:
        known = connect("postgres")
        cursor = known.cursor()
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (endpoint.database,))
        if not cursor.fetchall():
            known.rollback()
            known.autocommit = True
            cursor.execute(f'CREATE DATABASE "{endpoint.database}"')
        known.close()
    except Exception as error:
        why = f"unable to connect to default postgres database: {words(error, 'postgres')}"
        log("warning", f"failed to ensure existence of database postgres: {why}")
    for _ in range(300):
        try:
            connect().close()
            break
        except Exception as error:
            log("error", f"Failed to ping database connection: {words(error, endpoint.database)}")
            time.sleep(1)
    else:
        raise Fatal(WRAP + "database is not reachable")
    _pooling("pgx")
    store = SqlStore("postgres", connect)
    for statement in _POSTGRES:
        store.run(statement)
    return store


class EtcdStore:
    """etcd 3 through its JSON gateway."""

    def __init__(self, urls: list[str], context: ssl.SSLContext | None) -> None:
        self.urls, self.context = urls, context
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("/bootstrap")
                return
            except StoreError as error:
                log("warning", f"Failed to test etcd connection: failed to get etcd status: {error}")
                if time.monotonic() > deadline:
                    raise Fatal(f"failed to get etcd status: {error}") from None
                time.sleep(5)

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        last = ""
        for url in self.urls:
            request = urllib.request.Request(url.rstrip("/") + path, json.dumps(body).encode())
            try:
                with urllib.request.urlopen(request, timeout=5, context=self.context) as answer:
                    return dict(json.load(answer))
            except (OSError, ValueError) as error:
                last = str(error)
        raise StoreError(f"context deadline exceeded: {last}")

    @staticmethod
    def _e(text: str | bytes) -> str:
        return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()

    def get(self, key: str) -> bytes | None:
        found = self._call("/v3/kv/range", {"key": self._e(key)}).get("kvs")
        return base64.b64decode(found[0].get("value", "")) if found else None

    def list(self, prefix: str) -> list[Row]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._call("/v3/kv/range", {"key": self._e(prefix), "range_end": self._e(end)}).get("kvs", [])
        return [(base64.b64decode(kv["key"]).decode(), base64.b64decode(kv.get("value", ""))) for kv in found]

    def put(self, key: str, value: bytes) -> None:
        self._call("/v3/kv/put", {"key": self._e(key), "value": self._e(value)})

    def create(self, key: str, value: bytes) -> bool:
        answer = self._call(
            "/v3/kv/txn",
            {
                "compare": [{"key": self._e(key), "target": "VERSION", "result": "EQUAL", "version": "0"}],
                "success": [{"request_put": {"key": self._e(key), "value": self._e(value)}}],
            },
        )
        return bool(answer.get("succeeded"))

    def delete(self, key: str) -> None:
        self._call("/v3/kv/deleterange", {"key": self._e(key)})
