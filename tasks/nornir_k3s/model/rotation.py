"""The plan of a rotation, as `plan_rotation` returns it and `rotate --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from nornir_k3s.model.plan import Plan
from nornir_k3s.model.together import hosts_by

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

    def add_deploy(self, deployed: Plan) -> None:
        """Add what a deploy does, in its order."""
        self.notes += deployed.notes
        made = [(name, one) for name, host in deployed.hosts.items() for one in host.changes]
        for phase in deployed.phases:
            changes = [(name, one.summary) for name, one in made if one.phase == phase]
            for summary, names in hosts_by(changes).items():
                self.add(names, summary)

    def add(self, hosts: list[str], what: str) -> None:
        """Add a step, unless it has no hosts."""
        if hosts:
            self.steps.append(RotationStep(hosts=hosts, what=what))
