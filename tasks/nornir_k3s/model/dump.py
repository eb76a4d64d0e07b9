"""How a managed datastore is dumped."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How one kind of datastore is dumped: calls of functions of `apply/datastore_dump.sh`.

    Arguments:
        suffix: Of the file.
        size: Prints how many KiB the data takes, more rather than less.
        write: Writes the dump to `$draft` and fails when it is not whole.
    """

    suffix: str
    size: str
    write: str
