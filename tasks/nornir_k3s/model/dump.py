"""Recipe: how to dump a managed datastore."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How one kind of datastore is dumped: calls of functions of `apply/datastore_dump.sh`.

    Arguments:
        suffix: The file name's suffix.
        size: Shell that prints the size of the data in KiB, rather too large than too small.
        write: Shell that writes the dump to `$draft`, and fails if it is incomplete.
        replace: Shell that puts the dump `$file` in place of the content (`apply/restore.sh`), which is kept under a
            name with `$number` in it.
        verify: Shell that puts `$file` into a scratch database of the same kind, and compares it with the dump of that.
        restore: The command that brings a dump back, `FILE`, while K3s is stopped on all servers.
    """

    suffix: str
    size: str
    write: str
    restore: str
    replace: str
    verify: str
