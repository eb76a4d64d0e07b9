"""The content and the health of a managed datastore; read-only.

Sources: kine `pkg/drivers/generic` (`compact_rev_key` has the revision up to which the table is compacted);
Kubernetes `apiserver/pkg/storage/etcd3/compact.go` (the same key in etcd: its value is that revision); MariaDB's,
MySQL's and PostgreSQL's manuals; etcd `op-guide/maintenance.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s import shell
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import datastore_facts
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import UNFINISHED
from nornir_k3s.records import Record, RecordError, decoded, integer
from nornir_k3s.roles import datastore, datastore_etcd
from nornir_k3s.roles.datastore_mysql import MARIADB, MYSQL, MySQL
from nornir_k3s.roles.datastore_postgresql import marks, verifier

# Revisions since the last compaction, by the id of the newest row: no row is counted.
REVISIONS = """
SELECT COALESCE(MAX(id), 0), COALESCE((SELECT MAX(prev_revision) FROM kine WHERE name = 'compact_rev_key'), 0) FROM kine
"""
MYSQL_SIZE = """
SELECT COALESCE(SUM(table_rows), 0), COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables
WHERE table_schema = {} AND table_name = 'kine'
"""
POSTGRESQL_SIZE = """
SELECT GREATEST(reltuples, 0)::bigint, pg_total_relation_size(oid) FROM pg_class WHERE oid = to_regclass('kine')
"""
POSTGRESQL_USED = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
# kine never changes a row: the newest of a name counts, and if that is a deletion the name has none. Older rows keep
# `deleted = 0` until they are compacted (kine: pkg/drivers/generic, listSQL).
BOOTSTRAP = """
SELECT kine.name, COALESCE(LENGTH(kine.value), 0) FROM {table} AS kine
  JOIN (SELECT MAX(id) AS id FROM {table} WHERE name LIKE '/bootstrap/%' GROUP BY name) AS newest ON kine.id = newest.id
  WHERE kine.deleted = 0
"""
# What a restore has kept beside K3s' table, and of which table or database: 8 hex digits are the restore's number.
NUMBER = "[0-9a-f]{8}"
MYSQL_ASIDE = f"""
SELECT TABLE_NAME, 'table' FROM information_schema.TABLES
  WHERE TABLE_SCHEMA = {{}} AND TABLE_NAME REGEXP '^kine_before_{NUMBER.replace("{", "{{").replace("}", "}}")}$'
"""  # noqa: S608 - constants
POSTGRESQL_ASIDE = f"""
SELECT tablename, 'table' FROM pg_tables
  WHERE schemaname = current_schema() AND tablename ~ '^kine_before_{NUMBER}$'
"""  # noqa: S608 - constants
_BOOTSTRAP = f"""
SELECT '@database', 'bootstrap', b.* FROM ({BOOTSTRAP.format(table="kine")}) b;
SELECT '@database', 'revision', COALESCE(MAX(id), 0), '' FROM kine;
"""  # noqa: S608 - constants
_HEALTH = f"""
SELECT '@datastore_health', 'table', t.* FROM ({{}}) t;
SELECT '@datastore_health', 'revisions', r.* FROM ({REVISIONS}) r;
"""  # noqa: S608 - constants


# Of a server that others use, too, whose settings are not ours.
_SHARED = ("auto_increment_increment", "innodb_snapshot_isolation", "max_connections", "read_only", "wsrep_on")
_POSTGRESQL_SHARED = """
SELECT '@database', 'setting', name, setting FROM pg_settings
  WHERE name IN ('max_connections', 'transaction_read_only');
"""


class Database(Fact[datastore_facts.Database]):
    """Databases, users, rights and bootstrap rows of this cluster; members of an etcd. Its rows are records."""

    name, source = "database", "database"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask the hosts of a managed datastore."""
        if "datastore" not in query.member.roles:
            return
        yield _call("fact_database", query)
        managed = query.cluster.managed
        if managed.shared and managed.kind == "postgresql":
            yield shell.call("shared_postgresql", _POSTGRESQL_SHARED, *marks(query.cluster))
        elif managed.shared:
            yield shell.call("shared_mysql", (MARIADB if managed.kind == "mariadb" else MYSQL).client, *_SHARED)

    def parse(self, records: Sequence[Record]) -> datastore_facts.Database:
        """Return the content."""
        found: dict[str, dict[str, str]] = {}
        for record in records:
            kind, subject, value = record.take(3)
            found.setdefault(kind, {})[subject] = value
        return datastore_facts.Database(
            alive="alive" in found,
            databases=frozenset(found.get("database", ())),
            users={name: value == "1" for name, value in found.get("user", {}).items()},
            grants=frozenset(found.get("grant", ())),
            bootstrap={key: integer(size) for key, size in found.get("bootstrap", {}).items() if key != UNFINISHED},
            members=frozenset(found.get("member", ())),
            has_data="yes" in found["data"] if "data" in found else None,
            revision=max(map(integer, found.get("revision", ())), default=0),
            hba="".join(f"{line}\n" for line in decoded(next(iter(found.get("hba", ())), "")).splitlines()),
            settings=found.get("setting", {}),
            unfinished=UNFINISHED in found.get("bootstrap", ()),
            aside=found.get("aside", {}),
        )


class DatastoreHealth(Fact[datastore_facts.DatastoreHealth]):
    """Connections, size in rows and bytes, revisions; of an etcd its size in bytes and its alarms."""

    name, source, when = "datastore_health", "database", "drift"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask the hosts of a managed datastore."""
        return [_call("fact_datastore_health", query)] if "datastore" in query.member.roles else []

    def parse(self, records: Sequence[Record]) -> datastore_facts.DatastoreHealth:
        """Return the health; values that the datastore does not report stay unknown."""
        pairs: dict[str, tuple[str, str]] = {}
        alarms = []
        for record in records:
            kind, first, second = record.take(3)
            if kind == "alarm":
                alarms.append(first)
            pairs[kind] = first, second
        return datastore_facts.DatastoreHealth(
            connections=_numbers(pairs.get("connections")),
            table=_numbers(pairs.get("table")),
            revisions=_numbers(pairs.get("revisions")),
            etcd_size=etcd_size(decoded(pairs["status"][0])) if "status" in pairs else None,
            alarms=tuple(alarms),
        )


class Latency(Fact[Mapping[str, float]]):
    """The round trip in milliseconds of K3s' connections to each address of a managed datastore (ss(8))."""

    name, source, when = "latency", "database", "drift"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask servers; ss wants an IPv6 address in brackets."""
        if query.member.role != "servers" or not query.cluster.is_managed:
            return []
        port = datastore.kind(query.cluster).ports[0]
        addresses = (host.address for host in query.cluster.of("datastore"))
        return [shell.call("fact_latency", f"[{one}]" if ":" in one else one, port) for one in addresses]

    def parse(self, records: Sequence[Record]) -> Mapping[str, float]:
        """Return the milliseconds by address."""
        found = {}
        for record in records:
            address, milliseconds = record.take(2)
            try:
                found[address] = float(milliseconds)
            except ValueError:
                raise RecordError(f"{milliseconds[:40]!r} is not a number of milliseconds") from None
        return found


def _numbers(pair: tuple[str, str] | None) -> tuple[int, int] | None:
    """Return both numbers; None if the database reports NULL or nothing."""
    if pair is None or not all(word.replace(".", "", 1).isdigit() for word in pair):
        return None
    return int(float(pair[0])), int(float(pair[1]))


def etcd_size(status: str) -> tuple[int, int] | None:
    """Return the bytes of an etcd's data and those in use, from `endpoint status` as JSON."""
    try:
        found = json.loads(status)[0]["Status"]
        return int(found.get("dbSize", 0)), int(found.get("dbSizeInUse", 0))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _call(function: str, query: Query) -> str:
    cluster, kind = query.cluster, query.cluster.managed.kind
    health = function == "fact_datastore_health"
    if kind == "etcd":
        url = datastore_etcd.url(query.member, datastore_etcd.PORT)
        words = (url, datastore_etcd.FOLDER, *(() if health else (datastore_etcd.data_folder(cluster),)))
        return shell.call(f"{function}_etcd", *words)
    database = cluster.managed.database
    if kind == "postgresql":
        sql = _postgresql_health() if health else _postgresql_inside(cluster)
        return shell.call(f"{function}_postgresql", database, *sql)
    mysql = MARIADB if kind == "mariadb" else MYSQL
    sql = _mysql_health(database) if health else _mysql_inside(cluster, mysql)
    return shell.call(f"{function}_mysql", mysql.client, database, *sql)


def _mysql_inside(cluster: Cluster, mysql: MySQL) -> tuple[str, str]:
    database, user = cluster.managed.database, cluster.managed.user
    right = f"ssl_type = '{'ANY' if cluster.keys else ''}'"
    right += f" AND authentication_string = '{mysql.stored(cluster.datastore_password)}'"
    accounts = f"""
SELECT '@database', 'database', SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{database}';
SELECT '@database', 'user', CONCAT(User, '@', Host), {right} FROM mysql.user WHERE User LIKE '{user}\\_%';
SELECT '@database', 'grant', CONCAT(User, '@', Host), Db FROM mysql.db
  WHERE Db = '{database}' AND Create_priv = 'Y' AND Alter_priv = 'Y' AND Index_priv = 'Y';
SELECT '@database', 'aside', SCHEMA_NAME, 'database' FROM information_schema.SCHEMATA
  WHERE SCHEMA_NAME REGEXP '^{database}_old_{NUMBER}$';
SELECT '@database', 'aside', t.* FROM ({MYSQL_ASIDE.format(f"'{database}'")}) t;
"""  # noqa: S608 - names are checked by the schema, a hash has no quotes
    return accounts, _BOOTSTRAP


def _mysql_health(database: str) -> tuple[str, str]:
    used = "(SELECT COUNT(*) FROM information_schema.PROCESSLIST)"
    server = f"SELECT '@datastore_health', 'connections', {used}, @@max_connections;"
    return server, _HEALTH.format(MYSQL_SIZE.format(f"'{database}'"))


def _postgresql_inside(cluster: Cluster) -> tuple[str, str]:
    database, user = cluster.managed.database, cluster.managed.user
    right = f"(rolpassword = '{verifier(cluster.datastore_password)}' AND rolcanlogin)::int"
    accounts = f"""
SELECT '@database', 'database', datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{database}';
SELECT '@database', 'user', rolname, {right} FROM pg_authid WHERE rolname LIKE '{user}\\_%';
SELECT '@database', 'grant', m.rolname, g.rolname FROM pg_auth_members
  JOIN pg_roles m ON m.oid = member JOIN pg_roles g ON g.oid = roleid WHERE g.rolname = '{user}';
SELECT '@database', 'aside', datname, 'database' FROM pg_database WHERE datname ~ '^{database}_old_{NUMBER}$';
"""  # noqa: S608 - names are checked by the schema, the verifier has no quotes
    return accounts, f"SELECT '@database', 'aside', t.* FROM ({POSTGRESQL_ASIDE}) t;{_BOOTSTRAP}"  # noqa: S608 - constants


def _postgresql_health() -> tuple[str, str]:
    used = f"({POSTGRESQL_USED}), current_setting('max_connections')"
    return f"SELECT '@datastore_health', 'connections', {used};", _HEALTH.format(POSTGRESQL_SIZE)
