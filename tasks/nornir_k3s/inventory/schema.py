"""The model of `k3s_cluster` in the inventory: it refuses unknown keys and describes every field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator

from nornir_k3s import k3s
from nornir_k3s.model.load_balancer import LoadBalancer
from nornir_k3s.model.registration import Registration
from nornir_k3s.model.rolling_update import RollingUpdate
from nornir_k3s.model.settings import (
    Artifacts,
    DatastoreFields,
    DatastorePool,
    ExternalDatastore,
    FileOfUser,
    KnownDifference,
    ManagedDatastore,
    Proxy,
)
from nornir_k3s.model.value_types import LocalPath, PathOrReference, Reference, Strict


def settings_schema(known: frozenset[str]) -> dict[str, Any]:
    """Return the JSON schema of a mapping of these K3s settings."""
    text = {"type": ["string", "integer"]}
    many = {"anyOf": [{"type": "string"}, {"type": "array", "items": text}]}
    reference = {"type": "object", "minProperties": 1, "maxProperties": 1}
    arguments = {"anyOf": [{"type": "string"}, reference, {"type": "array", "items": {"anyOf": [text, reference]}}]}

    def of(key: str) -> dict[str, Any]:
        if key in k3s.BOOLEANS:
            return {"enum": [True, False, "true", "false"]}
        if key in k3s.SECRETS or key.endswith("-arg"):
            return reference if key in k3s.SECRETS else arguments
        return many if key in k3s.LISTS else {"enum": list(k3s.CHOICES[key])} if key in k3s.CHOICES else text

    properties = {key: of(key) for key in sorted(known)} | {f"{key}+": of(key) for key in sorted(known & k3s.LISTS)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


ServerSettings = Annotated[dict[str, Any], WithJsonSchema(settings_schema(k3s.SERVER_SETTINGS))]
AgentSettings = Annotated[dict[str, Any], WithJsonSchema(settings_schema(k3s.AGENT_SETTINGS))]


def _datastore_kind(value: Any) -> str:  # noqa: ANN401 - any content of a file
    if not isinstance(value, dict):
        return "managed"
    return "external" if "endpoint" in value else "fields" if "hosts" in value else "managed"


Datastore = Annotated[
    Annotated[ManagedDatastore, Tag("managed")]
    | Annotated[ExternalDatastore, Tag("external")]
    | Annotated[DatastoreFields, Tag("fields")],
    Discriminator(_datastore_kind),
]


class ClusterModel(Strict):
    """All settings of the whole cluster."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$", description="names files, context and load balancers"
    )
    version: str = Field(description="K3s version, as v1.34.9+k3s1")
    token: Reference | None = Field(None, description="a reference; generated when absent and kept on the controller")
    agent_token: Reference | None = Field(None, description="a separate token that lets agents join, and nothing else")
    registration: Registration
    datastore: Datastore
    datastore_pool: DatastorePool | None = Field(None, description="the connections each server opens to it")
    artifacts: Artifacts = Field(default_factory=lambda: Artifacts.model_validate({}))
    registries: PathOrReference | None = Field(
        None, description="a registries.yaml, or a reference to its text, delivered to every server and agent"
    )
    files: list[FileOfUser] = Field(default_factory=list, description="files of your own on servers and agents")
    manifests: list[LocalPath] = Field(
        default_factory=list, description="manifests that K3s applies from every server, such as those of a CNI"
    )
    proxy: Proxy | None = None
    server: ServerSettings = Field(default_factory=dict, description="K3s settings of every server, by K3s' names")
    agent: AgentSettings = Field(default_factory=dict, description="K3s settings of every agent, by K3s' names")
    rolling_update: RollingUpdate = Field(
        default_factory=lambda: RollingUpdate.model_validate({}), description="the agents that restart at the same time"
    )
    server_taint: bool = Field(True, description=f"keep workloads off the servers with {k3s.SERVER_TAINT}")
    lb: LoadBalancer = LoadBalancer(virtual_router_id=51, prefix=None)
    take_over: list[str] = Field(
        default_factory=list,
        description="hosts whose database or load balancer serves others, and may get a new configuration",
    )
    accept: list[str] = Field(
        default_factory=list, description="warnings of the preflight that are accepted: ID or HOST:ID"
    )
    known_drift: list[KnownDifference] = Field(default_factory=list, description="drift that is known and accepted")
    groups: dict[Literal["datastore", "servers", "agents", "lb"], str] = Field(
        default_factory=dict, description="names of the inventory's groups, where they are others"
    )

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        k3s.parse_version(value)
        return value
