"""The plan of a restore, as `plan_restore` returns it and `restore --plan --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from nornir_k3s.model.backup import Manifest

FORMAT = 1


class Restoration(BaseModel):
    """What is done to bring a cluster back from a backup."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    file: str
    manifest: Manifest = Field(description="of the backup")
    changes: dict[str, list[str]] = Field(description="what is done, by host; `cluster`: on this machine")
    gone: list[str] = Field(default_factory=list, description="nodes of the backup that the inventory does not have")
    notes: list[str] = Field(default_factory=list, description="what else an operator should know")
