"""A backup: its options, the manifest in its file, and the report of a run that makes one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from nornir_k3s.model.report import ErrorReport
from nornir_k3s.model.value_types import Command, LocalPath, Strict

FORMAT = 1  # of the file, and of the report
KEPT = 14
ROWS = "datastore.sqlite.gz"  # the part that has the rows of K3s' table, where K3s' own login has dumped it


class BackupOptions(Strict):
    """Where backups go, and who can read them."""

    folder: LocalPath | None = Field(None, description="default: backups in the cluster's folder below state")
    command: Command | None = Field(
        None, description="gets the file on its standard input, instead of the folder: words, or a text"
    )
    keep: int = Field(KEPT, ge=1, le=100_000, description="newest backups that stay in the folder")
    certificate: LocalPath | None = Field(
        None, description="encrypt for the key of this certificate, PEM with RSA or EC, with openssl"
    )

    verify: bool = Field(False, description="restore the dump into a scratch database of the same server, and compare")

    def below(self, base: Path) -> BackupOptions:
        """Return the options with absolute paths."""
        names = ("folder", "certificate")
        return self.model_copy(update={key: base / path.expanduser() for key in names if (path := getattr(self, key))})


class Part(BaseModel):
    """One part of a backup's file."""

    name: str
    bytes: int
    sha256: str


class Node(BaseModel):
    """A server or agent when the backup was made."""

    name: str = Field(description="its node's name")
    role: Literal["servers", "agents"]
    address: str


class Manifest(BaseModel):
    """What a backup's file has in it; without secrets."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    ca: str = Field("", description="`K10` and the hash of the cluster's CA; empty if no server could be read")
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    k3s_version: str = Field(description="the newest one that a node ran")
    datastore: str = Field(
        description="the kind that the dump is of: mariadb, mysql, postgresql or etcd; an external MariaDB is a mysql"
    )
    database: str = ""
    revision: int = Field(0, description="newest revision of the datastore before the dump; 0 if unknown")
    token: str = Field(description="first 12 hex digits of the token's SHA-256, as in the datastore's own key")
    nodes: list[Node] = Field(default_factory=list)
    parts: list[Part] = Field(default_factory=list)

    def part(self, name: str) -> Part | None:
        """Return a part by its name."""
        return next((one for one in self.parts if one.name == name), None)


class LastBackups(BaseModel):
    """When the last backup was made from this machine, and the last one that was verified."""

    made: datetime | None = None
    verified: datetime | None = Field(None, description="restored into a scratch database, and compared")
    place: str = Field("", description="of the last one")
    unverified: str = Field("", description="why the last one was not verified, where that was wanted")

    def __str__(self) -> str:
        """Return their ages as a sentence; empty where there is none."""
        if self.made is None:
            return ""
        verified = f"the last verified one is {_age(self.verified)}" if self.verified else "none was verified"
        why = f"; the last one could not be: {self.unverified}" if self.unverified else ""
        return f"the last backup is {_age(self.made)} ({self.place}), {verified}{why}"


def _age(moment: datetime) -> str:
    hours = (datetime.now(UTC) - moment).total_seconds() / 3600
    for unit, size in (("day", 24), ("hour", 1)):
        if hours >= 2 * size or (unit == "hour" and hours >= 1):
            count = int(hours // size)
            return f"{count} {unit}{'s' * (count != 1)} old"
    return "less than an hour old"


class Backup(BaseModel):
    """The report of a run that makes a backup, or the plan of one."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    planned: bool = Field(False, description="nothing was done")
    outcome: Literal["running", "ok", "failed", "interrupted"] = "running"
    place: str = Field("", description="the file, or what the command printed last")
    encrypted: bool = False
    verified: bool = Field(False, description="the dump was restored into a scratch database, and compared")
    unverified: str = Field("", description="why it was not verified, where that was wanted")
    bytes: int = 0
    sha256: str = Field("", description="of the file")
    manifest: Manifest | None = None
    removed: list[str] = Field(default_factory=list, description="older backups that were removed from the folder")
    steps: list[str] = Field(default_factory=list, description="what is done, or would be")
    notes: list[str] = Field(default_factory=list, description="what else an operator should know")
    error: ErrorReport | None = None
