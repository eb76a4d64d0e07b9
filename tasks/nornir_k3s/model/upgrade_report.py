"""An upgrade over several minor versions: its path, and what became of each step; documented in docs/report.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, computed_field

from nornir_k3s.model.report import ErrorReport, Report

FORMAT = 1


class UpgradeStep(BaseModel):
    """One step: a complete, verified upgrade."""

    version: str
    state: Literal["done", "failed", "not begun"] = "not begun"
    report: Report | None = Field(None, description="of its deploy")


class UpgradeReport(BaseModel):
    """The path of an upgrade, and how far it has come."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    inventory_version: str = Field(description="K3s version the inventory asks for")
    inventory_line: str = Field("", description="FILE:LINE of it, where the inventory is read from files")
    nodes: Mapping[str, str] = Field(description="version of each node now; before the upgrade, in a plan")
    ways: Mapping[str, list[str]] = Field(
        default_factory=dict, description="versions that each node goes through; nodes in their order"
    )
    steps: list[UpgradeStep] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    exit_code: int = 0
    error: ErrorReport | None = None

    @computed_field(description="the versions that the cluster goes through, in order")
    @property
    def path(self) -> list[str]:
        """The versions that the cluster goes through, in order."""
        return [step.version for step in self.steps]

    @property
    def to(self) -> str:
        """The last version of the path; without one, that of all nodes, or else that of the inventory."""
        if self.steps:
            return self.steps[-1].version
        versions = set(self.nodes.values())
        return versions.pop() if len(versions) == 1 else self.inventory_version
