"""The shape of `k3s_cluster` in the inventory: unknown keys are refused, every field says what it means."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, field_validator, model_validator

from nornir_k3s import k3s

Value = str | int | bool | list[str]
Reference = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _reference(value: Reference | None) -> Reference | None:
    if value is not None and (len(value) != 1 or next(iter(value)) not in ("env", "file", "command")):
        raise ValueError("a secret is a reference: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}")
    return value


class Registration(_Strict):
    """The fixed registration address: what agents and people use."""

    address: IPvAnyAddress | None = Field(None, description="the VIP")
    name: str | None = Field(None, description="a DNS name that leads to the address, used where given")
    port: int = Field(6443, ge=1, le=65535)
    managed: bool = Field(True, description="false: a load balancer someone else runs")

    @model_validator(mode="after")
    def _something(self) -> Registration:
        if self.managed and self.address is None:
            raise ValueError("the VIP is missing: give `address`")
        if self.address is None and not self.name:
            raise ValueError("give `address`, `name` or both")
        return self


class ManagedDatastore(_Strict):
    """A datastore that this tool sets up on the host of group datastore."""

    kind: Literal["mariadb"] = Field(description="from the host's own packages")
    database: str = Field("k3s", pattern=r"^[a-z][a-z0-9_]{0,47}$")
    user: str = Field("k3s", pattern=r"^[a-z][a-z0-9_]{0,31}$")
    password: Reference | None = Field(None, description="a reference; generated when absent")
    _check = field_validator("password")(_reference)


class ExternalDatastore(_Strict):
    """A datastore someone else runs, as K3s' endpoint string (docs: datastore/datastore.md)."""

    endpoint: Reference = Field(description="a reference to the endpoint string, which holds a password")
    cafile: Path | None = Field(None, description="CA that the servers verify the datastore with; delivered to them")
    certfile: Path | None = None
    keyfile: Path | None = None
    _check = field_validator("endpoint")(_reference)

    @model_validator(mode="after")
    def _pair(self) -> ExternalDatastore:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together: one of them is missing")
        return self


class Artifacts(_Strict):
    """Where K3s comes from."""

    folder: Path = Field(description="holds k3s, install.sh and, where hosts cannot pull, images/*.tar*")


class LoadBalancer(_Strict):
    """HAProxy and keepalived on the hosts of group lb."""

    virtual_router_id: int = Field(51, ge=1, le=255, description="unique among the VRRP groups of the network")
    prefix: int = Field(32, ge=8, le=128, description="prefix length the VIP is set up with")


class ClusterModel(_Strict):
    """All settings of the whole cluster."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$", description="names files, context and load balancers"
    )
    version: str = Field(description="K3s version, as v1.34.9+k3s1")
    token: Reference | None = Field(None, description="a reference; generated when absent and kept on the controller")
    agent_token: Reference | None = Field(None, description="a separate token that lets agents join, and nothing else")
    registration: Registration
    datastore: ManagedDatastore | ExternalDatastore
    artifacts: Artifacts
    server: dict[str, Value] = Field(default_factory=dict, description="K3s settings of every server, by K3s' names")
    agent: dict[str, Value] = Field(default_factory=dict, description="K3s settings of every agent, by K3s' names")
    server_taint: bool = Field(True, description=f"keep workloads off the servers with {k3s.SERVER_TAINT}")
    lb: LoadBalancer = LoadBalancer(virtual_router_id=51, prefix=32)
    groups: dict[Literal["datastore", "servers", "agents", "lb"], str] = Field(
        default_factory=dict, description="names of the inventory's groups, where they are others"
    )
    _references = field_validator("token", "agent_token")(_reference)

    @field_validator("datastore", mode="before")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        if not isinstance(value, dict):
            raise ValueError("give {kind: mariadb} or {endpoint: REFERENCE}")
        chosen = ExternalDatastore if "endpoint" in value else ManagedDatastore
        return chosen.model_validate(value)

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        k3s.parse_version(value)
        return value

    @field_validator("server")
    @classmethod
    def _server(cls, value: dict[str, Value]) -> dict[str, Value]:
        _raise(k3s.unknown_settings(value, k3s.SERVER_SETTINGS) + _contradictions(value))
        return value

    @field_validator("agent")
    @classmethod
    def _agent(cls, value: dict[str, Value]) -> dict[str, Value]:
        _raise(k3s.unknown_settings(value, k3s.AGENT_SETTINGS))
        return value


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(problems))


def _networks(
    settings: dict[str, Value], key: str, default: str
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    value = settings.get(key, default)
    parts = value if isinstance(value, list) else re.split(r"\s*,\s*", str(value))
    return [ipaddress.ip_network(str(part)) for part in parts]


def _contradictions(server: dict[str, Value]) -> list[str]:
    try:
        pods = _networks(server, "cluster-cidr", "10.42.0.0/16")
        services = _networks(server, "service-cidr", "10.43.0.0/16")
        dns = [ipaddress.ip_address(str(a)) for a in _as_list(server.get("cluster-dns", []))]
    except ValueError as error:
        return [str(error)]
    problems = []
    for pod in pods:
        for service in services:
            if pod.version == service.version and pod.overlaps(service):
                problems.append(f"cluster-cidr {pod} overlaps service-cidr {service}")
    for address in dns:
        if not any(address in service for service in services):
            problems.append(f"cluster-dns {address} is not inside service-cidr")
    return problems


def _as_list(value: Value) -> list[str]:
    return value if isinstance(value, list) else [part.strip() for part in str(value).split(",") if part.strip()]
