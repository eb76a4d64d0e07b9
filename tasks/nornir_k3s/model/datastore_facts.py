"""Facts about a datastore: content and health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BOOTSTRAP = "/bootstrap/"  # before the hash of a token: K3s' own keys of a cluster
UNFINISHED = f"{BOOTSTRAP}nornir-k3s-move"  # in an etcd while a move copies to it


@dataclass(frozen=True)
class Database:
    """The content of a datastore.

    Arguments:
        alive: Whether it answers.
        versions: Product and version of each address.
        databases: The cluster's database, if it exists.
        users: Users of this cluster, and whether password and login are correct.
        grants: Users that have all their rights.
        bootstrap: Keys of K3s' bootstrap rows, and the sizes of their values in bytes.
        members: Members of an etcd.
        has_data: Whether a member of an etcd has its data; None if unknown.
        revision: The newest one; 0 if unknown.
        hba: This cluster's part of the pg_hba.conf of a PostgreSQL that others use, too.
        settings: Those of a server that others use, too, as far as they matter to K3s.
        unfinished: A move has begun to copy to it.
        aside: What restores have kept of what was there before, by name: a database, table or folder.
    """

    alive: bool = False
    versions: tuple[tuple[str, str], ...] = ()
    databases: frozenset[str] = frozenset()
    users: Mapping[str, bool] = field(default_factory=dict)
    grants: frozenset[str] = frozenset()
    bootstrap: Mapping[str, int] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    has_data: bool | None = None
    revision: int = 0
    hba: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    unfinished: bool = False
    aside: Mapping[str, str] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The newest revision of the cluster's data; 0 where there are none, as in an etcd that was just made."""
        return self.revision if self.bootstrap else 0


class Stored(NamedTuple):
    """Data of a database on the host of a managed datastore.

    Arguments:
        product: mariadb, mysql or postgresql.
        version: That wrote them; empty if unknown.
        folder: Of the data; of PostgreSQL, that of the cluster's configuration.
        ours: `yes` if they are this cluster's: with K3s' table, of PostgreSQL with this tool's configuration.
        served: `yes` if the installed server uses them.
    """

    product: str
    version: str
    folder: str
    ours: str
    served: str


@dataclass(frozen=True)
class DatastoreHealth:
    """The health of a datastore; None or empty if unknown.

    Arguments:
        connections: Used, and the maximum.
        table: The approximate number of rows of K3s' table, and its size in bytes.
        revisions: The newest one, and the one up to which the data are compacted.
        etcd_size: The size of an etcd's data in bytes, and the part of it in use.
        alarms: Of an etcd.
    """

    connections: tuple[int, int] | None = None
    table: tuple[int, int] | None = None
    revisions: tuple[int, int] | None = None
    etcd_size: tuple[int, int] | None = None
    alarms: tuple[str, ...] = ()
