"""What a datastore of K3s holds, in any order: to compare two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# What kine notes of compaction, and for Kubernetes; etcd has `compact_rev_key` in another form.
COMPACTION = ("compact_rev_key", "compact_rev_key_apiserver")


class Live(NamedTuple):
    """A key that is not deleted: its newest value, and the seconds after which it ends; 0 for never."""

    name: str
    value: bytes
    seconds: int


@dataclass(frozen=True)
class Content:
    """What a table holds: the number of its rows, the highest id, and a hash over all of them."""

    rows: int = 0
    newest: int = 0
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.rows} rows up to id {self.newest}, SHA-256 {self.sha256[:12]}"


class LiveContent(Content):
    """What keys hold that do not end by themselves: names and values."""

    def __str__(self) -> str:
        return f"{self.rows} keys, SHA-256 {self.sha256[:12]}"


class Digest:
    """The content so far, of rows or keys in any order: the sum of their hashes."""

    def __init__(self) -> None:
        self._sum, self.rows, self.newest = 0, 0, 0

    def add(self, number: int, *values: object) -> None:
        """Add a row of this id."""
        one = hashlib.sha256()
        for value in values:
            data = b"" if value is None else value if isinstance(value, bytes) else str(value).encode()
            one.update(f"{'-' if value is None else len(data)} ".encode() + data)
        self._sum = (self._sum + int.from_bytes(one.digest(), "big")) % (1 << 256)
        self.rows, self.newest = self.rows + 1, max(self.newest, number)

    @property
    def sha256(self) -> str:
        """Return the hash, in hexadecimal."""
        return f"{self._sum:064x}"

    @property
    def content(self) -> Content:
        """Return it as that of a table."""
        return Content(self.rows, self.newest, self.sha256)


def lasting(keys: Iterator[Live]) -> Content:
    """Return what keys hold that do not end by themselves."""
    digest = Digest()
    for one in keys:
        if not one.seconds:
            digest.add(0, one.name, one.value)
    return LiveContent(digest.rows, digest.newest, digest.sha256)
