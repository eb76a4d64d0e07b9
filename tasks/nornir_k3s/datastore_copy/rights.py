"""What K3s' user may do in its database, besides what K3s does: make a scratch database, rename its table.

Sources: dev.mysql.com and mariadb.com, `RENAME TABLE` (ALTER, DROP of the old name; CREATE, INSERT of the new one);
PostgreSQL `ALTER TABLE` (its owner, with CREATE on the schema), `CREATE DATABASE`.
"""

from __future__ import annotations

from nornir_k3s.datastore_copy.dialect import MYSQL
from nornir_k3s.datastore_copy.table import Table
from nornir_k3s.datastore_probe import mysql
from nornir_k3s.model.endpoint import Endpoint

SCRATCH = ("CREATE", "DROP", "INSERT", "SELECT", "INDEX")
ASIDE = (*SCRATCH, "ALTER")
IN_PLACE = ("SELECT", "INSERT", "DELETE", "ALTER")
IN_NEW = (*IN_PLACE, "CREATE", "INDEX")
_SCHEMA = "SELECT has_schema_privilege(current_schema(), 'CREATE'), current_schema()"
_OWNED = "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('kine')"
_CREATES = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"


def for_database(table: Table, endpoint: Endpoint) -> list[str]:
    """Return what the user lacks to make and drop this database.

    Arguments:
        table: Where the user is logged in.
        endpoint: With the name of the database.
    """
    if table.dialect is MYSQL:
        return _lacks(table, endpoint, SCRATCH)
    return [] if table.query(_CREATES)[0][0] else ["CREATEDB"]


def for_table(table: Table, endpoint: Endpoint) -> list[str]:
    """Return what the user lacks to make and drop a table in K3s' database."""
    return _lacks(table, endpoint, SCRATCH) if table.dialect is MYSQL else _schema(table)


def for_renaming(table: Table, endpoint: Endpoint) -> list[str]:
    """Return what the user lacks to put another table in the place of K3s', which gets another name."""
    if table.dialect is MYSQL:
        return _lacks(table, endpoint, ASIDE)
    own = table.query(_OWNED)
    return [*_schema(table), *(["the ownership of table kine"] if own and not own[0][0] else [])]


def for_rows(table: Table, endpoint: Endpoint) -> list[str]:
    """Return what the user lacks to put other rows into K3s' table, which MySQL and MariaDB can without more rights.

    PostgreSQL needs those for renaming.
    """
    if table.dialect is MYSQL:
        return _lacks(table, endpoint, IN_PLACE if table.exists() else IN_NEW)
    return for_renaming(table, endpoint)


def said(endpoint: Endpoint, lacks: list[str]) -> str:
    """Return it as a sentence."""
    where = f" on {endpoint.database}" if endpoint.kind == "mysql" else ""
    return f"user {endpoint.user} lacks {', '.join(lacks)}{where}"


def _lacks(table: Table, endpoint: Endpoint, wanted: tuple[str, ...]) -> list[str]:
    held = mysql.rights(table.query, endpoint)
    return [right for right in wanted if right not in held]


def _schema(table: Table) -> list[str]:
    ((granted, name),) = table.query(_SCHEMA)
    return [] if granted else [f"CREATE on schema {name or 'public'}"]
