"""The settings of a cluster in the inventory: one class per mapping, every field with its description."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nornir_k3s.model.endpoint import PORTS, Endpoint, Kind, addresses, build
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.value_types import Command, LocalPath, Parameter, Reference, Strict, Url


class ManagedDatastore(Strict):
    """A datastore that this tool sets up on the host of group datastore."""

    kind: Literal["mariadb", "mysql", "postgresql", "etcd"] = Field(description="from the host's own packages")
    database: str = Field("k3s", pattern=r"^[a-z][a-z0-9_]{0,47}$")
    user: str = Field(
        "k3s", pattern=r"^[a-z][a-z0-9_]{0,22}$", description="the users' names begin with it; _ and 8 digits follow"
    )
    password: Reference | None = Field(None, description="a reference; generated when absent")
    tls: bool = Field(True, description="with a CA of the cluster's own, which the servers verify")
    shared: bool = Field(
        False, description="others use it, too: only this cluster's database and users are added, no setting is changed"
    )

    @model_validator(mode="before")
    @classmethod
    def _shared(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        """Leave the certificate of a shared server as it is: it is one for all of its users."""
        return {"tls": False, **value} if isinstance(value, dict) and value.get("shared") is True else value

    @model_validator(mode="after")
    def _etcd(self) -> ManagedDatastore:
        if self.kind == "etcd" and self.shared:
            raise ValueError("K3s needs an etcd of its own: it has no prefix for all of its keys; remove `shared`")
        if self.shared and self.tls:
            raise ValueError(
                "the certificate of a shared server is one for all of its users: remove `tls`; "
                "or give the datastore as fields, with its CA as `cafile`"
            )
        if self.kind == "etcd" and self.model_fields_set & {"database", "user", "password"}:
            raise ValueError("etcd has no database, user or password: K3s uses a client certificate")
        if self.kind == "etcd" and not self.tls:
            raise ValueError("without TLS everybody could read and write etcd: remove `tls: false`")
        return self


class ExternalDatastore(Strict):
    """An external datastore, as K3s' endpoint string (docs: datastore/datastore.md)."""

    endpoint: Reference = Field(description="a reference to the endpoint string, which contains a password")
    cafile: LocalPath | None = Field(None, description="the CA that servers verify the datastore with; it is delivered")
    certfile: LocalPath | None = None
    keyfile: LocalPath | None = None
    dump_command: Command | None = Field(
        None,
        description="run on this machine before K3s is replaced: words, or a text that is split as a shell would",
    )

    @model_validator(mode="before")
    @classmethod
    def _not_both(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        if isinstance(value, dict) and "kind" in value:
            raise ValueError("`endpoint` is complete: give it alone, or `kind` and `hosts` instead")
        return value

    @model_validator(mode="after")
    def _pair(self) -> ExternalDatastore:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together: one of them is missing")
        return self


class DatastoreFields(Strict):
    """An external datastore, as fields: the endpoint is built from them and escaped for its driver."""

    kind: Literal["mysql", "mariadb", "postgresql", "etcd"]
    hosts: list[str] = Field(min_length=1, description="HOST or HOST:PORT each; several for PostgreSQL and etcd only")
    port: int | None = Field(None, ge=1, le=65535, description="of hosts without one; default: the kind's port")
    database: str | None = Field(None, pattern=r"^[A-Za-z0-9_$-]{1,63}$", description="default: k3s")
    user: str | None = Field(None, min_length=1, description="default: k3s")
    password: Reference | None = Field(None, description="a reference")
    parameters: dict[str, Parameter] = Field(
        default_factory=dict, description="more parameters of the driver, such as sslmode"
    )
    tls: bool = Field(True, description="false: etcd over http, PostgreSQL with sslmode=disable")
    cafile: LocalPath | None = Field(None, description="the CA that servers verify the datastore with; it is delivered")
    certfile: LocalPath | None = None
    keyfile: LocalPath | None = None
    dump_command: Command | None = Field(
        None,
        description="run on this machine before K3s is replaced: words, or a text that is split as a shell would",
    )

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
            return "TLS files and `tls: false` exclude each other"
        if self.kind == "etcd":
            if self.database or self.user or self.password or self.parameters:
                return "etcd has no database, user, password or parameters: give `certfile` and `keyfile`"
            return ""
        if secret := {"password", "sslpassword"} & set(self.parameters):
            return (
                f"`parameters` cannot have {' and '.join(sorted(secret))}: give `password`, or `endpoint`, a reference"
            )
        if self.password is None:
            return "the password is missing: give a reference, as {file: PATH}"
        if self.kind == "postgresql" and self.database and self.database != self.database.lower():
            return "K3s converts the name of a PostgreSQL database to lower case: use a lower-case name"
        if self.kind != "postgresql" and not self.tls:
            return "K3s uses TLS where the server has it: `tls: false` is for etcd and PostgreSQL"
        if self.kind != "postgresql" and "tls" in self.parameters:
            return "`tls` cannot be used: give `cafile` instead, and K3s verifies the server with it"
        return ""

    def endpoint(self, password: Secret) -> Secret:
        """Return K3s' endpoint string.

        Raises:
            ValueError: The kind's driver cannot express it; the message says why.
        """
        kind: Kind = "mysql" if self.kind == "mariadb" else self.kind
        hosts = addresses(self.hosts, self.port or PORTS[kind])
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

    max_open: int | None = Field(
        None, ge=1, le=100000, description="maximum number of connections; K3s itself sets no limit"
    )
    max_idle: int | None = Field(
        None, ge=1, le=100000, description="maximum number of idle connections; best the same as max_open"
    )
    max_lifetime: str | None = Field(
        None,
        pattern=r"^([0-9]+(h|m|s))+$",
        description="maximum age of a connection, such as 5m; K3s' default: no limit",
    )

    @model_validator(mode="after")
    def _fits(self) -> DatastorePool:
        if (self.max_open, self.max_idle, self.max_lifetime) == (None, None, None):
            raise ValueError("give `max_open`, `max_idle` or `max_lifetime`")
        if self.max_open and self.max_idle and self.max_idle > self.max_open:
            raise ValueError(f"max_idle ({self.max_idle}) is more than max_open ({self.max_open})")
        return self


class Artifacts(Strict):
    """Where K3s comes from: a folder, or the release of the cluster's version from GitHub or a mirror."""

    folder: LocalPath | None = Field(
        None,
        description="contains k3s, install.sh and, if the hosts cannot pull, images; or a folder of each version",
    )
    url: Url | None = Field(
        None, description="a mirror with the same layout, or a reference; default: K3s' releases on GitHub"
    )
    channels: str = Field(
        "",
        pattern=r"^(https?://[^\s@]+)?$",
        description="a mirror of https://update.k3s.io/v1-release/channels, for the newest patch of a minor version",
    )
    images: bool = Field(False, description="also copy the release's air-gap images to every server and agent")
    push: bool = Field(True, description="false: the hosts download from `url` themselves, with the same verification")

    @model_validator(mode="after")
    def _one_source(self) -> Artifacts:
        if self.folder and (self.url or self.images or self.channels or not self.push):
            raise ValueError("with `folder` there is nothing to download: remove url, channels, images and push")
        if self.images and not self.push:
            raise ValueError("images are always pushed: remove `images`, or `push: false`")
        return self


class Proxy(Strict):
    """The proxy that K3s and its containerd use to pull images."""

    http: Url | None = Field(None, description="a URL; a reference, if it has a password in it")
    https: Url | None = Field(None, description="likewise")
    no_proxy: list[Annotated[str, Field(pattern=r"^[^\s,\"\\$`]+$")]] = Field(
        default_factory=list, description="in addition to the cluster's own addresses"
    )

    @model_validator(mode="after")
    def _something(self) -> Proxy:
        if not self.http and not self.https:
            raise ValueError("give `http`, `https` or both")
        return self


_ACCOUNT = r"^[a-z_][-a-z0-9_]{0,30}[$]?$"


class FileOfUser(Strict):
    """A text file of your own on servers, agents or both: one that a K3s setting names, for instance."""

    path: str = Field(pattern=r"^/[^\x00-\x1f]+$", description="on the hosts")
    source: LocalPath | None = Field(None, description="on the controller")
    secret: Reference | None = Field(None, description="a reference to its text, instead of `source`")
    mode: str = Field("0600", pattern=r"^0?[0-7]{3}$", description='in quotes, such as "0644"')
    owner: str = Field("root", pattern=_ACCOUNT)
    group: str = Field("root", pattern=_ACCOUNT)
    roles: list[Literal["servers", "agents"]] = Field(["servers", "agents"], min_length=1, description="the hosts")
    restart: bool = Field(True, description="K3s restarts when the file changes, one server after the other")

    @model_validator(mode="after")
    def _one_source(self) -> FileOfUser:
        if (self.source is None) == (self.secret is None):
            raise ValueError("give `source` or `secret`, one of them")
        return self


class KnownDifference(Strict):
    """Known drift that is accepted until a date."""

    id: str = Field(min_length=1, description="as `drift` shows it, HOST/KIND:SUBJECT; * matches anything")
    reason: str = Field(min_length=1, description="why, for readers of the report")
    until: date = Field(
        strict=False, description="the last day, such as 2027-01-31; after it the difference counts again"
    )
