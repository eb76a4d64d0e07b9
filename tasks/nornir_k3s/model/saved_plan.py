"""A plan that was saved for review: what would be changed, and fingerprints of what that stands on; no secrets."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field

from nornir_k3s.model.plan import Plan

FORMAT = 1


class SavedChoice(BaseModel):
    """The hosts and phases that were chosen."""

    limit: tuple[str, ...] = ()
    until: str = ""
    only: str = ""
    skip_unreachable: bool = False
    ignore_window: bool = False
    trial: int = 0


class Basis(BaseModel):
    """What a plan stands on; secrets, and what may contain them, only as fingerprints that the token is part of."""

    settings: Mapping[str, str] = Field(description="parts of the inventory and the configuration: fingerprints")
    facts: Mapping[str, Mapping[str, str]] = Field(description="what was found on each host")
    steps: Mapping[str, Mapping[str, str]] = Field(description="the steps of each host, in order: fingerprints")


class SavedPlan(BaseModel):
    """A plan in a file; `deploy` carries out exactly that, or nothing."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    tool: str = Field(description="version of nornir-k3s that made it")
    cluster: str
    created: str = Field(description="when, in UTC")
    by: str = Field(description="who, and on which controller")
    choice: SavedChoice
    basis: Basis
    plan: Plan
