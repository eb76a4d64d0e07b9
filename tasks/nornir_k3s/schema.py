"""The shape of `k3s_cluster` in the inventory: unknown keys are refused, every field says what it means."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    IPvAnyAddress,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from nornir_k3s import k3s
from nornir_k3s.datastores.endpoint import PORTS, Endpoint, Kind, build, places
from nornir_k3s.secret import Secret

_TAGS = ("managed", "external", "fields")  # of the union below


def _usable(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot have a NUL in it")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user") from None


LocalPath = Annotated[Path, AfterValidator(_usable)]


class Strict(BaseModel):
    """A mapping that has these keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _reference(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in ("env", "file", "command"):
        raise ValueError("a secret is a reference: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}")
    return value


def _one_of(**values: dict[str, Any]) -> dict[str, Any]:
    forms = [
        {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}
        for key, value in values.items()
    ]
    return {"anyOf": forms}


_TEXT = {"type": "string", "minLength": 1}
_WORDS = {"anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Reference = Annotated[
    dict[str, Any],
    BeforeValidator(_reference),
    WithJsonSchema(_one_of(env=_TEXT, file=_TEXT, command=_WORDS) | {"description": "where a secret comes from"}),
]


def settings_schema(known: frozenset[str]) -> dict[str, Any]:
    """Return the JSON schema of a mapping of these K3s settings."""
    text = {"type": ["string", "integer"]}
    many = {"anyOf": [{"type": "string"}, {"type": "array", "items": text}]}

    def of(key: str) -> dict[str, Any]:
        if key in k3s.BOOLEANS:
            return {"type": "boolean"}
        return many if key in k3s.LISTS else {"enum": list(k3s.CHOICES[key])} if key in k3s.CHOICES else text

    return {"type": "object", "properties": {key: of(key) for key in sorted(known)}, "additionalProperties": False}


ServerSettings = Annotated[dict[str, Any], WithJsonSchema(settings_schema(k3s.SERVER_SETTINGS))]
AgentSettings = Annotated[dict[str, Any], WithJsonSchema(settings_schema(k3s.AGENT_SETTINGS))]


class Registration(Strict):
    """The fixed registration address: what agents and people use."""

    address: IPvAnyAddress | None = Field(None, description="the VIP")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$",
        description="a DNS name that leads to the address, used where given",
    )
    port: int = Field(6443, ge=1, le=65535)
    managed: bool = Field(True, description="false: a load balancer someone else runs")

    @model_validator(mode="after")
    def _something(self) -> Registration:
        if self.managed and self.address is None:
            raise ValueError("the VIP is missing: give `address`")
        if self.address is None and not self.name:
            raise ValueError("give `address`, `name` or both")
        if self.address and (self.address.is_unspecified or self.address.is_multicast):
            raise ValueError(f"{self.address} cannot be the address of a host")
        return self


class ManagedDatastore(Strict):
    """A datastore that this tool sets up on the host of group datastore."""

    kind: Literal["mariadb", "mysql", "postgresql", "etcd"] = Field(description="from the host's own packages")
    database: str = Field("k3s", pattern=r"^[a-z][a-z0-9_]{0,47}$")
    user: str = Field(
        "k3s", pattern=r"^[a-z][a-z0-9_]{0,22}$", description="the users' names begin with it; _ and 8 digits follow"
    )
    password: Reference | None = Field(None, description="a reference; generated when absent")
    tls: bool = Field(True, description="with a CA of the cluster's own, which the servers verify")

    @model_validator(mode="after")
    def _etcd(self) -> ManagedDatastore:
        if self.kind == "etcd" and self.model_fields_set & {"database", "user", "password"}:
            raise ValueError("etcd has no database, user or password: K3s shows it a certificate")
        if self.kind == "etcd" and not self.tls:
            raise ValueError("without TLS everybody could read and write etcd: leave out `tls: false`")
        return self


class ExternalDatastore(Strict):
    """A datastore someone else runs, as K3s' endpoint string (docs: datastore/datastore.md)."""

    endpoint: Reference = Field(description="a reference to the endpoint string, which holds a password")
    cafile: LocalPath | None = Field(None, description="the CA that servers verify the datastore with; it is delivered")
    certfile: LocalPath | None = None
    keyfile: LocalPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_both(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        if isinstance(value, dict) and "kind" in value:
            raise ValueError("`endpoint` says it all: give it alone, or `kind` and `hosts` instead")
        return value

    @model_validator(mode="after")
    def _pair(self) -> ExternalDatastore:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together: one of them is missing")
        return self


class DatastoreFields(Strict):
    """A datastore someone else runs, as fields: the endpoint is built of them and escaped as its driver reads it."""

    kind: Literal["mysql", "mariadb", "postgresql", "etcd"]
    hosts: list[str] = Field(min_length=1, description="HOST or HOST:PORT each; several for PostgreSQL and etcd only")
    port: int | None = Field(None, ge=1, le=65535, description="of hosts that name none; default: the kind's own")
    database: str | None = Field(None, pattern=r"^[A-Za-z0-9_$-]{1,63}$", description="default: k3s")
    user: str | None = Field(None, min_length=1, description="default: k3s")
    password: Reference | None = Field(None, description="a reference")
    parameters: dict[str, str | int] = Field(default_factory=dict, description="more of the driver's own, as sslmode")
    tls: bool = Field(True, description="false: etcd over http, PostgreSQL with sslmode=disable")
    cafile: LocalPath | None = Field(None, description="the CA that servers verify the datastore with; it is delivered")
    certfile: LocalPath | None = None
    keyfile: LocalPath | None = None

    @model_validator(mode="after")
    def _fits(self) -> DatastoreFields:
        if problem := self._problem():
            raise ValueError(problem)
        self.endpoint(Secret(""))
        return self

    def _problem(self) -> str:  # noqa: PLR0911 - one line a problem
        if (self.certfile is None) != (self.keyfile is None):
            return "certfile and keyfile belong together: one of them is missing"
        if not self.tls and (self.cafile or self.certfile):
            return "TLS files and `tls: false` do not go together"
        if self.kind == "etcd":
            if self.database or self.user or self.password or self.parameters:
                return "etcd has no database, user, password or parameters: give `certfile` and `keyfile`"
            return ""
        if self.password is None:
            return "the password is missing: give a reference, as {file: PATH}"
        if self.kind == "postgresql" and self.database and self.database != self.database.lower():
            return "K3s turns the name of a PostgreSQL database to lower case: use one that is so already"
        if self.kind != "postgresql" and not self.tls:
            return "K3s uses TLS where the server has it: `tls: false` is for etcd and PostgreSQL"
        if self.kind != "postgresql" and "tls" in self.parameters:
            return "`tls` cannot be used: give `cafile` instead, and K3s verifies the server with it"
        return ""

    def endpoint(self, password: Secret) -> Secret:
        """Return K3s' endpoint string.

        Raises:
            ValueError: The kind's driver cannot express it; in words.
        """
        kind: Kind = "mysql" if self.kind == "mariadb" else self.kind
        hosts = places(self.hosts, self.port or PORTS[kind])
        parameters = {key: str(value) for key, value in self.parameters.items()}
        if kind == "postgresql" and not self.tls:
            parameters.setdefault("sslmode", "disable")
        if kind == "etcd":
            return build(Endpoint(kind, hosts, tls=self.tls))
        user, database = self.user or "k3s", self.database or "k3s"
        if not user.isprintable():
            raise ValueError("the user's name has control characters or line breaks in it")
        return build(Endpoint(kind, hosts, user, password, database, parameters))


class DatastorePool(Strict):
    """The connections that each server opens to a MySQL, MariaDB or PostgreSQL; etcd has no such pool."""

    max_open: int | None = Field(None, ge=1, le=100000, description="at most so many at once; K3s itself sets no bound")
    max_idle: int | None = Field(None, ge=1, le=100000, description="so many are kept open; best the same as max_open")
    max_lifetime: str | None = Field(
        None, pattern=r"^([0-9]+(h|m|s))+$", description="each is renewed after so long, as 5m; K3s' default: never"
    )

    @model_validator(mode="after")
    def _fits(self) -> DatastorePool:
        if (self.max_open, self.max_idle, self.max_lifetime) == (None, None, None):
            raise ValueError("give `max_open`, `max_idle` or `max_lifetime`")
        if self.max_open and self.max_idle and self.max_idle > self.max_open:
            raise ValueError(f"max_idle ({self.max_idle}) is more than max_open ({self.max_open})")
        return self


class Artifacts(Strict):
    """Where K3s comes from: a folder, or a release by the cluster's version, from GitHub or a mirror of its layout."""

    folder: LocalPath | None = Field(None, description="holds k3s, install.sh and, where hosts cannot pull, images")
    url: str | None = Field(None, pattern=r"^https?://", description="a mirror; default: K3s' releases on GitHub")
    images: bool = Field(False, description="also bring the release's air-gap images to every server and agent")
    push: bool = Field(True, description="false: the hosts fetch from `url` themselves, verified the same")

    @model_validator(mode="after")
    def _one_place(self) -> Artifacts:
        if self.folder and (self.url or self.images or not self.push):
            raise ValueError("with `folder` there is nothing to fetch: leave out url, images and push")
        if self.images and not self.push:
            raise ValueError("images are always pushed: leave out `images`, or `push: false`")
        return self


class Proxy(Strict):
    """The proxy that K3s and its containerd use to pull images."""

    # As the file of environment variables that they end up in can hold them.
    http: str | None = Field(None, pattern=r"^https?://[^\s\"\\$`]+$")
    https: str | None = Field(None, pattern=r"^https?://[^\s\"\\$`]+$")
    no_proxy: list[Annotated[str, Field(pattern=r"^[^\s,\"\\$`]+$")]] = Field(
        default_factory=list, description="in addition to the cluster's own addresses"
    )

    @model_validator(mode="after")
    def _something(self) -> Proxy:
        if not self.http and not self.https:
            raise ValueError("give `http`, `https` or both")
        return self


class LoadBalancer(Strict):
    """HAProxy and keepalived on the hosts of group lb."""

    virtual_router_id: int = Field(51, ge=1, le=255, description="unique among the VRRP groups of the network")
    prefix: int | None = Field(
        None,
        ge=8,
        le=128,
        description="prefix length the VIP is set up with; default: one address (32, or 128 in IPv6)",
    )


def _datastore_kind(value: Any) -> str:  # noqa: ANN401 - what stands in the file
    if not isinstance(value, dict):
        return "managed"
    return "external" if "endpoint" in value else "fields" if "hosts" in value else "managed"


Datastore = Annotated[
    Annotated[ManagedDatastore, Tag("managed")]
    | Annotated[ExternalDatastore, Tag("external")]
    | Annotated[DatastoreFields, Tag("fields")],
    Discriminator(_datastore_kind),
]


class KnownDifference(Strict):
    """Drift that is known and accepted for a time."""

    id: str = Field(min_length=1, description="as drift.py shows it, HOST/KIND:WHAT; * stands for anything")
    reason: str = Field(min_length=1, description="why, for those who read the report")
    until: date = Field(description="the last day, as 2027-01-31; after it the difference counts again")


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
    registries: LocalPath | None = Field(None, description="a registries.yaml, delivered to every server and agent")
    proxy: Proxy | None = None
    server: ServerSettings = Field(default_factory=dict, description="K3s settings of every server, by K3s' names")
    agent: AgentSettings = Field(default_factory=dict, description="K3s settings of every agent, by K3s' names")
    server_taint: bool = Field(True, description=f"keep workloads off the servers with {k3s.SERVER_TAINT}")
    lb: LoadBalancer = LoadBalancer(virtual_router_id=51, prefix=None)
    accept: list[str] = Field(
        default_factory=list, description="warnings of the preflight that are known and accepted: ID or HOST:ID"
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


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the path and the words of each problem; an unknown key comes with the nearest known one."""
    for item in error.errors(include_url=False, include_context=False):
        path = tuple(part for part in item["loc"] if part not in _TAGS)
        match item["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(str(path[-1]), sorted(_known(model, path[:-1])), n=1)
                yield path, f"unknown key `{path[-1]}`" + (f"; did you mean `{near[0]}`?" if near else "")
            case "missing":
                yield path, "it is missing"
            case "model_type" | "dict_type":
                yield path, "it is empty: write `{}`" if item["input"] is None else "it must be a mapping"
            case "list_type":
                yield path, "it must be a list, as [ONE, TWO]"
            case _:
                for line in item["msg"].removeprefix("Value error, ").splitlines():
                    yield path, line


def _known(model: type[BaseModel], path: tuple[str | int, ...]) -> set[str]:
    types: list[Any] = [model]
    for key in path:
        types = [found for kind in types for found in _below(kind, str(key))]
    return {name for kind in types for part in _models(kind) for name in part.model_fields}


def _below(kind: Any, key: str) -> Iterator[Any]:  # noqa: ANN401 - any type expression
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        if "root" in fields:
            yield from _below(fields["root"].annotation, key)
        elif key in fields:
            yield fields[key].annotation
    elif get_origin(kind) in (dict, list):
        yield get_args(kind)[-1]
    else:
        for part in get_args(kind):
            yield from _below(part, key)


def _models(kind: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type expression
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)
