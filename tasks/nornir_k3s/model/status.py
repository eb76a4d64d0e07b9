"""The cluster at a glance, as `status` returns it and `--json` writes it; documented in docs/report.md."""

from __future__ import annotations

from pydantic import BaseModel, Field, computed_field

from nornir_k3s.model.backup import LastBackups

FORMAT = 1


class Certificate(BaseModel):
    """A certificate on a host, of K3s, of the datastore or of the health check, and the days until it expires."""

    host: str
    path: str
    days: int
    authority: bool = Field(description="whether it is the certificate of a CA")


class NodeStatus(BaseModel):
    """One Kubernetes node."""

    name: str
    ready: bool
    version: str
    roles: list[str]
    schedulable: bool


class Balancer(BaseModel):
    """A load balancer: whether it has the VIP, and the state of each server in HAProxy."""

    holds_vip: bool
    servers: dict[str, str]


class Status(BaseModel):
    """The cluster at a glance."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str = Field(description="K3s version the inventory asks for")
    newest: str = Field("", description="newest patch of its minor version, where that could be asked")
    kubectl: str = Field("", description="version of kubectl on this machine, if there is one")
    url: str
    nodes: list[NodeStatus] = Field(default_factory=list)
    servers: dict[str, bool] = Field(default_factory=dict, description="whether each one's /readyz is ok")
    balancers: dict[str, Balancer] = Field(default_factory=dict)
    datastore: dict[str, str] = Field(default_factory=dict, description="state of each of its hosts or addresses")
    certificates: list[Certificate] = Field(default_factory=list, description="the first to expire first")
    backups: LastBackups = Field(default_factory=LastBackups, description="the last one, and the last verified one")
    at_work: list[str] = Field(default_factory=list, description="who changes the cluster now, and since when")
    unreachable: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="what else an operator should know; ids in brackets")

    @computed_field(description="the load balancers that have the VIP")
    @property
    def holder(self) -> list[str]:
        """The load balancers that have the VIP."""
        return [name for name, balancer in self.balancers.items() if balancer.holds_vip]
