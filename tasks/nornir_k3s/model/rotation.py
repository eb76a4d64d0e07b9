"""The plan of a rotation, as `plan_rotation` returns it and `rotate --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

FORMAT = 1


class RotationStep(BaseModel):
    """One step of a rotation."""

    hosts: list[str] = Field(description="where it is done; `controller`: on this machine")
    what: str


class Rotation(BaseModel):
    """What is done to rotate a secret, in order."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    what: str = Field(description="what is rotated: token, database-password, …")
    steps: list[RotationStep] = Field(default_factory=list, description="in order; empty: there is nothing to do")
    notes: list[str] = Field(default_factory=list)

    def add(self, hosts: list[str], what: str) -> None:
        """Add a step, unless it has no hosts."""
        if hosts:
            self.steps.append(RotationStep(hosts=hosts, what=what))
