"""Datastore endpoints, read as kine's drivers read them (kine pkg/drivers, go-sql-driver/mysql, pgx)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from k3s_standin.log import Fatal

WRAP = "creating storage endpoint: failed to create driver for configured endpoint: "


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
        return _postgres(text)
    if scheme in ("http", "https"):
        return Endpoint("etcd", urls=[u.strip() for u in text.split(",")])
    raise Fatal(WRAP + "unknown driver")


def _mysql(rest: str) -> Endpoint:
    """go-sql-driver's grammar: last `/`, then last `@`, then first `:`; nothing is percent-decoded."""
    if not rest:
        return Endpoint("mysql", user="root", socket="/var/run/mysqld/mysqld.sock")
    head, slash, tail = rest.rpartition("/")
    if not slash:
        raise Fatal(WRAP + "invalid DSN: missing the slash separating the database name")
    database, _, query = tail.partition("?")
    credentials, _, network = head.rpartition("@")
    user, _, password = credentials.partition(":")
    found = Endpoint("mysql", user, password, database=unquote(database) or "kubernetes", params=dict(parse_qsl(query)))
    if not network:
        network = "tcp(127.0.0.1:3306)"
    match = re.fullmatch(r"([a-z0-9]+)\((.*)\)", network)
    if not match:
        if "(" in network:
            raise Fatal(WRAP + "invalid DSN: network address not terminated (missing closing brace)")
        raise Fatal(WRAP + f"default addr for network '{network}' unknown")
    kind, address = match.groups()
    if kind == "unix":
        found.socket = address
        return found
    host, _, port = address.rpartition(":") if ":" in address and not address.endswith("]") else (address, "", "3306")
    found.hosts = [(host.strip("[]"), int(port))]
    return found


def _postgres(text: str) -> Endpoint:
    try:
        url = urlsplit(text)
        netloc = url.netloc
        if re.search(r"%(?![0-9A-Fa-f]{2})", netloc) or netloc.count("@") > 1 or "#" in text:
            raise ValueError("bad")
        credentials, _, hosts = netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        pairs = []
        for part in hosts.split(","):
            host, _, port = part.rpartition(":") if ":" in part else (part, "", "5432")
            pairs.append((host, int(port)))
    except ValueError:
        raise Fatal(
            WRAP
            + "error parsing URL. Ensure that any embedded values such as username & password have been URL encoded"
        ) from None
    return Endpoint(
        "postgres",
        unquote(user) or "postgres",
        unquote(password),
        pairs,
        database=(unquote(url.path.lstrip("/")) or "kubernetes").lower(),
        params=dict(parse_qsl(url.query)),
    )
