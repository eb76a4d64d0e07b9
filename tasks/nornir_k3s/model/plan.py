"""The plan of a deploy, as `plan` returns it and `--plan --json` writes it; documented in docs/report.md."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field, computed_field

from nornir_k3s.model.finding import Finding

FORMAT = 2


class Change(BaseModel):
    """One change on one host."""

    id: str = Field(description="HOST/KIND:TARGET; the same in every run, and in the report's `changes` after HOST/")
    phase: str = Field(description="the phase of deploy that makes it")
    kind: str = Field(
        description="packages, artifact, install, file, remove, unit, database, rotation, selinux, certificates"
    )
    target: str
    summary: str
    action: str | None = Field(None, description="of units: start, restart, reload or enable")
    diff: str = Field("", description="unified; values of secrets are masked")
    estimate: bool = Field(False, description="the final content depends on an earlier phase (the cluster's CA)")


class HostPlan(BaseModel):
    """The changes of one host, in order."""

    role: str
    roles: list[str] = Field(default_factory=list, description="all its roles")
    changes: list[Change]


class NodeUpgrade(BaseModel):
    """A node that gets another version of K3s."""

    host: str
    running: str = Field(description="version of its node now")
    version: str = Field(description="version that it gets")
    drained: bool = Field(False, description="whether its pods are evicted first")


class Plan(BaseModel):
    """The changes of every host, by name, and the findings of the preflight."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str
    hosts: Mapping[str, HostPlan]
    batches: list[list[str]] = Field(
        default_factory=list, description="the agents that restart, in their order; the first one goes alone"
    )
    upgrade: list[NodeUpgrade] = Field(
        default_factory=list, description="the nodes that get another version of K3s, in their order"
    )
    phases: list[str] = Field(description="the phases that would run")
    findings: list[Finding] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    skipped: list[str] = Field(default_factory=list, description="hosts that are down and were left out")

    @computed_field(description="whether anything would be changed")
    @property
    def changes(self) -> bool:
        """Whether anything would be changed."""
        return any(host.changes for host in self.hosts.values())

    @computed_field(description="HOST/UNIT of everything that would be started, restarted or reloaded")
    @property
    def restarts(self) -> list[str]:
        """HOST/UNIT of everything that would be started, restarted or reloaded."""
        return [
            f"{name}/{change.target}"
            for name, host in self.hosts.items()
            for change in host.changes
            if change.action in ("start", "restart", "reload")
        ]
