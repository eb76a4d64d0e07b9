"""The databases whose data lie on a datastore's host, whatever runs there."""

from __future__ import annotations

from collections.abc import Iterable

from nornir_k3s.facts.fact import Query, Rows
from nornir_k3s.model.datastore_facts import Stored


class StoredData(Rows[Stored]):
    """Data of MariaDB, MySQL or PostgreSQL on the host of a managed datastore.

    Sources: MariaDB's and MySQL's manuals (`mysql_upgrade_info`, `mariadb_upgrade_info`, `mysql_upgrade_history`); the
    scripts of Debian's packages (`debian-10.11.flag`; data that they cannot read are renamed to `mysql-VERSION`);
    MySQL `storage/innobase/include/fil0types.h` (`FIL_PAGE_SRV_VERSION`, which each upgrade writes anew);
    pg_createcluster(1); PostgreSQL's manual, "Database File Layout" (`PG_VERSION`).
    """

    name, source, roles, row = "stored", "stored", ("datastore",), Stored

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Name the kind of datastore and its database."""
        managed = query.cluster.managed
        return None if managed.kind == "etcd" else (managed.kind, managed.database)
