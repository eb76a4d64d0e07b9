"""kine's PostgreSQL driver: it tries 300 times, a second apart, and cannot be stopped meanwhile."""

from __future__ import annotations

import ssl
import time
from typing import Any

import pg8000.dbapi

from k3s_standin.datastore_sql import Driver, SqlStore, client_context, dial_words, pooling
from k3s_standin.endpoint import WRAP, Endpoint
from k3s_standin.log import Fatal, log
from k3s_standin.process import deaf
from k3s_standin.store import StoreError

ATTEMPTS = 300
# pgx does not try the next way in when the server has judged password or database (pgconn.go, connectPreferred).
_FINAL = {"28P01", "3D000", "42501"}
_SCHEMA = [
    'CREATE TABLE IF NOT EXISTS kine (id BIGSERIAL PRIMARY KEY, name text COLLATE "C", created INTEGER, deleted INTEGER,'
    " create_revision BIGINT, prev_revision BIGINT, lease INTEGER, value bytea, old_value bytea)",
    "CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name)",
    "CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id)",
    "CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id, deleted)",
    "CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision)",
    "CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision)",
    "CREATE INDEX IF NOT EXISTS kine_list_query_index ON kine (name, id DESC, deleted)",
]
# All others go to the database as settings.
_KNOWN = {"connect_timeout", "sslmode", "sslkey", "sslcert", "sslrootcert", "target_session_attrs", "channel_binding"}
_Way = tuple[str, int, "ssl.SSLContext | None"]


class _Postgres(Driver):
    def __init__(self, endpoint: Endpoint, files: dict[str, str]) -> None:
        self.endpoint = endpoint
        params = endpoint.params
        self.patience = float(params.get("connect_timeout") or 0) or 130.0
        names = {"cafile": "sslrootcert", "certfile": "sslcert", "keyfile": "sslkey"}
        given = {flag: params.get(param) or files.get(flag, "") for flag, param in names.items()}
        mode = params.get("sslmode") or ("verify-full" if any(given.values()) else "prefer")
        self.ways: list[_Way] = []
        for host, port in endpoint.hosts:
            self.ways += [(host, port, context) for context in _contexts(mode, given)]

    def connect(self, *, quick: bool = False, database: str = "") -> Any:
        failed: list[tuple[_Way, Exception]] = []
        for way in self.ways:
            try:
                return self._one(way, database or self.endpoint.database, 2.0 if quick else self.patience)
            except Exception as error:
                failed.append((way, error))
                if _code(error) in _FINAL:
                    break
        raise _PgxError(self._failed(failed, database or self.endpoint.database))

    def _one(self, way: _Way, database: str, patience: float) -> Any:
        host, port, context = way
        one = self.endpoint
        connection = pg8000.dbapi.connect(
            one.user,
            host,
            database,
            port,
            one.password,
            ssl_context=context or False,
            timeout=patience,
            startup_params={name: value for name, value in one.params.items() if name not in _KNOWN},
        )
        connection.autocommit = True
        if one.params.get("target_session_attrs") == "read-write":
            cursor = connection.cursor()
            cursor.execute("SHOW transaction_read_only")
            if cursor.fetchone()[0] == "on":
                connection.close()
                raise OSError("read only connection")
        return connection

    def _failed(self, failed: list[tuple[_Way, Exception]], database: str) -> str:
        said = [f"{host}:{port} ({host}): {_words(error, host, port)}" for (host, port, _), error in failed]
        head = f"failed to connect to `user={self.endpoint.user} database={database}`:"
        return f"{head} {said[0]}" if len(self.ways) == 1 else head + "".join(f"\n\t{one}" for one in said)

    def is_duplicate(self, error: Exception) -> bool:
        return _code(error) == "23505"

    def words(self, error: Exception) -> str:
        detail = _detail(error)
        return f"ERROR: {detail.get('M')} (SQLSTATE {detail.get('C')})" if detail else str(error)


class _PgxError(Exception):
    """No way in; the text is pgx's."""


def _detail(error: Exception) -> dict[str, str]:
    return error.args[0] if error.args and isinstance(error.args[0], dict) else {}


def _code(error: Exception) -> str:
    return _detail(error).get("C", "")


def _words(error: Exception, host: str, port: int) -> str:
    if detail := _detail(error):
        how = "failed SASL auth" if detail.get("C") == "28P01" else "server error"
        return f"{how}: {detail.get('S', 'FATAL')}: {detail.get('M')} (SQLSTATE {detail.get('C')})"
    if "refuses SSL" in str(error):
        return "tls error: server refused TLS connection"
    said = dial_words(error.__cause__ or error, host, port)
    if said is None:
        return str(error)
    return f"tls error: {said}" if said.startswith("tls:") else f"dial error: {said}"


def _contexts(mode: str, given: dict[str, str]) -> list[ssl.SSLContext | None]:
    """Return the ways to connect that this sslmode allows, in order."""
    if mode == "disable":
        return [None]
    context = client_context(given) or ssl.create_default_context()
    if mode != "verify-full":
        context.check_hostname = False
    if mode in ("allow", "prefer", "require") and not given.get("cafile"):
        context.verify_mode = ssl.CERT_NONE
    return {"allow": [None, context], "prefer": [context, None]}.get(mode, [context])


def open_postgres(endpoint: Endpoint, files: dict[str, str]) -> SqlStore:
    """Open it, with all of kine's patience."""
    driver = _Postgres(endpoint, files)
    with deaf():
        _ensure_database(driver)
        _wait(driver)
    pooling("pgx")
    driver.patience = min(driver.patience, 10.0)
    store = SqlStore(driver)
    try:
        for statement in _SCHEMA:
            store.run(statement)
    except StoreError as error:
        raise Fatal(WRAP + str(error)) from None
    return store


def _ensure_database(driver: _Postgres) -> None:
    name = driver.endpoint.database
    try:
        connection = driver.connect(database="postgres")
    except _PgxError as error:
        why = f"unable to connect to default postgres database: {error}"
        log("warning", f"failed to ensure existence of database postgres: {why}")
        return
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if not cursor.fetchall():
            cursor.execute(f'CREATE DATABASE "{name}"')
    except Exception as error:
        log("warning", f"failed to create database {name}: {driver.words(error)}")
    connection.close()


def _wait(driver: _Postgres) -> None:
    said = ""
    for _ in range(ATTEMPTS):
        try:
            driver.connect().close()
            return
        except _PgxError as error:
            said = str(error)
            log("error", f"Failed to ping database connection: {said}")
            time.sleep(1)
    raise Fatal(WRAP + said)
