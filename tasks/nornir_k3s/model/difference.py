"""Difference: one thing that does not match, and the table of everything that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

Severity = Literal["error", "warning", "note"]
Age = Literal["", "new", "stayed"]
CLUSTER = "cluster"  # stands for a host in what concerns no single one

# kind: what is compared. Documented in docs/drift.md (a test compares).
KINDS: Mapping[str, str] = {
    "package": "a package of the host is installed",
    "artifact": "K3s' binary, installer and images are the ones asked for, by SHA-256",
    "install": "the unit and the links that K3s' installer makes are there",
    "file": "a file has the content, mode and owner it must have; diffs mask secrets",
    "unit": "a unit is active, has not failed, and does not restart over and over",
    "enabled": "a unit is enabled",
    "stale": "a process is not older than the configuration, or the binary, that it should have read",
    "command": "a unit runs the command it was installed with",
    "settings": "no drop-in or environment file has settings that the inventory does not have",
    "database": "the managed datastore has its database, users and rights",
    "setting": "what a running server or agent says of itself is what the inventory asks for, on all alike",
    "node": "every server and agent is a node, Ready, schedulable, of its role, and of the version asked for",
    "stranger": "every node has a host in the inventory",
    "label": "a node has the labels it was given",
    "taint": "a node has the taints it was given, and no others",
    "backend": "each load balancer sees each server up",
    "vip": "exactly one load balancer has the VIP",
    "names": "the certificate behind the registration address has its names",
    "api": "a server lists the nodes, also through the registration address",
    "kubeconfig": "the kubeconfig that was handed over works from the controller",
    "certificate": "no certificate of K3s, or of someone else's datastore, ends soon",
    "latency": "the datastore answers fast",
    "connections": "the datastore has connections left",
    "table": "K3s' table is not too large",
    "compaction": "the datastore is compacted",
    "disk": "a host has room and inodes left",
    "check": "what the preflight looks at: see docs/preflight.md",
    "unread": "a host that answered could be judged as a whole",
}


class Difference(BaseModel):
    """One thing that does not match."""

    model_config = ConfigDict(frozen=True)

    host: str = Field(description="its name, or `cluster`")
    kind: str = Field(description="a key of the table in docs/drift.md")
    what: str = Field(description="the path, unit, node, setting, … in question")
    found: str
    expected: str
    todo: str = Field(description="what deploy.py would do, or what a person must do")
    by: Literal["deploy", "person"] = Field("person", description="who mends it")
    severity: Severity = "warning"
    since: datetime | None = Field(None, description="since when, where the host knows")
    diff: str = Field("", description="unified, from what is there to what must be; secrets are masked")
    age: Age = Field("", description="compared with the run before: new or stayed")
    accepted: str = Field("", description="why it is accepted in the inventory")
    until: date | None = Field(None, description="the acceptance's end; one that has passed counts again")

    @computed_field(description="HOST/KIND:WHAT; the same in every run")
    @property
    def id(self) -> str:
        """HOST/KIND:WHAT; the same in every run."""
        return f"{self.host}/{self.kind}:{self.what}"

    @property
    def counts(self) -> bool:
        """Whether it is drift: notes and accepted differences are not."""
        return self.severity != "note" and not self.accepted

    def __str__(self) -> str:
        return f"{self.host}: {self.found}; expected: {self.expected} -> {self.todo} [{self.id}]"
