"""The plan of a removal, as `plan_removal` returns it and `remove --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

FORMAT = 1


class Removal(BaseModel):
    """What is done to take hosts out of a cluster."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    hosts: list[str] = Field(description="the hosts that leave")
    lost: bool = Field(False, description="they are dead or gone: nothing is done on them")
    changes: dict[str, list[str]] = Field(description="what is done, by host; `cluster`: through a server that stays")
    notes: list[str] = Field(default_factory=list, description="what is left to do for a person")
