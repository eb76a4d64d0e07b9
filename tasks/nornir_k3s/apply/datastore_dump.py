"""A dump of a managed datastore on its own host, before something that could hurt it.

Sources: mariadb.com `mariadb-dump`; PostgreSQL `pg_dump`; etcd `op-guide/recovery.md`. K3s' data are useless without
the cluster's token, so its fingerprint is in the name (docs.k3s.io `datastore/backup-restore.md`).
"""

from __future__ import annotations

from nornir_k3s import shell
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.paths import STATE
from nornir_k3s.records import RecordError, integer, read

FOLDER = f"{STATE}/dumps"
KEPT = 5


def script(recipe: Recipe, *, database: str, cluster: str, token_fingerprint: str) -> str:
    """Return shell lines that dump one database below FOLDER, 0600, and keep the newest few dumps of the cluster.

    They print `dump`, the file's path and its size in bytes. A file of that name is always whole; without room for it,
    or when it fails, the script ends with an error and the older dumps stay.

    Arguments:
        recipe: Of the kind of datastore.
        database: Its name.
        cluster: The cluster's name.
        token_fingerprint: Of the token that the data needs.
    """
    words = (database, FOLDER, cluster, token_fingerprint, recipe.suffix, KEPT, recipe.size, recipe.write)
    return shell.source("apply/datastore_dump.sh") + shell.call("dump", *words)


def parse(text: str) -> tuple[str, int]:
    """Return the dump's path and its size in bytes, from what the script printed.

    Raises:
        RecordError: It names no dump.
    """
    records = read(text).get("dump")
    if not records:
        raise RecordError("the script names no dump")
    path, size = records[-1].take(2)
    return path, integer(size)
