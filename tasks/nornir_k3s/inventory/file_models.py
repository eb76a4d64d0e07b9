"""The models of config.yaml and of the files of Nornir's SimpleInventory, and their JSON schemas.

Nornir itself ignores unknown keys: a misspelt `hostnme` would be a host without an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

from nornir_k3s import k3s
from nornir_k3s.inventory.schema import ClusterModel, settings_schema
from nornir_k3s.model.backup import BackupOptions
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.drill_limits import DrillOptions
from nornir_k3s.model.value_types import LocalPath, Reference, Strict

_OWN = {
    "address": {"type": "string", "description": "the address the other hosts use (groups datastore and lb)"},
    "interface": {"type": "string", "description": "where a load balancer holds the VIP"},
}
_NODE = settings_schema(k3s.SERVER_SETTINGS - k3s.MUST_MATCH)
HostSettings = Annotated[dict[str, Any], WithJsonSchema({**_NODE, "properties": {**_NODE["properties"], **_OWN}})]


class Login(Strict):
    """The secrets that are needed to log in."""

    password: Reference | None = None
    sudo_password: Reference | None = None
    passphrase: Reference | None = Field(None, description="of the SSH key")


class Data(BaseModel):
    """The data of a host, a group or the defaults; other tools may have keys of their own here."""

    model_config = ConfigDict(extra="allow", frozen=True)
    k3s: HostSettings | None = Field(None, description="K3s settings of one host, by K3s' names")
    k3s_ssh: Login | None = None
    k3s_role: Annotated[Any, WithJsonSchema({"const": "none"})] = Field(
        None, description="none: this host has no role in the cluster"
    )


class DefaultsData(Data):
    """The data of the defaults, with the settings of the whole cluster."""

    k3s_cluster: ClusterModel


class Connection(Strict):
    """Options of one connection plugin."""

    hostname: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    username: str | None = None
    password: str | None = None
    platform: str | None = None
    extras: dict[str, Any] | None = None


class Entry(Strict):
    """A host or a group."""

    hostname: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    username: str | None = None
    password: str | None = None
    platform: str | None = None
    groups: list[str] = Field(default_factory=list)
    data: Data = Data.model_validate({})
    connection_options: dict[str, Connection] = Field(default_factory=dict)


class HostsFile(RootModel[dict[str, Entry]]):
    """hosts.yaml."""


class GroupsFile(RootModel[dict[str, Entry]]):
    """groups.yaml."""


class DefaultsFile(Strict):
    """defaults.yaml."""

    hostname: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    username: str | None = None
    password: str | None = None
    platform: str | None = None
    data: DefaultsData
    connection_options: dict[str, Connection] = Field(default_factory=dict)


Phase = Literal["stage", "agents"]
Wait = Literal["connect", "observe", "packages", "push", "server", "agent", "apply", "verify"]


class DriftOptions(Strict):
    """Options of drift checks."""

    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    keep_runs: int = Field(100, ge=1, le=100_000, description="runs whose findings are kept")


class Options(Strict):
    """How this tool runs."""

    state: LocalPath = Field(Path(".state"), description="generated secrets, kubeconfig, logs")
    cache: LocalPath | None = Field(None, description="downloaded artefacts; default: cache below state")
    widths: dict[Phase, Annotated[int, Field(ge=1, le=500)]] = Field(
        default_factory=dict, description="hosts at the same time"
    )
    deadlines: dict[Wait, Annotated[float, Field(gt=0, le=86400)]] = Field(default_factory=dict, description="seconds")
    drift: DriftOptions = Field(default_factory=lambda: DriftOptions.model_validate({}))
    drill: DrillOptions = Field(default_factory=lambda: DrillOptions.model_validate({}))
    backup: BackupOptions = Field(default_factory=lambda: BackupOptions.model_validate({}))


class UserDefined(BaseModel):
    """The part of config.yaml that Nornir leaves to others."""

    model_config = ConfigDict(extra="allow", frozen=True)
    k3s: Options = Options.model_validate({})


class RunnerOptions(BaseModel):
    """Options of the runner; other runners may have options of their own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    num_workers: int | None = Field(None, ge=1, le=1000, strict=True, description="hosts at the same time")


class Runner(Strict):
    """Which of Nornir's runners is used."""

    plugin: str = "k3s_runner"
    options: RunnerOptions | None = None


class InventorySection(Strict):
    """Which of Nornir's inventories is used."""

    plugin: str = "SimpleInventory"
    options: dict[str, Any] | None = None
    transform_function: str | None = None
    transform_function_options: dict[str, Any] | None = None


class Ssh(Strict):
    """Nornir's settings of SSH."""

    config_file: str | None = None


class Core(Strict):
    """Nornir's own settings."""

    raise_on_error: bool | None = None


class ConfigFile(Strict):
    """config.yaml: Nornir's own, and `user_defined.k3s`."""

    inventory: InventorySection | None = None
    runner: Runner | None = None
    logging: dict[str, Any] | None = None
    ssh: Ssh | None = None
    core: Core | None = None
    user_defined: UserDefined = UserDefined.model_validate({})


SCHEMAS: Mapping[str, type[BaseModel]] = {
    "config": ConfigFile,
    "hosts": HostsFile,
    "groups": GroupsFile,
    "defaults": DefaultsFile,
}


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema of one kind of file, for editors."""
    schema = SCHEMAS[kind].model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
