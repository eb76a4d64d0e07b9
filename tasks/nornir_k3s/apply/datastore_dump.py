"""A dump of a managed datastore on its own host, before a change that could damage it.

Sources: mariadb.com `mariadb-dump`; PostgreSQL `pg_dump`; etcd `op-guide/recovery.md`. K3s' data are useless without
the cluster's token, so its fingerprint is in the name (docs.k3s.io `datastore/backup-restore.md`).
"""

from __future__ import annotations

from nornir_k3s import shell
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.paths import DUMPS as FOLDER
from nornir_k3s.records import RecordError, integer, read

KEPT = 5


def script(
    recipe: Recipe, *, database: str, cluster: str, token_fingerprint: str, folder: str = FOLDER, kept: int = KEPT
) -> str:
    """Return shell lines that dump one database to a folder, mode 0600, and keep the newest dumps of the cluster there.

    They print `dump`, the file's path and its size in bytes. A dump with its final name is always complete. If there is
    not enough disk space, or the dump fails, the script fails and older dumps stay.

    Arguments:
        recipe: Of the kind of datastore.
        database: Its name.
        cluster: The cluster's name.
        token_fingerprint: Of the token that the data needs.
        folder: On the host.
        kept: How many stay.
    """
    words = (database, folder, cluster, token_fingerprint, recipe.suffix, kept, recipe.size, recipe.write)
    return shell.source("apply/datastore_dump.sh") + shell.call("dump", *words)


def parse(text: str) -> tuple[str, int]:
    """Return the dump's path and its size in bytes, from the script's output.

    Raises:
        RecordError: The output names no dump.
    """
    records = read(text).get("dump")
    if not records:
        raise RecordError("the script names no dump")
    path, size = records[-1].take(2)
    return path, integer(size)
