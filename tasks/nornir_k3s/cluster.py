"""Cluster: what must be true, typed, from a Nornir inventory. No host is contacted here.

Cluster-wide settings stand once, in the inventory's defaults under `k3s_cluster`; those of one host (or group) stand in
its data under `k3s`, by the names K3s gives them. All problems are reported at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nornir.core.inventory import Host, Inventory
from pydantic import ValidationError

from nornir_k3s import k3s
from nornir_k3s.datastores.endpoint import parse as parse_endpoint
from nornir_k3s.errors import InventoryError, K3sError
from nornir_k3s.schema import Artifacts, ClusterModel, ExternalDatastore, LoadBalancer, ManagedDatastore, Registration
from nornir_k3s.secret import Secret
from nornir_k3s.vault import Vault

Setting = str | int | bool | list[str]
ROLES = ("datastore", "servers", "agents", "lb")
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
# Keys of a host's `k3s` data that are this tool's and not K3s'.
_HOST_KEYS = {"address", "interface", "priority"}


@dataclass(frozen=True)
class Member:
    """One host of the cluster.

    Arguments:
        name: Its name in the inventory.
        role: datastore, servers, agents or lb.
        address: The IP address the other hosts reach it at.
        node_name: Its name as a Kubernetes node (servers and agents).
        settings: Its own K3s settings, without the cluster-wide ones.
        interface: Where a load balancer holds the VIP; found on the host when empty.
    """

    name: str
    role: str
    address: str
    node_name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    interface: str = ""


@dataclass(frozen=True)
class Cluster:
    """The desired state of one cluster; see the fields of the same names in the inventory."""

    name: str
    version: str
    token: Secret
    agent_token: Secret | None
    registration: Registration
    datastore: ManagedDatastore | ExternalDatastore
    datastore_password: Secret
    endpoint: Secret | None
    artifacts: Artifacts
    server: Mapping[str, Setting]
    agent: Mapping[str, Setting]
    server_taint: bool
    lb: LoadBalancer
    members: tuple[Member, ...]

    def of(self, role: str) -> tuple[Member, ...]:
        """Return the members of one role, in the inventory's order."""
        return tuple(m for m in self.members if m.role == role)

    def member(self, name: str) -> Member:
        """Return the member with this inventory name."""
        return next(m for m in self.members if m.name == name)

    @property
    def url(self) -> str:
        """The fixed registration address as a URL."""
        host = self.registration.name or str(self.registration.address)
        return f"https://{host}:{self.registration.port}"

    @property
    def names(self) -> list[str]:
        """Every name and address of the registration address, for tls-san."""
        return [n for n in (str(self.registration.address or ""), self.registration.name or "") if n]

    def secrets(self) -> list[Secret]:
        """Return every secret, so that a session can mask what a host says."""
        return [s for s in (self.token, self.agent_token, self.datastore_password, self.endpoint) if s]


def load(inventory: Inventory, *, vault: Vault, base: Path) -> Cluster:
    """Return the cluster an inventory describes.

    Arguments:
        inventory: Nornir's inventory, from any plugin.
        vault: Where generated secrets are kept and references are resolved.
        base: The folder that relative paths in the inventory are relative to.

    Raises:
        InventoryError: With every problem found.
    """
    raw = inventory.defaults.data.get("k3s_cluster")
    if not isinstance(raw, dict):
        raise InventoryError(["defaults: `data.k3s_cluster` is missing: it holds the settings of the whole cluster"])
    problems: list[str] = []
    try:
        model = ClusterModel.model_validate(raw)
    except ValidationError as error:
        problems += [f"k3s_cluster.{line}" for line in _lines(error)]
        model = None
    groups: dict[str, str] = {str(role): name for role, name in model.groups.items()} if model else {}
    members = _members(inventory, groups, problems)
    if not any(member.role == "servers" for member in members):
        problems.append("group servers: it has no host; a cluster needs at least one server")
    if model is None:
        raise InventoryError(problems)
    problems += _cluster_problems(model, members)
    resolved: dict[str, Secret | None] = {}
    if not problems:  # references may run commands and generation writes files: only for an inventory that is right
        resolved = _secrets(model, vault, problems)
    if problems:
        raise InventoryError(problems)
    token = resolved["token"]
    if token is None:
        raise InventoryError(["k3s_cluster.token: it has no value"])
    return Cluster(
        name=model.name,
        version=model.version,
        token=token,
        agent_token=resolved["agent_token"],
        registration=model.registration,
        datastore=model.datastore,
        datastore_password=resolved["password"] or Secret(""),
        endpoint=resolved["endpoint"],
        artifacts=model.artifacts.model_copy(update={"folder": (base / model.artifacts.folder).resolve()}),
        server=_listed(model.server),
        agent=_listed(model.agent),
        server_taint=model.server_taint,
        lb=model.lb,
        members=tuple(members),
    )


def _lines(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"] if part not in ("managed", "external"))
        for line in item["msg"].removeprefix("Value error, ").splitlines():
            yield f"{where or 'k3s_cluster'}: {line}"


def _listed(settings: Mapping[str, Any]) -> dict[str, Setting]:
    return {
        key: ([value] if key in k3s.LISTS and not isinstance(value, list) else value) for key, value in settings.items()
    }


def role_of(host: Host, groups: Mapping[str, str]) -> list[str]:
    """Return the roles whose group (or a group below it) this host is in."""
    return [role for role in ROLES if host.has_parent_group(groups.get(role, role))]


def _members(inventory: Inventory, groups: Mapping[str, str], problems: list[str]) -> list[Member]:
    members = []
    for host in inventory.hosts.values():
        roles = role_of(host, groups)
        if not roles:
            continue  # a host of the team's that has nothing to do with this cluster
        if len(roles) > 1:
            problems.append(f"{host.name}: it is in {' and '.join(roles)}; a host has one role")
            continue
        member = _member(host, roles[0], problems)
        if member:
            members.append(member)
    for role in ("servers", "agents"):
        _duplicates("node name", [(m.name, m.node_name) for m in members if m.role == role], problems)
    _duplicates("address", [(m.name, m.address) for m in members], problems)
    return members


def _duplicates(what: str, pairs: list[tuple[str, str]], problems: list[str]) -> None:
    first: dict[str, str] = {}
    for name, value in pairs:
        if value in first:
            problems.append(f"{name}: it has the same {what} as {first[value]}: {value}")
        first.setdefault(value, name)


def _member(host: Host, role: str, problems: list[str]) -> Member | None:
    data = host.get("k3s") or {}
    if not isinstance(data, dict):
        problems.append(f"{host.name}: `k3s` must be a mapping of settings")
        return None
    own = {key: data[key] for key in data if key in _HOST_KEYS}
    settings = {key: value for key, value in data.items() if key not in _HOST_KEYS}
    problems += [f"{host.name}: k3s: {p}" for p in _host_problems(role, settings)]
    node_ip = settings.get("node-ip")
    first = str(
        node_ip[0]
        if isinstance(node_ip, list) and node_ip
        else node_ip or own.get("address") or host.hostname or host.name
    )
    address = first.split(",", maxsplit=1)[0]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        wanted = "k3s.node-ip" if role in ("servers", "agents") else "k3s.address"
        problems.append(
            f"{host.name}: {address!r} is not an IP address; give the address the other hosts use as `{wanted}`"
        )
        return None
    node_name = str(settings.get("node-name") or host.name).lower()
    if role in ("servers", "agents") and (not _NAME.match(node_name) or node_name == "localhost"):
        problems.append(
            f"{host.name}: {node_name!r} cannot be a node's name: letters, digits, - and . only, and not localhost"
        )
    return Member(host.name, role, address, node_name, _listed(settings), str(own.get("interface") or ""))


def _host_problems(role: str, settings: Mapping[str, Any]) -> Iterator[str]:
    if role in ("datastore", "lb"):
        yield from (f"`{key}` is a K3s setting, and no K3s runs on a host of group {role}" for key in settings)
        return
    shared = [key for key in settings if key.rstrip("+") in k3s.MUST_MATCH]
    yield from (f"`{key}` must be the same on all servers: give it under k3s_cluster.server" for key in shared)
    known = k3s.SERVER_SETTINGS if role == "servers" else k3s.AGENT_SETTINGS
    yield from k3s.unknown_settings([key for key in settings if key not in shared], known)


def _cluster_problems(model: ClusterModel, members: list[Member]) -> Iterator[str]:
    count = {role: sum(m.role == role for m in members) for role in ROLES}
    managed = isinstance(model.datastore, ManagedDatastore)
    if isinstance(model.datastore, ManagedDatastore) and count["datastore"] != 1:
        yield f"group datastore: a managed {model.datastore.kind} takes exactly one host, it has {count['datastore']}"
    if not managed and count["datastore"]:
        yield "group datastore: it has hosts, but k3s_cluster.datastore.endpoint names a datastore someone else runs"
    if model.registration.managed and not count["lb"]:
        yield "group lb: it has no host; add some, or say `registration: {managed: false}` for one you run yourself"
    if not model.registration.managed and count["lb"]:
        yield "group lb: it has hosts, but k3s_cluster.registration.managed is false"
    for member in members:
        if model.registration.managed and member.address == str(model.registration.address):
            yield f"k3s_cluster.registration.address: {member.address} is the address of host {member.name}"


def _secrets(model: ClusterModel, vault: Vault, problems: list[str]) -> dict[str, Secret | None]:
    wanted: dict[str, Callable[[], Secret | None]] = {
        "token": lambda: vault.secret("token", model.token, make=k3s.new_token),
        "agent_token": lambda: vault.secret("agent-token", model.agent_token) if model.agent_token else None,
        "password": lambda: _password(model, vault),
        "endpoint": lambda: (
            vault.secret("endpoint", model.datastore.endpoint)
            if isinstance(model.datastore, ExternalDatastore)
            else None
        ),
    }
    found: dict[str, Secret | None] = {}
    for key, get in wanted.items():
        try:
            found[key] = get() or None
        except K3sError as error:
            problems.append(f"k3s_cluster.{key}: {error.message}")
    endpoint = found.get("endpoint")
    if endpoint:
        try:
            parse_endpoint(endpoint)
        except ValueError as error:
            problems.append(f"k3s_cluster.datastore.endpoint: {error}")
    for key in ("token", "agent_token"):
        secret = found.get(key)
        if secret and (problem := k3s.token_problem(secret)):
            problems.append(f"k3s_cluster.{key}: {problem}")
    return found


def _password(model: ClusterModel, vault: Vault) -> Secret | None:
    if not isinstance(model.datastore, ManagedDatastore):
        return None  # it is part of the endpoint
    return vault.secret("datastore-password", model.datastore.password, make=k3s.new_token)
