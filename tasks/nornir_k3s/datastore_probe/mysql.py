"""Probe a MySQL or MariaDB.

Sources: kine `pkg/drivers/mysql` (statements it uses, and when it uses TLS); docs.k3s.io `datastore/datastore.md`;
kine#408 (unique index), docs.k3s.io `known-issues.md` (ids).
"""

from __future__ import annotations

import contextlib
import re
import secrets
import ssl
from dataclasses import replace
from typing import Any

import pymysql

from nornir_k3s.datastore_probe import mysql_login, mysql_settings
from nornir_k3s.datastore_probe.answers import Answers, ProbeFailed, problem, table_problems
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.datastore_probe.mysql_settings import Query
from nornir_k3s.facts import database as sql
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding

_LOST = (2006, 2013)  # while it was asked, or no answer in time
NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX")
ALL = (*NEEDED, "DROP")  # those of all that this tool has a use for
_VARIABLES = (
    "version", "auto_increment_increment", "innodb_snapshot_isolation", "read_only", "super_read_only",
    "innodb_read_only", "max_connections", "wsrep_on", "wsrep_cluster_address",
)  # fmt: skip
_COLUMNS = """
SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = 'kine'
"""
_UNIQUE = """
SELECT GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX) FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = 'kine' AND NON_UNIQUE = 0 GROUP BY INDEX_NAME
"""
# What K3s does with its table. MySQL cannot roll back DDL: the table is dropped afterwards.
_STATEMENTS = (
    "CREATE TABLE TABLE_NAME (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(630) CHARACTER SET ascii)",
    "ALTER TABLE TABLE_NAME ADD COLUMN value MEDIUMBLOB",
    "CREATE INDEX try_index ON TABLE_NAME (name)",
    "INSERT INTO TABLE_NAME (name) VALUES ('x')",
    "UPDATE TABLE_NAME SET name = 'y'",
    "DELETE FROM TABLE_NAME",
)


def ask(endpoint: Endpoint, connector: Connector) -> Answers:
    """Log in as K3s does, read, and test its rights on a table that is dropped afterwards.

    Raises:
        ProbeFailed: The login failed.
        ssl.SSLError: The TLS handshake failed.
        ConnectionError: The connection was lost, or there was no answer in time.
    """
    try:
        connection = mysql_login.connect(endpoint, connector, connector.context)
    except pymysql.err.OperationalError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLError):
            raise cause from None
        raise ProbeFailed(mysql_login.refused(error, endpoint, connector)) from None
    try:
        return _read(connection, endpoint, test_rights=connector.test_rights)
    except pymysql.err.OperationalError as error:
        if error.args and error.args[0] in _LOST:
            raise ConnectionError(error.args[1]) from None
        raise
    finally:
        connection.close()


def _asking(connection: Any) -> Query:  # noqa: ANN401 - it has no types
    def query(text: str, *values: object) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(text, values or None)  # without values, % is itself
            return list(cursor.fetchall())

    return query


def _read(connection: Any, endpoint: Endpoint, *, test_rights: bool) -> Answers:  # noqa: ANN401 - it has no types
    query = _asking(connection)
    refused = mysql_settings.apply(query, endpoint)
    names = ", ".join(f"'{name}'" for name in _VARIABLES)
    settings = {str(k): str(v) for k, v in query(f"SHOW VARIABLES WHERE Variable_name IN ({names})")}
    version = settings.get("version", "")
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    answers = Answers(product, version, connections=int(settings.get("max_connections", "0")))
    answers.problems += refused + mysql_settings.problems(settings)
    answers.problems += mysql_settings.only_until_restart(query, settings, endpoint)
    answers.writable = not any(settings.get(f"{name}read_only") in ("ON", "1") for name in ("", "super_", "innodb_"))
    exists = bool(query("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", endpoint.database))
    grants = _grants(query, product)
    rights = _rights(grants, endpoint)
    missing = _inactive_roles(grants, rights, endpoint) or _missing_rights(rights, endpoint, exists=exists)
    answers.problems += missing
    columns = _columns(query, endpoint)
    used = query("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    if used:
        answers.health = replace(answers.health, connections=(int(used[0][1]), answers.connections))
    if columns:
        answers.problems += _table(query, endpoint, answers, columns)
        _size(query, endpoint, answers)
        answers.aside = tuple(str(name) for name, _ in query(sql.MYSQL_ASIDE.format("%s"), endpoint.database))
    elif test_rights and exists and not missing and answers.writable and rights & {"ALL", "ALL PRIVILEGES", "DROP"}:
        answers.problems += _test_rights(query, endpoint)
    answers.clock(lambda: float(query("SELECT UNIX_TIMESTAMP(NOW(6))")[0][0]))
    answers.measure(lambda: query("SELECT 1"))
    return answers


def _columns(query: Query, endpoint: Endpoint) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in query(_COLUMNS, endpoint.database)}


def _test_rights(query: Query, endpoint: Endpoint) -> list[Finding]:
    """Do what K3s does on a table that is dropped afterwards; the user must have the right to drop it."""
    table = f"`{endpoint.database.replace('`', '``')}`.nornir_k3s_try_{secrets.token_hex(4)}"
    try:
        for statement in _STATEMENTS:
            query(statement.replace("TABLE_NAME", table))
    except pymysql.err.Error as error:
        reason = str(error.args[1]) if len(error.args) > 1 else "no reason given"
        found = f"the user cannot create and change K3s' table: {reason}"
        return [problem("datastore-rights", found, "the rights K3s uses", "see the database's log")]
    finally:
        with contextlib.suppress(pymysql.err.Error):
            query(f"DROP TABLE IF EXISTS {table}")
    return []


def _table(query: Query, endpoint: Endpoint, answers: Answers, columns: dict[str, str]) -> list[Finding]:
    table = f"`{endpoint.database.replace('`', '``')}`.kine"
    rows = query(sql.BOOTSTRAP.format(table=table))
    answers.bootstrap = {n.decode() if isinstance(n, bytes) else str(n): int(size) for n, size in rows}
    unique = ("name,prev_revision",) in query(_UNIQUE, endpoint.database)
    return table_problems(id_type=str(columns.get("id")), unique=unique)


def _size(query: Query, endpoint: Endpoint, answers: Answers) -> None:
    rows, size = query(sql.MYSQL_SIZE.format("%s"), endpoint.database)[0]
    table = f"`{endpoint.database.replace('`', '``')}`.kine"
    newest, compacted = query(sql.REVISIONS.replace("FROM kine", f"FROM {table}"))[0]
    answers.health = replace(answers.health, table=(int(rows), int(size)), revisions=(int(newest), int(compacted)))


def _grants(query: Query, product: str) -> list[str]:
    grants = [str(row[0]) for row in query("SHOW GRANTS")]
    if product == "MySQL":  # lists a role's rights only for a named role; MariaDB lists them always
        roles = query("SELECT CURRENT_ROLE()") if any(" ON " not in grant for grant in grants) else []
        if roles and roles[0][0] not in (None, "", "NONE"):
            grants += [str(row[0]) for row in query(f"SHOW GRANTS FOR CURRENT_USER() USING {roles[0][0]}")]
    return grants


def rights(query: Query, endpoint: Endpoint) -> set[str]:
    """Return the rights on the endpoint's database that the user who is logged in has, by whichever role."""
    version = str(query("SELECT VERSION()")[0][0])
    found = _rights(_grants(query, "MariaDB" if "mariadb" in version.lower() else "MySQL"), endpoint)
    return found | (set(ALL) if found & {"ALL", "ALL PRIVILEGES"} else set())


def _inactive_roles(grants: list[str], rights: set[str], endpoint: Endpoint) -> list[Finding]:
    """Return a problem if a user without rights has roles, none of which is on after the login."""
    roles = [match[1] for grant in grants if (match := re.match(r"GRANT ((?:(?! ON ).)+) TO ", grant))]
    if not roles or rights & set(NEEDED):
        return []
    found = f"user {endpoint.user} has no rights on {endpoint.database}: no role that gives them is on after a login"
    remedy = f"SET DEFAULT ROLE {roles[0]} TO it: K3s turns no role on"
    return [problem("datastore-rights", found, "the rights K3s uses", remedy)]


def _rights(grants: list[str], endpoint: Endpoint) -> set[str]:
    rights: set[str] = set()
    for grant in grants:
        match = re.match(r"GRANT (.+?) ON (\S+) TO ", grant)
        if match and _covers(match[2].replace("`", ""), endpoint.database):
            rights |= {word.strip().upper() for word in match[1].split(",")}
    return rights


def _missing_rights(rights: set[str], endpoint: Endpoint, *, exists: bool) -> list[Finding]:
    if "ALL PRIVILEGES" in rights or "ALL" in rights:
        return []
    if missing := [right for right in NEEDED if right not in rights]:
        if not exists and "CREATE" in missing:
            found = f"database {endpoint.database} does not exist, and user {endpoint.user} may not create it"
            return [
                problem("datastore-rights", found, "the database", "create it, and grant the user all rights on it")
            ]
        found = f"user {endpoint.user} lacks {', '.join(missing)} on {endpoint.database}"
        remedy = f"GRANT {', '.join(NEEDED)} ON `{endpoint.database}`.* to it"
        return [problem("datastore-rights", found, "the rights K3s uses", remedy)]
    return []


def _covers(where: str, database: str) -> bool:
    """Return whether `DATABASE.*` of a grant, where % and _ are wildcards unless escaped, includes this database."""
    pattern, dot, tables = where.rpartition(".")
    if not dot or tables != "*":
        return False
    parts = re.split(r"(\\.|%|_)", pattern)
    wild = {"%": ".*", "_": "."}
    text = "".join(wild.get(part, re.escape(part.removeprefix("\\"))) for part in parts)
    return pattern == "*" or re.fullmatch(text, database) is not None
