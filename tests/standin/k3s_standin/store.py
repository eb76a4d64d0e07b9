"""What the rest needs of a datastore: a small key-value interface with revisions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s_standin.endpoint import Endpoint
from k3s_standin.log import log

Item = dict[str, Any]


class StoreError(Exception):
    """The datastore does not answer."""


class Expired(Exception):
    """A watch from a revision that is not known any more."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {revision} ({oldest})")


@dataclass(frozen=True)
class Entry:
    """A key's value and the revision of its last change."""

    value: bytes
    revision: int

    def json(self) -> Item:
        """Return an object with the revision in it, as the API shows it."""
        item: Item = json.loads(self.value)
        item.setdefault("metadata", {})["resourceVersion"] = str(self.revision)
        return item


Change = tuple[str, str, Entry]  # ADDED, MODIFIED or DELETED; the key; what it is, or was


class Store(ABC):
    """A datastore."""

    @abstractmethod
    def get(self, key: str) -> Entry | None:
        """Return a key's entry."""

    @abstractmethod
    def list(self, prefix: str) -> list[tuple[str, Entry]]:
        """Return all entries below a prefix, by name."""

    @abstractmethod
    def create(self, key: str, value: bytes) -> bool:
        """Add a key; False when it is there already."""

    @abstractmethod
    def swap(self, key: str, value: bytes, revision: int) -> bool:
        """Replace a value if the key is still at this revision."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove a key; False when there is none."""

    @abstractmethod
    def probe(self) -> None:
        """Ask for something, quickly; StoreError when the datastore is away."""

    @abstractmethod
    def revision(self) -> int:
        """Return the number of the newest change."""

    def feed(self, prefix: str, revision: int) -> Feed:
        """Return the changes below a prefix after a revision; from 0 on, all that is there comes first."""
        return Compared(self, prefix, revision)

    def compact(self) -> None:  # noqa: B027 - only kine's table grows
        """Forget old revisions."""

    def put(self, key: str, value: bytes) -> None:
        """Set a key, whatever it was."""
        for _ in range(20):
            entry = self.get(key)
            if self.swap(key, value, entry.revision) if entry else self.create(key, value):
                return
        raise StoreError(f"too many writers of {key}")

    def update(self, key: str, change: Callable[[Item], Item]) -> Item | None:
        """Change an object, again when another was faster; None when there is none."""
        for _ in range(20):
            entry = self.get(key)
            if entry is None:
                return None
            item = change(entry.json())
            if self.swap(key, json.dumps(item).encode(), entry.revision):
                return item
        raise StoreError(f"too many writers of {key}")


class Feed(ABC):
    """The changes below a prefix, each once."""

    @abstractmethod
    def poll(self) -> list[Change]:
        """Return what is new since the last call, the oldest first."""


class Compared(Feed):
    """Found by comparing lists: a key that goes and comes between two calls is one change."""

    def __init__(self, store: Store, prefix: str, revision: int) -> None:
        self.store, self.prefix = store, prefix
        self.known = {key: entry for key, entry in store.list(prefix) if entry.revision <= revision}

    def poll(self) -> list[Change]:
        now = dict(self.store.list(self.prefix))
        changed = [
            ("MODIFIED" if key in self.known else "ADDED", key, entry)
            for key, entry in now.items()
            if key not in self.known or self.known[key].revision != entry.revision
        ]
        gone = [("DELETED", key, entry) for key, entry in self.known.items() if key not in now]
        self.known = now
        return sorted(changed, key=lambda one: one[2].revision) + gone


def open_store(endpoint: Endpoint, files: dict[str, str]) -> Store:
    """Open the datastore and make its table, with each driver's own way of failing."""
    if endpoint.kind == "etcd":
        from k3s_standin.datastore_etcd import open_etcd

        return open_etcd(endpoint, files)
    if endpoint.kind == "mysql":
        from k3s_standin.datastore_mysql import open_mysql

        store: Store = open_mysql(endpoint, files)
    else:
        from k3s_standin.datastore_postgres import open_postgres

        store = open_postgres(endpoint, files)
    log("info", "Database tables and indexes are up to date")
    log("info", "Kine available at unix://kine.sock")
    _first_rows(store)
    return store


def open_sqlite(path: Path) -> Store:
    """Open the embedded datastore that K3s falls back to without an endpoint."""
    from k3s_standin.datastore_sql import sqlite_store

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = sqlite_store(path)
    log("info", "Kine available at unix://kine.sock")
    _first_rows(store)
    return store


def _first_rows(store: Store) -> None:
    store.create("compact_rev_key", b"")
    store.create("/registry/health", b'{"health":"true"}')
