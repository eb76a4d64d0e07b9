"""Datastore endpoint strings, parsed as K3s' drivers parse them, to find a wrong one before a server starts.

Sources: docs.k3s.io `datastore/datastore.md`; kine `pkg/drivers` (the scheme before `://` selects the driver);
go-sql-driver/mysql's DSN grammar (nothing is percent-decoded); PostgreSQL's connection URIs (everything is).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from nornir_k3s.model.secret import Secret

Kind = Literal["mysql", "postgresql", "etcd"]
_SCHEMES: dict[str, Kind] = {
    "mysql": "mysql",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "http": "etcd",
    "https": "etcd",
}


PORTS: Mapping[Kind, int] = {"mysql": 3306, "postgresql": 5432, "etcd": 2379}


@dataclass(frozen=True)
class Endpoint:
    """The parts of an endpoint: the driver, the addresses and, of a database, the login."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    user: str = field(default="", compare=False)
    password: Secret = field(default=Secret(""), compare=False)
    database: str = field(default="", compare=False)
    parameters: Mapping[str, str] = field(default_factory=dict, compare=False)
    tls: bool = field(default=False, compare=False)


def build(endpoint: Endpoint) -> Secret:
    """Return the endpoint string, escaped for its driver; the inverse of `parse`.

    Unless `parameters` say otherwise, connecting times out after 10 s, and of several PostgreSQL hosts the writable one
    is used.

    Raises:
        ValueError: The driver cannot express it; the message says why.
    """
    hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in endpoint.hosts]
    user, password = endpoint.user, endpoint.password.reveal()
    if endpoint.kind == "etcd":
        scheme = "https" if endpoint.tls else "http"
        return Secret(",".join(f"{scheme}://{host}" for host in hosts))
    if endpoint.kind == "mysql":
        if ":" in user:
            raise ValueError("the driver does not support a MySQL user with a colon in its name")
        if len(hosts) > 1:
            raise ValueError("the driver for MySQL supports one host only: use a proxy or a floating address")
        query = urlencode({"timeout": "10s", **endpoint.parameters}, quote_via=quote, safe="")
        return Secret(f"mysql://{user}:{password}@tcp({hosts[0]})/{endpoint.database}?{query}")
    several = {"target_session_attrs": "read-write"} if len(hosts) > 1 else {}
    query = urlencode({"connect_timeout": "10", **several, **endpoint.parameters}, quote_via=quote, safe="")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return Secret(f"postgres://{login}@{','.join(hosts)}/{quote(endpoint.database, safe='')}?{query}")


def addresses(hosts: Sequence[str], port: int) -> tuple[tuple[str, int], ...]:
    """Return hosts and ports of `HOST`, `HOST:PORT`, `IPV6` and `[IPV6]:PORT`.

    Raises:
        ValueError: One of them has another form.
    """
    found = []
    for text in hosts:
        match = re.fullmatch(
            r"\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?|([0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)"
            r"|([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(\d{1,5}))?",
            text,
        )
        if not match or not 0 < int(match[2] or match[5] or port) < 65536:
            raise ValueError(f"{text!r} is not a host: write NAME, ADDRESS, NAME:PORT or [IPV6]:PORT")
        found.append((match[1] or match[3] or match[4], int(match[2] or match[5] or port)))
    return tuple(found)


def parse(endpoint: Secret) -> Endpoint:
    """Return the parts of an endpoint string.

    Arguments:
        endpoint: As in `datastore-endpoint`.

    Raises:
        ValueError: K3s would refuse it, or silently use another datastore; the message does not contain the string.
    """
    text = endpoint.reveal()
    if text != text.strip():
        raise ValueError("it has blanks around it: K3s would silently use a local datastore")
    scheme, separator, rest = text.partition("://")
    kind = _SCHEMES.get(scheme)
    if not separator or kind is None:
        raise ValueError(f"it must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
    if kind == "mysql":
        user, password, database, parameters = _mysql_login(rest)
        return Endpoint(kind, (_mysql(rest),), user, password, database, parameters)
    if kind == "postgresql":
        hosts = _postgresql(text)
        user, password, database, parameters = _postgresql_login(text)
        return Endpoint(kind, hosts, user, password, database, parameters)
    hosts = tuple(_etcd(url.strip()) for url in text.split(","))
    return Endpoint(kind, hosts, tls=text.startswith("https"))


def _mysql_login(rest: str) -> tuple[str, Secret, str, Mapping[str, str]]:
    # As go-sql-driver reads it: nothing is percent-decoded; the last `/`, the last `@`, then the first `:` divide it.
    head, _, tail = rest.rpartition("/")
    database, _, query = tail.partition("?")
    user, _, password = head.rpartition("@")[0].partition(":")
    return user or "root", Secret(password), database or "kubernetes", dict(parse_qsl(query))


def _postgresql_login(text: str) -> tuple[str, Secret, str, Mapping[str, str]]:
    netloc, _, tail = text.partition("://")[2].partition("/")
    database, _, query = tail.partition("?")
    user, _, password = netloc.rpartition("@")[0].partition(":")
    # kine converts the name to lower case.
    return (
        unquote(user) or "postgres",
        Secret(unquote(password)),
        unquote(database).lower() or "kubernetes",
        dict(parse_qsl(query)),
    )


def _mysql(rest: str) -> tuple[str, int]:
    # The driver splits at the last `/`, then at the last `@`: the password may contain both.
    head, slash, tail = rest.rpartition("/")
    if not slash:
        raise ValueError("the database is missing: mysql://user:password@tcp(host:3306)/database")
    if re.search(r"(^|&)tls=", tail.partition("?")[2]):
        raise ValueError("`tls=` cannot be used in it: set `cafile` instead, and K3s verifies the server with it")
    network = head.rpartition("@")[2]
    match = re.fullmatch(r"tcp\((.+?)(?::(\d+))?\)", network)
    if not match:
        raise ValueError("tcp( ) is missing around the address: mysql://user:password@tcp(host:3306)/database")
    return match[1].strip("[]"), int(match[2] or 3306)


def _postgresql(text: str) -> tuple[tuple[str, int], ...]:
    netloc = text.partition("://")[2]
    authority = re.split(r"[/?#]", netloc, maxsplit=1)[0]
    if netloc.count("@") > 1 or re.search(r"%(?![0-9A-Fa-f]{2})", authority) or "@" in netloc[len(authority) :]:
        raise ValueError("user and password must be percent-encoded in it: @ is %40, / is %2F, % is %25")
    hosts = []
    for part in authority.rpartition("@")[2].split(","):
        match = re.fullmatch(r"(\[[^\]]+\]|[^:]+)(?::(\d+))?", part)
        if not match:
            raise ValueError("the host is missing: postgres://user:password@host:5432/database")
        hosts.append((match[1].strip("[]"), int(match[2] or 5432)))
    return tuple(hosts)


def _etcd(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or 2379
    except ValueError:
        raise ValueError("one of its URLs cannot be read: https://host:2379") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("each of its URLs must be complete: https://host:2379,https://host:2379")
    if parts.username or parts.password:
        raise ValueError("K3s does not accept user and password in an etcd URL: set `certfile` and `keyfile`")
    return parts.hostname, port
