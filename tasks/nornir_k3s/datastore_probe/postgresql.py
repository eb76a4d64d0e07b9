"""Probe a PostgreSQL.

Sources: kine `pkg/drivers/pgsql` (statements, how TLS files become `verify-full`, how a missing database is made);
docs.k3s.io `datastore/datastore.md`; k3s#14505 (collation), k3s#7808 and k3s#14525 (PgBouncer); PostgreSQL's manual,
chapter "Frontend/Backend Protocol" (BackendKeyData: the process that serves a connection); jackc/pgx `pgconn/config.go`
(`configTLS`), `pgconn/pgconn.go` (`connectPreferred`).
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pg8000.dbapi

from nornir_k3s import k3s
from nornir_k3s.datastore_probe import parameters, postgresql_refusal, tls
from nornir_k3s.datastore_probe.answers import Answers, ProbeFailed, problem, table_problems
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.facts import database as sql
from nornir_k3s.model.datastore_facts import DatastoreHealth
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding

_MAINTENANCE = "postgres"  # the database that kine connects to when it creates another
_SETTINGS = """
SELECT current_setting('server_version'), current_setting('max_connections'), pg_is_in_recovery(),
  has_schema_privilege(current_schema(), 'USAGE') AND has_schema_privilege(current_schema(), 'CREATE'), current_schema()
"""
_COLUMNS = """
SELECT column_name, data_type, collation_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = 'kine'
"""
# In which order the database compares texts that have no collation of their own; `b` is PostgreSQL's own, bytes or code
# points, `i` is ICU's. Before version 15 there is no provider.
_DEFAULT = """
SELECT datcollate, coalesce(to_jsonb(d)->>'datlocprovider', 'c') FROM pg_database d WHERE datname = current_database()
"""
_BYTES = ("C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic", "pg_c_utf8")
# The first releases whose kine (0.16.3) asks for ranges of keys instead of prefixes, and those after kine 0.16.1, which
# end behind a PgBouncer.
_RANGES = ("1.33.13", "1.34.10", "1.35.7", "1.36.3")
_NO_POOLER = ("1.34.10", "1.35.6", "1.36.2")
_OWNED = "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = 'kine'::regclass"
_UNIQUE = """
SELECT 1 FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'kine'
  AND indexdef LIKE 'CREATE UNIQUE INDEX%(name, prev_revision)'
"""
# What K3s does with its table, in a transaction that is rolled back.
_STATEMENTS = (
    'CREATE TABLE TABLE_NAME (id BIGSERIAL PRIMARY KEY, name text COLLATE "C")',
    "CREATE INDEX ON TABLE_NAME (name)",
    "INSERT INTO TABLE_NAME (name) VALUES ('x')",
    "UPDATE TABLE_NAME SET name = 'y'",
    "DELETE FROM TABLE_NAME",
)
_FINAL = ("28P01", "3D000", "42501")
Query = Callable[[str], list[tuple[Any, ...]]]


def ask(endpoint: Endpoint, connector: Connector) -> Answers:
    """Log in as K3s does, read, and test its rights in a transaction that is rolled back.

    Raises:
        ProbeFailed: The login failed, or the database does not exist and the user may not create it.
        ssl.SSLError: The TLS handshake failed.
    """
    try:
        connection = login(endpoint, connector)
    except (pg8000.dbapi.DatabaseError, pg8000.dbapi.InterfaceError) as error:
        problem = postgresql_refusal.refused(error, endpoint, connector.version)
        if postgresql_refusal.code_of(error) == "3D000" and _may_create(endpoint, connector):
            return Answers()
        raise ProbeFailed(problem) from None
    try:
        answers = _read(connection, connector)
        answers.problems += _unbound(connection, endpoint)
        answers.problems += _pooled(connection, endpoint, connector)
        return answers
    finally:
        connection.close()


def login(endpoint: Endpoint, connector: Connector) -> Any:  # noqa: ANN401 - its types are of no use here
    """Try the ways of the endpoint's sslmode as pgx does: the next one, unless user, password or database is wrong."""
    sent = parameters.runtime(endpoint.parameters, connector.version)
    application = sent.pop("application_name", "nornir-k3s")
    failed: list[Exception] = []
    for context in ways(endpoint, connector.context):
        try:
            connection = pg8000.dbapi.connect(
                user=endpoint.user,
                password=endpoint.password.reveal(),
                database=endpoint.database,
                host=connector.address,
                sock=connector.connect(),
                ssl_context=context or False,  # None would be a TLS that is not verified, if there is one
                application_name=application,
                startup_params=sent,
            )
        except (pg8000.dbapi.DatabaseError, pg8000.dbapi.InterfaceError, ssl.SSLError) as error:
            cause = error.__cause__ or error.__context__
            failed.append(cause if isinstance(cause, ssl.SSLError) else error)
            if postgresql_refusal.code_of(error) in _FINAL:
                raise
        else:
            connection.autocommit = True
            return connection
    answered = [error for error in failed if postgresql_refusal.code_of(error)]
    raise (answered or failed)[0]


def ways(endpoint: Endpoint, given: tls.Context | None) -> list[tls.Context | None]:
    """Return the ways to connect, in order: a TLS context, or None for no TLS.

    Arguments:
        endpoint: Its `sslmode` counts.
        given: With the TLS files of the inventory; None if there are none.
    """
    mode = endpoint.parameters.get("sslmode", "verify-full" if given else "prefer")
    if mode == "disable":
        return [None]
    with_ca = given is not None and given.with_ca
    context = given or tls.context(None, None, None, verify=mode.startswith("verify"))
    if mode != "verify-full":
        context.check_hostname = False
    if mode in ("allow", "prefer") or (mode == "require" and not with_ca):
        context.verify_mode = ssl.CERT_NONE
    return {"allow": [None, context], "prefer": [context, None]}.get(mode, [context])


def _may_create(endpoint: Endpoint, connector: Connector) -> bool:
    try:
        connection = login(replace(endpoint, database=_MAINTENANCE), connector)
    except (pg8000.dbapi.DatabaseError, pg8000.dbapi.InterfaceError, OSError):
        return False
    try:
        return bool(_query(connection)("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")[0][0])
    finally:
        connection.close()


def _unbound(connection: Any, endpoint: Endpoint) -> list[Finding]:  # noqa: ANN401 - pg8000 has no types
    """Return a problem if the login needs channel binding and was done without it."""
    scram = getattr(connection, "auth", None)
    if endpoint.parameters.get("channel_binding") != "require" or scram is None or "PLUS" in scram.mechanism_name:
        return []
    found = "the endpoint requires channel binding, which needs TLS, and this login has none"
    return [problem("datastore-tls", found, "TLS", "enable TLS, or remove `channel_binding` from the endpoint")]


def _query(connection: Any) -> Query:  # noqa: ANN401 - its types are of no use here
    def query(text: str) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    return query


def _read(connection: Any, connector: Connector) -> Answers:  # noqa: ANN401 - its types are of no use here
    query = _query(connection)
    version, connections, replica, create, schema = query(_SETTINGS)[0]
    answers = Answers("PostgreSQL", str(version), connections=int(connections), writable=not replica)
    columns = {str(name): (str(kind), collation) for name, kind, collation in query(_COLUMNS)}
    remedy = f"GRANT USAGE, CREATE ON SCHEMA {schema or 'public'} to it, or make it the database's owner"
    if not create:
        found = f"the user may not create tables in schema {schema or 'public'}"
        answers.problems.append(problem("datastore-rights", found, "USAGE and CREATE", remedy))
    elif connector.test_rights and not columns and not replica and (reason := _test_rights(connection)):
        found = f"the user cannot create and change K3s' table: {reason}"
        answers.problems.append(problem("datastore-rights", found, "the rights K3s uses", remedy))
    if columns:
        answers.problems += _table(query, columns, connector.version)
        if not any(one.subject == "datastore-rights" for one in answers.problems):
            answers.bootstrap = {str(name): int(size) for name, size in query(sql.BOOTSTRAP.format(table="kine"))}
            answers.health = DatastoreHealth(
                connections=(int(query(sql.POSTGRESQL_USED)[0][0]), int(connections)),
                table=_pair(query(sql.POSTGRESQL_SIZE)[0]),
                revisions=_pair(query(sql.REVISIONS)[0]),
            )
            answers.aside = tuple(str(name) for name, _ in query(sql.POSTGRESQL_ASIDE))
    answers.clock(lambda: float(query("SELECT extract(epoch FROM clock_timestamp())")[0][0]))
    answers.measure(lambda: query("SELECT 1"))
    return answers


def _pair(row: tuple[Any, ...]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def _test_rights(connection: Any) -> str:  # noqa: ANN401 - its types are of no use here
    query = _query(connection)
    table = f"nornir_k3s_try_{secrets.token_hex(4)}"
    query("BEGIN")
    try:
        for statement in _STATEMENTS:
            query(statement.replace("TABLE_NAME", table))
    except pg8000.dbapi.DatabaseError as error:
        details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        return str(details.get("M") or "no reason given")
    finally:
        query("ROLLBACK")
    return ""


def _table(query: Query, columns: dict[str, tuple[str, Any]], version: str) -> list[Finding]:
    found = []
    if not query(_OWNED)[0][0]:
        text, remedy = "table kine belongs to another user", "make the user its owner (and that of kine_id_seq)"
        found.append(problem("datastore-rights", text, "the user's own table", remedy))
    found += _collated(query, columns.get("name", ("", None))[1], version)
    return found + table_problems(id_type=columns.get("id", ("missing", None))[0], unique=bool(query(_UNIQUE)))


def _collated(query: Query, collation: str | None, version: str) -> list[Finding]:
    name, provider = (collation, "") if collation else query(_DEFAULT)[0]
    if name in _BYTES and provider != "i":
        return []
    breaks = k3s.reached(version, *_RANGES)
    text = f"kine.name has the collation {name if collation else f'of the database, {name}'}"
    text += f": K3s {version} gets empty lists, and ends at its start" if breaks else ": newer K3s gets empty lists"
    remedy = 'ALTER TABLE kine ALTER COLUMN name TYPE text COLLATE "C", in a moment without load'
    return [problem("datastore-collation", text, "C", remedy, "error" if breaks else "warning")]


def _pooled(connection: Any, endpoint: Endpoint, connector: Connector) -> list[Finding]:  # noqa: ANN401 - pg8000 has no types
    """Return a problem if the endpoint is a pooler: its backend process is not the one that serves the session."""
    key = getattr(connection, "_backend_key_data", None)  # the process that the endpoint claims to be
    first = _query(connection)
    if not key or int.from_bytes(key[:4], "big", signed=True) == _process(first):
        return []
    other = login(endpoint, connector)
    try:
        second = _query(other)
        ours, theirs = {_process(first)}, {_process(second)}
        ours, theirs = ours | {_process(first)}, theirs | {_process(second)}
    finally:
        other.close()
    remedy = "use the address of PostgreSQL itself: K3s uses prepared statements"
    if ours & theirs or len(ours) > 1:
        found = "the endpoint is a connection pooler (PgBouncer) in transaction mode"
        return [problem("datastore-settings", found, "PostgreSQL itself", remedy)]
    found = "the endpoint is a connection pooler (PgBouncer)"
    if k3s.reached(connector.version, *_NO_POOLER):
        found += f", behind which K3s {connector.version} ends soon after its start (k3s#14525)"
        return [problem("datastore-pooler", found, "PostgreSQL itself", remedy)]
    return [problem("datastore-settings", found, "PostgreSQL itself", remedy, "warning")]


def _process(query: Query) -> int:
    return int(query("SELECT pg_backend_pid()")[0][0])
