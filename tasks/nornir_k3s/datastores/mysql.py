"""MariaDB (and MySQL): endpoint, managed set-up, and a look inside.

Sources: docs.k3s.io `datastore/datastore.md`; kine `pkg/drivers/mysql`; go-sql-driver/mysql's DSN grammar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nornir_k3s.secret import Secret
from nornir_k3s.spec import HEADER, File, HostSpec, Unit

PORT = 3306
UNIT = "mariadb.service"
CONFIG = "/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf"
# Peak of one server's pool, which K3s does not bound by itself, and what people and backups need.
CONNECTIONS_PER_SERVER = 100
CONNECTIONS_RESERVE = 50


def endpoint(*, user: str, password: Secret, address: str, port: int, database: str) -> Secret:
    """Return the endpoint as K3s takes it: the password raw, never percent-encoded, and tcp() around the address."""
    host = f"[{address}]" if ":" in address else address
    return Secret(f"mysql://{user}:{password.reveal()}@tcp({host}:{port})/{database}")


def managed_spec(*, address: str, servers: int) -> HostSpec:
    """Return what a host with a MariaDB for one cluster must look like."""
    text = HEADER + "\n".join(
        [
            "[mysqld]",
            f"bind-address = {address}",
            f"port = {PORT}",
            f"max_connections = {servers * CONNECTIONS_PER_SERVER + CONNECTIONS_RESERVE}",
            "auto_increment_increment = 1",
            "# K3s' compaction fails with error 1020 where this is on (the default from 11.6.2).",
            "loose_innodb_snapshot_isolation = OFF",
            "skip_name_resolve = ON",
            "",
        ]
    )
    return HostSpec(
        packages=("mariadb-server",),
        files=(File(CONFIG, Secret(text), 0o644, unit=UNIT),),
        units=(Unit(UNIT),),
    )


def password_hash(password: Secret) -> str:
    """Return mysql_native_password's hash: it says whether a password is the wanted one without showing it."""
    inner = hashlib.sha1(password.reveal().encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def look(*, database: str, user: str, password: Secret) -> str:
    """Return shell lines that print `db` records: database, users (1: with this password), rights, bootstrap rows."""
    return f"""
sql() {{ mariadb -N -B -r "$@" 2>/dev/null; }}
if command -v mariadb >/dev/null 2>&1 && sql -e 'SELECT 1' >/dev/null; then
sql <<'SQL'
SELECT 'db', 'database', SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{database}';
SELECT 'db', 'user', Host, authentication_string = '{password_hash(password)}' FROM mysql.user WHERE User = '{user}';
SELECT 'db', 'grant', Host, Db FROM mysql.db
  WHERE User = '{user}' AND Db = '{database}' AND Create_priv = 'Y' AND Alter_priv = 'Y' AND Index_priv = 'Y';
SQL
sql {database} <<'SQL'
SELECT 'db', 'bootstrap', name, COALESCE(MAX(LENGTH(value)), 0) FROM kine
  WHERE name LIKE '/bootstrap/%' AND deleted = 0 GROUP BY name;
SQL
fi
"""  # noqa: S608 - names are checked by the schema, the hash is hexadecimal


def prepare(*, database: str, user: str, password: Secret, hosts: Sequence[str]) -> Secret:
    """Return SQL that makes the database and lets the user in from these addresses only; it may run again."""
    lines = [f"CREATE DATABASE IF NOT EXISTS `{database}`;"]
    for host in hosts:
        account = f"'{user}'@'{host}'"
        lines.append(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY PASSWORD '{password_hash(password)}';")
        lines.append(f"ALTER USER {account} IDENTIFIED BY PASSWORD '{password_hash(password)}';")
        lines.append(
            f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON `{database}`.* TO {account};"
        )
    return Secret("\n".join(lines) + "\n")
