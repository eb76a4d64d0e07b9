"""Dialect: what differs between SQL databases where K3s' table is copied.

Sources: kine v0.16.4 `pkg/drivers/{sqlite,mysql,pgsql}` (columns, collations and indexes); the databases' manuals,
`START TRANSACTION` (what a snapshot is) and `RENAME TABLE` (at once, or not at all).
"""

from __future__ import annotations

from dataclasses import dataclass

DRAFT = "nornir_k3s_move"  # the table while it is filled: K3s does not know it


@dataclass(frozen=True)
class Dialect:
    """What differs between databases.

    Arguments:
        mark: The placeholder of a value.
        exists: SQL that returns a row if there is a table of this name, `{}`.
        create: SQL that makes the draft as kine makes its table.
        index: SQL that makes kine's indexes.
        publish: SQL that makes the draft K3s' table, in one transaction; `{newest}` is the highest id.
        replace: The same where K3s has a table already, which gets the name `{keep}`.
        belongings: SQL that returns statements: with 0, those before `replace`, with 1, those after it.
        snapshot: SQL that begins a transaction that reads what was there in this moment, whatever others write.
        count_on: SQL that lets ids go on with `{newest}` in K3s' table.
        ignores_case: Names that differ in their case only are the same.
    """

    mark: str
    exists: str
    create: str
    index: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    belongings: str = ""
    snapshot: tuple[str, ...] = ("BEGIN",)
    count_on: str = ""
    ignores_case: bool = False


_INDEXES = (
    f"CREATE INDEX kine_name_index ON {DRAFT} (name)",
    f"CREATE INDEX kine_name_id_index ON {DRAFT} (name, id)",
    f"CREATE INDEX kine_id_deleted_index ON {DRAFT} (id, deleted)",
    f"CREATE INDEX kine_prev_revision_index ON {DRAFT} (prev_revision)",
    f"CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON {DRAFT} (name, prev_revision)",
)
SQLITE = Dialect(
    mark="?",
    exists="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{}'",
    create=f"CREATE TABLE {DRAFT} (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, "
    "create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)",
    index=_INDEXES,
    publish=(f"ALTER TABLE {DRAFT} RENAME TO kine",),
)
MYSQL = Dialect(
    mark="%s",
    exists="SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{}'",
    create=f"CREATE TABLE {DRAFT} (id BIGINT UNSIGNED AUTO_INCREMENT, name VARCHAR(630) CHARACTER SET ascii, "
    "created INTEGER, deleted INTEGER, create_revision BIGINT UNSIGNED, prev_revision BIGINT UNSIGNED, lease INTEGER, "
    "value MEDIUMBLOB, old_value MEDIUMBLOB, PRIMARY KEY (id))",
    index=_INDEXES,  # InnoDB counts on from the highest id by itself
    publish=(f"RENAME TABLE {DRAFT} TO kine",),
    replace=(f"RENAME TABLE kine TO {{keep}}, {DRAFT} TO kine",),
    snapshot=(
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
    count_on="ALTER TABLE kine AUTO_INCREMENT = {newest}",  # at least one more than the highest id
    ignores_case=True,
)
# The names of indexes and sequences are unique in a schema, which may have K3s' table beside the draft.
_OWN = {f"kine_{name}": f"{DRAFT}_{name}" for name in (
    "name_index", "name_id_index", "id_deleted_index", "prev_revision_index", "name_prev_revision_uindex",
    "list_query_index", "pkey",
)}  # fmt: skip
_PUBLISH = (
    f"SELECT setval('{DRAFT}_id_seq', {{newest}})",
    f"ALTER SEQUENCE {DRAFT}_id_seq RENAME TO kine_id_seq",
    *(f"ALTER INDEX {draft} RENAME TO {name}" for name, draft in _OWN.items()),
    f"ALTER TABLE {DRAFT} RENAME TO kine",
)
_OF_KINE = "(SELECT {} FROM pg_class WHERE oid = 'kine'::regclass)"
POSTGRESQL = Dialect(
    mark="%s",
    exists="SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = '{}'",
    create=f'CREATE TABLE {DRAFT} (id BIGSERIAL CONSTRAINT {DRAFT}_pkey PRIMARY KEY, name text COLLATE "C", '
    "created INTEGER, deleted INTEGER, create_revision BIGINT, prev_revision BIGINT, lease INTEGER, "
    "value bytea, old_value bytea)",
    index=(
        *(one.replace("INDEX kine_", f"INDEX {DRAFT}_") for one in _INDEXES),
        f"CREATE INDEX {DRAFT}_list_query_index ON {DRAFT} (name, id DESC, deleted)",
    ),
    publish=_PUBLISH,
    replace=_PUBLISH,
    belongings=f"""
SELECT 0, 'ALTER ' || CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'INDEX ' END || quote_ident(relname)
    || ' RENAME TO ' || quote_ident(left(relname::text, 40) || substr('{{keep}}', 5))
  FROM pg_class WHERE relnamespace = {_OF_KINE.format("relnamespace")}
    AND (oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'kine'::regclass) OR (relkind = 'S'
      AND (relname = 'kine_id_seq' OR oid = pg_get_serial_sequence('kine', 'id')::regclass)))
UNION ALL SELECT 0, 'ALTER TABLE kine RENAME TO {{keep}}'
UNION ALL SELECT 1, 'ALTER TABLE kine OWNER TO ' || quote_ident(rolname) FROM pg_roles
  WHERE oid = {_OF_KINE.format("relowner")} AND rolname <> current_user
    AND has_schema_privilege(rolname, current_schema(), 'CREATE')
""",  # noqa: S608 - our own names
    snapshot=("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
    count_on="SELECT setval(COALESCE(pg_get_serial_sequence('kine', 'id'), 'kine_id_seq')::regclass, {newest}, false)",
)
