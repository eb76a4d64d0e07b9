"""Dump: shell lines that write what is in a managed datastore to its own host, before something that could hurt it.

Sources: mariadb.com `mariadb-dump`; PostgreSQL `pg_dump`; etcd `op-guide/recovery.md`. K3s' data are useless without
the cluster's token, so its fingerprint is in the name (docs.k3s.io `datastore/backup-restore.md`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nornir_k3s.model.paths import (
    STATE,
)

FOLDER = f"{STATE}/dumps"
KEPT = 5


@dataclass(frozen=True)
class Recipe:
    """How one kind of datastore is dumped; `$database` is the database's name.

    Arguments:
        suffix: Of the file.
        size: Prints how many KiB the data takes, more rather than less.
        write: Writes the dump to `$draft` and fails when it is not whole.
    """

    suffix: str
    size: str
    write: str


_SCRIPT = r"""
database=DATABASE folder=FOLDER name=CLUSTER-$(date -u +%Y%m%dT%H%M%SZ)-FINGERPRINT.SUFFIX
mkdir -p -m 700 "$folder"
rm -f "$folder"/.draft*
draft="$folder/.draft"
need=$(SIZE)
need=$((need + need / 10 + 1024))
free=$(df -Pk "$folder" | { read -r _; read -r _ _ _ free _; echo "$free"; })
if [ "$need" -gt "$free" ]; then
  echo "a dump of the datastore needs up to $need KiB in $folder, there are $free: make room" >&2; exit 1
fi
umask 077
WRITE
sync "$draft" 2>/dev/null || :
mv -fT "$draft" "$folder/$name"
say dump "$folder/$name" "$(stat -c %s "$folder/$name")"
for f in "$folder"/CLUSTER-MOMENT-*.SUFFIX; do printf '%s\n' "$f"; done | sort -r | tail -n +MORE |
  while IFS= read -r f; do rm -f "$f"; done
"""


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
    words = {
        "DATABASE": shlex.quote(database),
        "FOLDER": FOLDER,
        "CLUSTER": cluster,
        "FINGERPRINT": token_fingerprint,
        "SUFFIX": recipe.suffix,
        "MOMENT": "[0-9]" * 8 + "T" + "[0-9]" * 6 + "Z",
        "MORE": str(KEPT + 1),
        "SIZE": recipe.size,
        "WRITE": recipe.write,
    }
    text = _SCRIPT
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def parse(text: str) -> tuple[str, int]:
    """Return the dump's path and its size in bytes, from what the script printed."""
    for line in text.splitlines():
        match line.split("\t"):
            case ["dump", path, size]:
                return path, int(size)
    raise ValueError("the script named no dump")
