"""Ask a MySQL or MariaDB what K3s needs to know of it.

Sources: kine `pkg/drivers/mysql` (statements it uses); docs.k3s.io `datastore/datastore.md`; k3s#11816 (increments),
kine#721 (snapshot isolation).
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

import pymysql

from nornir_k3s.datastores.endpoint import Endpoint
from nornir_k3s.datastores.problem import Answers, Problem

NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX")
_VARIABLES = (
    "version", "auto_increment_increment", "innodb_snapshot_isolation", "read_only", "max_connections",
    "wsrep_on", "wsrep_cluster_address",
)  # fmt: skip


def ask(endpoint: Endpoint, sock: socket.socket, address: str, context: ssl.SSLContext | None) -> Answers:
    """Log in as K3s will, and read.

    Raises:
        Problem: It does not let the user in, or the database is missing.
        ssl.SSLError: Its certificate is not trusted.
    """
    connection: Any = pymysql.connect(
        host=address,
        user=endpoint.user,
        password=endpoint.password.reveal().encode(),  # as K3s sends it; pymysql would make Latin-1 of it
        ssl=context,
        ssl_disabled=context is None,
        connect_timeout=10,
        defer_connect=True,
    )
    try:
        connection.connect(sock)
    except pymysql.err.OperationalError as error:
        raise _refused(error, endpoint) from None
    try:
        return _read(connection, endpoint)
    finally:
        connection.close()


def _refused(error: pymysql.err.OperationalError, endpoint: Endpoint) -> Exception:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return cause
    code = error.args[0] if error.args else 0
    if code in (1045, 1698, 2059):
        found = f"the database refuses user {endpoint.user} or the password"
        return Problem("datastore-login", found, "a login", "check user, password, and from where it may log in")
    if code == 1130:
        found = "the database lets nobody in from this server's address"
        return Problem("datastore-login", found, "a login", "grant the user for the servers' addresses")
    if code == 2026 or "SSL" in str(error):
        return Problem("datastore-tls", "the database does not speak TLS", "TLS, since cafile is given", "turn it on")
    return Problem("datastore", f"the database breaks the login off (error {code})", "a login", "see its own log")


def _read(connection: Any, endpoint: Endpoint) -> Answers:  # noqa: ANN401 - its types are of no use here
    def query(text: str, *values: object) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(text, values)
            return list(cursor.fetchall())

    names = ", ".join(f"'{name}'" for name in _VARIABLES)
    settings = {str(k): str(v) for k, v in query(f"SHOW VARIABLES WHERE Variable_name IN ({names})")}
    answers = Answers(version=settings.get("version", ""), connections=int(settings.get("max_connections", "0")))
    answers.problems += _settings(settings)
    grants = [str(row[0]) for row in query("SHOW GRANTS")]
    exists = bool(query("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", endpoint.database))
    answers.problems += _rights(grants, endpoint, exists=exists)
    if query(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = 'kine'", endpoint.database
    ):
        table = f"`{endpoint.database.replace('`', '``')}`.kine"
        rows = query(f"SELECT DISTINCT name FROM {table} WHERE name LIKE '/bootstrap/%%' AND deleted = 0")  # noqa: S608
        answers.bootstrap = [row[0].decode() if isinstance(row[0], bytes) else str(row[0]) for row in rows]
    answers.measure(lambda: query("SELECT 1"))
    return answers


def _settings(settings: dict[str, str]) -> list[Problem]:
    found = []
    if settings.get("auto_increment_increment", "1") != "1":
        value = settings["auto_increment_increment"]
        todo = "set it to 1, with one writer: K3s loses changes otherwise"
        found.append(Problem("datastore-settings", f"auto_increment_increment is {value}", "1", todo))
    if settings.get("innodb_snapshot_isolation") in ("ON", "1"):
        todo = "turn it off: compaction fails with error 1020 otherwise"
        found.append(Problem("datastore-settings", "innodb_snapshot_isolation is on", "OFF", todo))
    if settings.get("read_only") in ("ON", "1"):
        found.append(Problem("datastore-settings", "the database is read-only (a replica?)", "the primary", "name it"))
    if settings.get("wsrep_on") in ("ON", "1") and settings.get("wsrep_cluster_address", "gcomm://") != "gcomm://":
        todo = "let K3s write to one member only, through a proxy or an address that moves"
        found.append(Problem("datastore-settings", "it is a Galera cluster", "one writer", todo, "warning"))
    return found


def _rights(grants: list[str], endpoint: Endpoint, *, exists: bool) -> list[Problem]:
    have: set[str] = set()
    for grant in grants:
        match = re.match(r"GRANT (.+?) ON (\S+) TO ", grant)
        if not match:
            continue
        where = match[2].replace("`", "").replace("\\", "")
        if where in ("*.*", f"{endpoint.database}.*"):
            have |= {word.strip().upper() for word in match[1].split(",")}
    if "ALL PRIVILEGES" in have or "ALL" in have:
        return []
    if missing := [right for right in NEEDED if right not in have]:
        if not exists and "CREATE" in missing:
            found = f"there is no database {endpoint.database}, and user {endpoint.user} may not create it"
            return [Problem("datastore-rights", found, "the database", "create it, and grant the user all on it")]
        found = f"user {endpoint.user} lacks {', '.join(missing)} on {endpoint.database}"
        todo = f"GRANT {', '.join(NEEDED)} ON `{endpoint.database}`.* to it"
        return [Problem("datastore-rights", found, "the rights K3s uses", todo)]
    return []
