"""The plan of a reset, as `plan_reset` returns it and `reset --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

FORMAT = 1


class Reset(BaseModel):
    """What is done to take a whole cluster down."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    changes: dict[str, list[str]] = Field(description="what is done, by host")
    datastore: dict[str, list[str]] = Field(
        default_factory=dict, description="what is done to the datastore, by host, only if that is asked for"
    )
    lost: list[str] = Field(default_factory=list, description="hosts that are gone: nothing is done on them")
    notes: list[str] = Field(default_factory=list, description="what stays, and what is left to do for a person")
