"""The result of a drift check, as `drift` returns it and `--json` writes it; documented in docs/drift.md."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field, computed_field

from nornir_k3s.model.backup import LastBackups
from nornir_k3s.model.finding import Finding

FORMAT = 2
DRIFT, UNREACHABLE = 3, 4


class CertificateExpiry(BaseModel):
    """When the first certificate of a file expires."""

    host: str = Field(description="its name, or `cluster`: an external datastore's")
    path: str
    ends: datetime
    authority: bool = Field(description="whether it is the certificate of a CA")

    @property
    def days(self) -> int:
        """Days until it expires; negative if it has."""
        return (self.ends - datetime.now(UTC)).days


class HostState(BaseModel):
    """One host of the report."""

    role: str = Field(description="datastore, servers, agents or lb; of a host with several, that of its K3s")
    roles: list[str] = Field(default_factory=list, description="all its roles")
    address: str
    node: str = Field("", description="its name as a Kubernetes node")
    reached: bool = Field(False, description="whether it could be read")
    error: str = Field("", description="why not")
    round_trips: int = Field(0, description="commands sent one after the other, connecting not counted")
    ready: bool | None = Field(None, description="of servers and agents: whether its node is Ready")


class DriftReport(BaseModel):
    """All differences of a cluster, and the state of its hosts."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str = Field("", description="K3s version the inventory asks for")
    url: str = Field("", description="the fixed registration address")
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    hosts: dict[str, HostState] = Field(default_factory=dict)
    differences: list[Finding] = Field(default_factory=list, description="the most severe first")
    gone: list[Finding] = Field(default_factory=list, description="findings of the run before that are gone")
    lost: list[str] = Field(
        default_factory=list,
        description="hosts that cannot be read, but could in the run before, or could not for another reason",
    )
    previous: datetime | None = Field(None, description="when the run before was")
    certificates: list[CertificateExpiry] = Field(
        default_factory=list, description="of K3s and of an external datastore, the first to expire first"
    )
    holders: list[str] = Field(default_factory=list, description="load balancers that have the VIP")
    backends: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="by load balancer: the state of each server in HAProxy"
    )
    datastore: list[str] = Field(default_factory=list, description="addresses of an external datastore")
    backups: LastBackups = Field(default_factory=LastBackups, description="the last one, and the last verified one")
    notes: list[str] = Field(default_factory=list, description="what else an operator should know")

    @computed_field(description="number of errors, warnings, notes and accepted findings")
    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each severity; accepted ones separately."""
        counts = dict.fromkeys(("error", "warning", "note", "accepted"), 0)
        for one in self.differences:
            counts["accepted" if one.accepted else one.severity] += 1
        return counts

    @computed_field(description="hosts that could not be read")
    @property
    def unreachable(self) -> list[str]:
        """Hosts that could not be read."""
        return [name for name, host in self.hosts.items() if not host.reached]

    @computed_field(description="ok, drift or unreachable")
    @property
    def outcome(self) -> Literal["ok", "drift", "unreachable"]:
        """The outcome; an unreachable host takes precedence over drift."""
        if self.unreachable:
            return "unreachable"
        return "drift" if any(one.counts for one in self.differences) else "ok"

    @computed_field(description="0 nothing, 3 drift, 4 a host could not be read")
    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return {"ok": 0, "drift": DRIFT, "unreachable": UNREACHABLE}[self.outcome]
