"""Datastore endpoints, read as kine's drivers read them (kine pkg/drivers, go-sql-driver/mysql, net/url, pgx)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from k3s_standin.log import Fatal

WRAP = "creating storage endpoint: failed to create driver for configured endpoint: "
_USERINFO = re.compile(r"(?:[A-Za-z0-9\-._:~!$&'()*+,;=@]|%[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9\-._~!$&'()*+;=]*)(?::\d*)?")


@dataclass
class Endpoint:
    """Where the datastore is."""

    kind: str
    user: str = ""
    password: str = field(default="", repr=False)
    hosts: list[tuple[str, int]] = field(default_factory=list)
    socket: str = ""
    database: str = "kubernetes"
    params: dict[str, str] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)


def parse(text: str) -> Endpoint:
    """Return the endpoint, or end as K3s would."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise Fatal(
            WRAP + "invalid datastore endpoint; endpoint should be a DSN URI in the format <scheme>://<authority>"
        )
    if scheme == "mysql":
        return _mysql(rest)
    if scheme in ("postgres", "postgresql"):
        return _postgres(rest)
    if scheme in ("http", "https"):
        return Endpoint("etcd", urls=[url.strip() for url in text.split(",")])
    raise Fatal(WRAP + "unknown driver")


def _mysql(rest: str) -> Endpoint:
    """go-sql-driver's grammar: last `/`, then last `@`, then first `:`; nothing but the name is percent-decoded."""
    if not rest:
        return Endpoint("mysql", user="root", socket="/var/run/mysqld/mysqld.sock")
    head, slash, tail = rest.rpartition("/")
    if not slash:
        raise Fatal(WRAP + "invalid DSN: missing the slash separating the database name")
    database, _, query = tail.partition("?")
    credentials, _, network = head.rpartition("@")
    user, _, password = credentials.partition(":")
    params = {name: unquote(value) for name, _, value in (pair.partition("=") for pair in query.split("&")) if name}
    found = Endpoint("mysql", user, password, database=unquote(database) or "kubernetes", params=params)
    net, opened, address = network.partition("(")
    if opened and not address.endswith(")"):
        problem = "did you forget to escape a param value?" if ")" in address else (
            "network address not terminated (missing closing brace)"
        )  # fmt: skip
        raise Fatal(WRAP + f"invalid DSN: {problem}")
    address = address[:-1] if opened else ""
    if net == "unix":
        found.socket = address or "/tmp/mysql.sock"
        return found
    if net not in ("", "tcp"):
        if not address:
            raise Fatal(WRAP + f"default addr for network '{net}' unknown")
        raise Fatal(WRAP + f"dial {net}: unknown network {net}")
    found.hosts = [_host_port(address or "127.0.0.1:3306", 3306)]
    return found


def _host_port(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), default
    if not port.isdigit():
        raise Fatal(WRAP + f"dial tcp: lookup tcp/{port}: unknown port")
    return host.strip("[]"), int(port)


def _postgres(rest: str) -> Endpoint:
    """A URL as Go reads it: what is reserved in user and password must be percent-encoded."""
    if not rest:
        return Endpoint("postgres", "postgres", "postgres", [("localhost", 5432)])
    match = re.fullmatch(r"([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?", rest, re.DOTALL)
    authority, path, query = match.groups() if match else ("", "", "")
    credentials, _, hosts = authority.rpartition("@")
    broken = re.search(r"%(?![0-9A-Fa-f]{2})|[\x00-\x20\x7f]", rest)
    if broken or not _USERINFO.fullmatch(credentials) or not all(_HOST.fullmatch(h) for h in hosts.split(",")):
        raise Fatal(
            WRAP
            + "error parsing URL. Ensure that any embedded values such as username & password have been URL encoded"
        )
    user, _, password = credentials.partition(":")
    return Endpoint(
        "postgres",
        unquote(user) or "root",
        unquote(password),
        [_host_port(host or "localhost", 5432) for host in hosts.split(",")],
        database=(unquote((path or "").lstrip("/")) or "kubernetes").lower(),
        params=dict(parse_qsl(query or "")),
    )
