"""The plan of a move, as `plan_move` returns it and `move --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

FORMAT = 1


class Move(BaseModel):
    """What is done to move a cluster's data to the datastore of the inventory."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    origin: str = Field(description="the old datastore: its kind, and where it is")
    target: str = Field(description="the new one")
    servers: list[str] = Field(description="where K3s is stopped meanwhile")
    changes: dict[str, list[str]] = Field(description="what is done, by host, in this order")
    notes: list[str] = Field(default_factory=list, description="what to know before it begins")
