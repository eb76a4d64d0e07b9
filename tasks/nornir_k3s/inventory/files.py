"""The shape of config.yaml and of the files that Nornir's SimpleInventory reads, and their JSON schemas.

Nornir itself takes no notice of keys it does not know: a misspelt `hostnme` would be a host without an address.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, WithJsonSchema

from nornir_k3s import k3s
from nornir_k3s.inventory.schema import (
    ClusterModel,
    explain,
    settings_schema,
)
from nornir_k3s.inventory.yaml_files import Key, Problems, Source, Sources, read
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.settings import (
    LocalPath,
    Reference,
    Strict,
)

_OWN = {
    "address": {"type": "string", "description": "the address the other hosts use (groups datastore and lb)"},
    "interface": {"type": "string", "description": "where a load balancer holds the VIP"},
    "priority": {"type": "integer"},
}
_NODE = settings_schema(k3s.SERVER_SETTINGS - k3s.MUST_MATCH)
HostSettings = Annotated[dict[str, Any], WithJsonSchema({**_NODE, "properties": {**_NODE["properties"], **_OWN}})]
_KINDS = {"hosts": "host_file", "groups": "group_file", "defaults": "defaults_file"}


class Login(Strict):
    """How to log in, where a secret is needed for it."""

    password: Reference | None = None
    sudo_password: Reference | None = None
    passphrase: Reference | None = Field(None, description="of the SSH key")


class Data(BaseModel):
    """What a host, a group or the defaults know; keys of other tools are theirs."""

    model_config = ConfigDict(extra="allow", frozen=True)
    k3s: HostSettings | None = Field(None, description="K3s settings of one host, by K3s' names")
    k3s_ssh: Login | None = None


class DefaultsData(Data):
    """The defaults' data hold the settings of the whole cluster."""

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
Wait = Literal["connect", "observe", "packages", "push", "fetch", "server", "agent", "apply", "verify"]


class DriftOptions(Strict):
    """What a drift check goes by."""

    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    keep_runs: int = Field(100, ge=1, le=100_000, description="runs whose findings are kept")


class Options(Strict):
    """How this tool runs."""

    state: LocalPath = Field(Path(".state"), description="generated secrets, kubeconfig, logs")
    cache: LocalPath | None = Field(None, description="artefacts fetched once; default: cache below state")
    widths: dict[Phase, Annotated[int, Field(ge=1, le=500)]] = Field(
        default_factory=dict, description="hosts at the same time"
    )
    deadlines: dict[Wait, Annotated[float, Field(gt=0, le=86400)]] = Field(default_factory=dict, description="seconds")
    drift: DriftOptions = Field(default_factory=lambda: DriftOptions.model_validate({}))


class UserDefined(BaseModel):
    """What Nornir leaves to others."""

    model_config = ConfigDict(extra="allow", frozen=True)
    k3s: Options = Options.model_validate({})


class RunnerOptions(BaseModel):
    """Options of the runner; those of other runners are theirs."""

    model_config = ConfigDict(extra="allow", frozen=True)
    num_workers: int | None = Field(None, ge=1, le=1000, strict=True, description="hosts at the same time")


class Runner(Strict):
    """Which of Nornir's runners is used."""

    plugin: str = "k3s_runner"
    options: RunnerOptions | None = None


class ConfigFile(Strict):
    """config.yaml: Nornir's own, and `user_defined.k3s`."""

    inventory: dict[str, Any] | None = None
    runner: Runner | None = None
    logging: dict[str, Any] | None = None
    ssh: dict[str, Any] | None = None
    core: dict[str, Any] | None = None
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


def read_inventory(options: Mapping[str, Any]) -> Sources:
    """Return the inventory's files, with everything that is wrong with their form.

    Arguments:
        options: Of Nornir's SimpleInventory: host_file, group_file, defaults_file.
    """
    files: dict[str, Source] = {}
    for kind, option in _KINDS.items():
        if option in options and (kind == "hosts" or Path(options[option]).exists()):
            files[kind] = read(Path(options[option]))
    sources = Sources(files)
    problems = Problems(sources)
    for kind, source in files.items():
        problems += [text for text in source.problems if kind == "hosts" or not text.endswith(": it is empty")]
        if not source.problems:
            _check(kind, source, problems)
    if not any(source.problems for source in files.values()):
        for host, text, path in _groups(sources):
            problems.other(text, *((host[0], host[1], *path)))
    return Sources(files, tuple(problems))


def _check(kind: str, source: Source, problems: Problems) -> None:
    if not isinstance(source.data, dict):
        problems.append(f"{source.path}: it is not a mapping")
        return
    model = SCHEMAS[kind]
    try:
        model.model_validate(_without_cluster(kind, source.data))
    except ValidationError as error:
        for path, text in explain(error, model):
            if "k3s_cluster" not in path:  # the cluster's settings are looked at when it is loaded
                problems.other(f"{_label(kind, path)}: {text}", kind, *path)
    entries = source.data if kind != "defaults" else {"defaults": source.data}
    for name, entry in entries.items():
        for path, text in _data_problems(entry):
            where = path if kind == "defaults" else (name, *path)
            problems.other(f"{_label(kind, where)}: {text}", kind, *where)


def _without_cluster(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    if kind != "defaults" or not isinstance(data.get("data"), dict):
        return data
    return {**data, "data": {**data["data"], "k3s_cluster": None}}


def _data_problems(entry: object) -> Iterator[tuple[tuple[Key, ...], str]]:
    if not isinstance(entry, dict):
        return
    data = entry.get("data")
    for key in data if isinstance(data, dict) else ():
        near = difflib.get_close_matches(str(key), ["k3s", "k3s_ssh", "k3s_cluster"], n=1, cutoff=0.8)
        if near and key != near[0]:
            yield ("data", key), f"unknown key `{key}`; did you mean `{near[0]}`?"
    connections = entry.get("connection_options")
    netmiko = connections.get("netmiko") if isinstance(connections, dict) else None
    extras = netmiko.get("extras") if isinstance(netmiko, dict) else None
    for key in extras if isinstance(extras, dict) else ():
        if key not in _netmiko_options():
            near = difflib.get_close_matches(str(key), sorted(_netmiko_options()), n=1)
            text = f"netmiko has no option `{key}`" + (f"; did you mean `{near[0]}`?" if near else "")
            yield ("connection_options", "netmiko", "extras", key), text


@cache
def _netmiko_options() -> frozenset[str]:
    from netmiko.base_connection import BaseConnection  # noqa: PLC0415 - a third of a second that most runs do not need

    return frozenset(inspect.signature(BaseConnection.__init__).parameters) - {"self"}


def _groups(sources: Sources) -> Iterator[tuple[tuple[str, str], str, tuple[Key, ...]]]:
    data = {kind: source.data if isinstance(source.data, dict) else {} for kind, source in sources.files.items()}
    groups = data.get("groups", {})
    for kind in ("hosts", "groups"):
        for name, entry in data.get(kind, {}).items():
            wanted = entry.get("groups") if isinstance(entry, dict) else None
            for group in wanted if isinstance(wanted, list) else ():
                if group not in groups:
                    near = difflib.get_close_matches(str(group), [str(g) for g in groups], n=1)
                    text = f"{name}: there is no group `{group}`" + (f"; did you mean `{near[0]}`?" if near else "")
                    yield (kind, name), text, ("groups",)
    for name in groups:
        if _circular(name, groups):
            yield ("groups", name), f"{name}: the group is, in the end, in itself", ("groups",)


def _circular(name: str, groups: Mapping[str, Any]) -> bool:
    todo, seen = [name], set()
    while todo:
        entry = groups.get(todo.pop())
        for parent in (entry.get("groups") if isinstance(entry, dict) else None) or []:
            if parent == name:
                return True
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return False


def _label(kind: str, path: tuple[Key, ...]) -> str:
    return ".".join(str(part) for part in path) if kind != "defaults" else ".".join(["defaults", *map(str, path)])
