"""Ask a PostgreSQL what K3s needs to know of it.

Sources: kine `pkg/drivers/pgsql` (statements, and how TLS files become `verify-full`); docs.k3s.io
`datastore/datastore.md`; k3s#14505 (collation).
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pg8000.dbapi

from nornir_k3s.datastores.endpoint import Endpoint
from nornir_k3s.datastores.problem import Answers, Problem

_SETTINGS = """
SELECT current_setting('server_version'), current_setting('max_connections'), pg_is_in_recovery(),
  has_schema_privilege(current_user, 'public', 'CREATE'), has_schema_privilege(current_user, 'public', 'USAGE')
"""
_COLLATION = """
SELECT collation_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = 'kine' AND column_name = 'name'
"""
_BOOTSTRAP = "SELECT DISTINCT name FROM kine WHERE name LIKE '/bootstrap/%' AND deleted = 0"


def ask(endpoint: Endpoint, sock: socket.socket, address: str, context: ssl.SSLContext | None) -> Answers:
    """Log in as K3s will, and read.

    Raises:
        Problem: It does not let the user in, or the database is missing.
        ssl.SSLError: Its certificate is not trusted.
    """
    try:
        connection = pg8000.dbapi.connect(
            user=endpoint.user,
            password=endpoint.password.reveal(),
            database=endpoint.database,
            host=address,
            sock=sock,
            ssl_context=_context(endpoint, context),
            application_name="nornir-k3s",
        )
    except (pg8000.dbapi.DatabaseError, pg8000.dbapi.InterfaceError) as error:
        cause = error.__cause__ or error.__context__
        raise (cause if isinstance(cause, ssl.SSLError) else _refused(error, endpoint)) from None
    try:
        connection.autocommit = True
        return _read(connection)
    finally:
        connection.close()


def _context(endpoint: Endpoint, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    mode = endpoint.parameters.get("sslmode", "verify-full" if context else "prefer")
    if mode in ("disable", "allow", "prefer"):
        return None
    if context is None:
        context = ssl.create_default_context()
    if mode in ("require", "verify-ca"):
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _refused(error: Exception, endpoint: Endpoint) -> Problem:
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    code, words = str(details.get("C", "")), str(details.get("M", ""))
    if code == "28P01":
        found = f"the database refuses user {endpoint.user} or the password"
        return Problem("datastore-login", found, "a login", "check user and password")
    if code == "28000":
        found = "the database lets this user in neither from this server's address nor this way"
        return Problem("datastore-login", found, "a login", "add the servers' addresses to pg_hba.conf")
    if code == "3D000":
        found = f"there is no database {endpoint.database}"
        return Problem("datastore-rights", found, "the database", "create it, owned by the user")
    if "unsupported startup parameter" in words or code == "08P01":
        found = "a pooler (PgBouncer) answers in place of the database"
        todo = "name the database itself: K3s uses prepared statements"
        return Problem("datastore-settings", found, "PostgreSQL itself", todo)
    reason = words or str(error).splitlines()[0][:100]
    if "SSL" in reason:
        return Problem("datastore-tls", "the database does not speak TLS", "TLS", "turn it on in postgresql.conf")
    return Problem("datastore", f"the database breaks the login off ({code or reason})", "a login", "see its own log")


def _read(connection: Any) -> Answers:  # noqa: ANN401 - its types are of no use here
    def query(text: str) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()]

    version, connections, replica, create, usage = query(_SETTINGS)[0]
    answers = Answers(version=str(version), connections=int(connections))
    if replica:
        problem = Problem("datastore-settings", "the database is a read-only replica", "the primary", "name it")
        answers.problems.append(problem)
    collation = query(_COLLATION)
    if not collation and not (create and usage):
        todo = "GRANT USAGE, CREATE ON SCHEMA public to it, or make it the database's owner"
        found = "the user may not create tables in schema public"
        answers.problems.append(Problem("datastore-rights", found, "USAGE and CREATE", todo))
    if collation:
        if collation[0][0] not in ("C", "POSIX"):
            found = f"kine.name has the collation {collation[0][0] or 'of the database'}"
            todo = 'ALTER TABLE kine ALTER COLUMN name TYPE text COLLATE "C": newer K3s gets empty lists otherwise'
            answers.problems.append(Problem("datastore-settings", found, "C", todo, "warning"))
        answers.bootstrap = [str(row[0]) for row in query(_BOOTSTRAP)]
    answers.measure(lambda: query("SELECT 1"))
    return answers
