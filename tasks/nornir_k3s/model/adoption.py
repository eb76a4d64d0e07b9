"""What `adopt` has found of a cluster, and what it has written; `adopt --json` writes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from nornir_k3s.model.plan import Plan

FORMAT = 1


class AdoptedHost(BaseModel):
    """A host of the cluster."""

    address: str = Field(description="where SSH connects to")
    roles: list[str] = Field(description="servers, agents, lb or datastore, by what runs there")
    version: str = Field("", description="of K3s")
    taken: bool = Field(True, description="whether it is in the inventory")


class AdoptedSetting(BaseModel):
    """A setting of the inventory, and where it was read."""

    key: str
    value: str = Field(description="secrets are masked")
    place: str = Field(description="where it is in the inventory: k3s_cluster.server, or a host")
    origin: str = Field(description="what sets it on the hosts")


class Difference(BaseModel):
    """A setting that must be the same on all servers, and is not."""

    setting: str
    values: dict[str, str] = Field(description="by host")
    chosen: str = Field(description="that of the inventory")


class MissingNode(BaseModel):
    """A node of the cluster whose host was not given."""

    name: str
    address: str
    role: str
    version: str


class Adoption(BaseModel):
    """A cluster that exists, and the inventory of it."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str = Field(description="of K3s, as most servers run it")
    hosts: dict[str, AdoptedHost]
    datastore: str = Field(description="what the servers use, without a secret")
    registration: str = Field(description="the address that agents use, and who leads it to the servers")
    settings: list[AdoptedSetting]
    differences: list[Difference] = Field(default_factory=list)
    missing: list[MissingNode] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list, description="files that were written, or would be")
    secrets: list[str] = Field(default_factory=list, description="files with secrets in the state folder")
    plan: Plan | None = Field(None, description="what a deploy of this inventory would change, if it was computed")
    next: str = Field(description="the next command")
