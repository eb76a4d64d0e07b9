"""How a managed datastore is doing: connections, size and compaction of K3s' table; read-only.

Sources: kine `pkg/drivers/generic` (`compact_rev_key` keeps the revision up to which the table is compacted);
Kubernetes `apiserver/pkg/storage/etcd3/compact.go` (the same key in etcd: its value is that revision); MariaDB's,
MySQL's and PostgreSQL's manuals; etcd `op-guide/maintenance.md`.
"""

from __future__ import annotations

from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)

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

_MYSQL = """
sql -e "SELECT 'fact', 'connections', (SELECT COUNT(*) FROM information_schema.PROCESSLIST), @@max_connections"
sql DATABASE <<'SQL'
SELECT 'fact', 'table', t.* FROM (SIZE) t;
SELECT 'fact', 'revisions', r.* FROM (REVISIONS) r;
SQL
"""
_POSTGRESQL = """
if command -v psql >/dev/null 2>&1; then
ask <<'SQL'
SELECT 'fact', 'connections', (USED), current_setting('max_connections');
SQL
ask -d DATABASE <<'SQL'
SELECT 'fact', 'table', t.* FROM (SIZE) t;
SELECT 'fact', 'revisions', r.* FROM (REVISIONS) r(newest, compacted);
SQL
fi
"""
_ETCD = """
if command -v etcdctl >/dev/null 2>&1 && systemctl is-active -q etcd.service; then
say fact status "$(ctl endpoint status -w json)"
ctl alarm list | while read -r line; do say fact alarm "$line"; done
ctl get compact_rev_key -w fields | {
  newest= compacted=
  while read -r name _ value; do
    case $name in '"Revision"') newest=$value;; '"Value"') compacted=${value#?} compacted=${compacted%?};; esac
  done
  [ -z "$compacted" ] || say fact revisions "$newest" "$compacted"
}
fi
"""


def look(cluster: Cluster, member: Member) -> str:  # noqa: ARG001 - as every look
    """Return the lines that follow the datastore's own look, whose shell functions they use."""
    kind, database = cluster.managed.kind, cluster.managed.database
    if kind == "etcd":
        return _ETCD
    if kind == "postgresql":
        text = _POSTGRESQL.replace("SIZE", POSTGRESQL_SIZE).replace("USED", POSTGRESQL_USED)
    else:
        text = _MYSQL.replace("SIZE", MYSQL_SIZE.format(f"'{database}'"))
    return text.replace("REVISIONS", REVISIONS).replace("DATABASE", database)
