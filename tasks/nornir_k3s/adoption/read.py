"""What is read from a host for an inventory of its cluster: with a first script what is there, then the files of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nornir_k3s import facts, k3s, shell
from nornir_k3s.errors import UnreadableAnswer
from nornir_k3s.facts.nodes import nodes
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.machine_facts import Address
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.records import SAY, Record, RecordError, decoded, read

DATABASES = {"mariadb": "MariaDB", "mysql": "MySQL", "mysqld": "MySQL", "postgresql": "PostgreSQL", "etcd": "etcd"}
Role = Literal["servers", "agents", "lb", "datastore", ""]


@dataclass(frozen=True)
class HostFile:
    """A file that a setting names."""

    text: Secret
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class Found:
    """What is on a host.

    Arguments:
        node_name: That of its own node, as K3s makes it.
        installed: Every K3s.
        nodes: The nodes of the cluster, as this server lists them; None if it did not.
        urls: The URL that the environment of an agent has, by its node (k3s: pkg/nodeconfig, `k3s.io/node-env`).
        config: The settings that this server runs with, as K3s tells them; None if it did not.
        token, agent_token: Of the cluster, from the server's files; empty if it has none.
        ca: `K10` and the hash of the cluster's CA.
        version: Of the installed K3s.
        active: Units that run.
        texts: Configurations of HAProxy and keepalived, by path.
        ours: This tool has written files there.
        etcd, sqlite: Data of an embedded datastore are there.
    """

    hostname: str
    addresses: tuple[Address, ...] = ()
    installed: tuple[Installed, ...] = ()
    nodes: tuple[NodeState, ...] | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    token: Secret = field(default=Secret(""))
    agent_token: Secret = field(default=Secret(""))
    ca: str = ""
    version: str = ""
    active: frozenset[str] = frozenset()
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    ours: bool = False
    etcd: bool = False
    sqlite: bool = False

    @property
    def k3s(self) -> Installed | None:
        """The K3s that counts: the one that runs, else one that starts at boot."""
        order = sorted(self.installed, key=lambda one: (not one.active, not one.enabled, one.role != "server"))
        return order[0] if order else None

    @property
    def role(self) -> Role:
        """What this host is for, by what runs there."""
        if one := self.k3s:
            return "servers" if one.role == "server" else "agents"
        if self.active & {"haproxy", "keepalived"}:
            return "lb"
        return "datastore" if self.active & DATABASES.keys() else ""

    @property
    def node_name(self) -> str:
        """The name of its node."""
        own = self.k3s.text("node-name") if self.k3s else ""
        return (own or self.hostname).lower()


def script() -> str:
    """Return the script that reads a host; it writes nothing there."""
    sources = ("facts/system.sh", "facts/network.sh", "facts/k3s_installed.sh", "adoption/read.sh")
    calls = [
        "fact_system",
        "fact_addresses",
        shell.call("fact_installations", STATE, "everything"),
        shell.call("adoption_host", k3s.DATA),
    ]
    return "\n".join([SAY, *map(shell.source, sources), *calls, "say end", ""])


def files_script(paths: Iterable[str], names: Iterable[str]) -> str:
    """Return the script that reads files, and resolves names as this host does."""
    sources = ("facts/network.sh", "adoption/read.sh")
    calls = [shell.call("adoption_files", *paths), shell.call("fact_names", *names)]
    return "\n".join([SAY, *map(shell.source, sources), *calls, "say end", ""])


def parse(host: str, text: str) -> Found:
    """Return what the first script printed.

    Raises:
        UnreadableAnswer: It is not what the script prints.
    """
    common = facts.parse(host, text)
    try:
        records = read(text).get("adoption", [])
        return _found(common.system.hostname, common.addresses, common.installations, records)
    except (RecordError, IndexError) as error:
        raise UnreadableAnswer(host, f"adoption: {error}") from None


def _found(
    hostname: str, addresses: tuple[Address, ...], installed: tuple[Installed, ...], records: Sequence[Record]
) -> Found:
    one: dict[str, str] = {}
    texts: dict[str, str] = {}
    active = set()
    for record in records:
        if record[0] == "text":
            _, path, content = record.take(3)
            texts[path] = decoded(content)
            continue
        kind, value = record.take(2)
        if kind == "active":
            active.add(value)
        one[kind] = value
    token = decoded(one.get("token", "")).strip()
    return Found(
        hostname=hostname,
        addresses=addresses,
        installed=installed,
        nodes=nodes(decoded(one["nodes"])) if one.get("nodes") else None,
        urls=_urls(decoded(one.get("nodes", ""))),
        config=_config(decoded(one.get("config", ""))),
        token=Secret(password_of(token)),
        agent_token=Secret(password_of(decoded(one.get("agent-token", "")).strip())),
        ca=token[:67] if token.startswith("K10") else "",
        version=one.get("version", ""),
        active=frozenset(active),
        texts=texts,
        ours="ours" in one,
        etcd="etcd" in one,
        sqlite="sqlite" in one,
    )


def _urls(text: str) -> dict[str, str]:
    found = {}
    for item in json.loads(text)["items"] if text else ():
        variables = _config((item["metadata"].get("annotations") or {}).get("k3s.io/node-env", "")) or {}
        if variables.get("K3S_URL"):
            found[item["metadata"]["name"]] = str(variables["K3S_URL"])
    return found


def _config(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def password_of(token: str) -> str:
    """Return the password in a token of any form (k3s: pkg/clientaccess/token.go)."""
    return re.sub(r"^K10[0-9a-f]*::[^:]*:", "", token)


def parse_files(host: str, text: str) -> tuple[dict[str, HostFile], Mapping[str, tuple[str, ...]]]:
    """Return the files of the second script by path, and the addresses of names.

    Raises:
        UnreadableAnswer: It is not what the script prints.
    """
    names = facts.parse(host, text).names
    found = {}
    try:
        for record in read(text).get("adoption", []):
            _, path, mode, owner, group, content = record.take(6)
            found[path] = HostFile(Secret(decoded(content)), int(mode, 8), owner, group)
    except (RecordError, ValueError) as error:
        raise UnreadableAnswer(host, f"adoption: {error}") from None
    return found, names


def token_of(found: Found) -> Secret:
    """Return the token: of the server's own file, since its settings may have it in another form, or changed since."""
    own = found.k3s
    return found.token or Secret(password_of(own.text("token")) if own else "")


def agent_token(found: Found) -> Secret | None:
    """Return the agent token; None where the server has none of its own."""
    own = found.k3s
    token = found.agent_token or Secret(password_of(own.text("agent-token")) if own else "")
    return token if token and token != token_of(found) else None
