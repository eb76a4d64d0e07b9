"""The desired state of one cluster, and its hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from nornir_k3s.model.datastore_keys import Keys
from nornir_k3s.model.load_balancer import LoadBalancer
from nornir_k3s.model.masking import has_credentials
from nornir_k3s.model.registration import Registration
from nornir_k3s.model.rolling_update import RollingUpdate
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import (
    Artifacts,
    DatastoreFields,
    DatastorePool,
    ExternalDatastore,
    KnownDifference,
    ManagedDatastore,
    Proxy,
)

Setting = str | int | bool | Secret | list[Any]  # of texts, and Secrets where references were
ROLES = ("datastore", "servers", "agents", "lb")
NODES = ("servers", "agents")


@dataclass(frozen=True)
class Member:
    """One host of the cluster.

    Arguments:
        name: Its name in the inventory.
        role: datastore, servers, agents or lb; of a host with several, that of its K3s, or the first one.
        address: The IP address that the other hosts connect to.
        node_name: Its name as a Kubernetes node (servers and agents).
        settings: Its own K3s settings, without the cluster-wide ones.
        interface: The interface of a load balancer for the VIP; found on the host if empty.
        beside: Its other roles: a server may be a load balancer, and a host of the datastore, too.
    """

    name: str
    role: str
    address: str
    node_name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    interface: str = ""
    beside: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """All its roles, in the order of `ROLES`."""
        return tuple(role for role in ROLES if role == self.role or role in self.beside)

    @property
    def addresses(self) -> list[str]:
        """All IP addresses that the other hosts may connect to, the first one first."""
        more = self.settings.get("node-ip", [])
        return list(dict.fromkeys([self.address, *(more if isinstance(more, list) else [str(more)])]))


@dataclass(frozen=True)
class UserFile:
    """A file of the user's, or one of the manifests, with its text."""

    path: str
    text: Secret
    mode: int = 0o600
    owner: str = "root"
    group: str = "root"
    roles: tuple[str, ...] = ("servers",)
    restart: bool = True


@dataclass(frozen=True)
class Cluster:
    """The desired state of one cluster; its fields are those of the inventory.

    Arguments:
        delivered: Contents of the operator's files that are copied to hosts: `registries`, `datastore-cafile`,
            `datastore-certfile`, `datastore-keyfile`.
        files: The user's own files and manifests.
        file_secrets: The texts of those that are references.
        urls: Those of `proxy.http`, `proxy.https` and `artifacts.url` that are given.
        take_over: Hosts whose database or load balancer serves others, and may be configured anew.
        notes: What the inventory says that people may not have meant.
        former_vips: Those of before a change that load balancers hold until no host uses them.
        hidden: Notes about settings of groups or of the whole cluster that nearer ones hide.
        token_given: The inventory refers to the token: it is the user's, and never changed by this tool.
        left: Servers and agents that were members and are not in the inventory any more, until they were removed.
        left_others: The same of load balancers and hosts of the datastore.
    """

    name: str
    version: str
    token: Secret
    agent_token: Secret | None
    registration: Registration
    datastore: ManagedDatastore | ExternalDatastore | DatastoreFields
    datastore_password: Secret
    keys: Keys | None
    endpoint: Secret | None
    datastore_pool: DatastorePool | None
    artifacts: Artifacts
    server: Mapping[str, Setting]
    agent: Mapping[str, Setting]
    server_taint: bool
    lb: LoadBalancer
    delivered: Mapping[str, Secret]
    proxy: Proxy | None
    accept: tuple[str, ...]
    known_drift: tuple[KnownDifference, ...]
    members: tuple[Member, ...]
    files: tuple[UserFile, ...] = ()
    file_secrets: tuple[Secret, ...] = ()
    urls: Mapping[str, Secret] = field(default_factory=dict)
    take_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    former_vips: tuple[str, ...] = ()
    left: tuple[Member, ...] = ()
    token_given: bool = False
    left_others: tuple[Member, ...] = ()
    rolling_update: RollingUpdate = field(default_factory=lambda: RollingUpdate.model_validate({}))

    def of(self, role: str) -> tuple[Member, ...]:
        """Return the members of one role, in the inventory's order."""
        return tuple(m for m in self.members if role in m.roles)

    @property
    def serving(self) -> tuple[Member, ...]:
        """The servers, and among them, by address, those that have left the inventory and still run."""
        found = list(self.of("servers"))
        for one in (member for member in self.left if member.role == "servers"):
            found.insert(sum(_number(other) < _number(one) for other in found), one)
        return tuple(found)

    def member(self, name: str) -> Member:
        """Return the member with this inventory name."""
        return next(m for m in self.members if m.name == name)

    @property
    def url(self) -> str:
        """The fixed registration address as a URL."""
        host = self.registration.name or str(self.registration.address)
        return f"https://{f'[{host}]' if ':' in host else host}:{self.registration.port}"

    @property
    def vips(self) -> list[str]:
        """The addresses that move between the load balancers, that of the registration first."""
        if self.registration.way != "vip":
            return []
        return [str(self.registration.address), *map(str, self.lb.vips), *self.former_vips]

    @property
    def names(self) -> list[str]:
        """The names and addresses of the registration address, for tls-san."""
        more = (str(self.registration.address or ""), *map(str, self.lb.vips), self.registration.name or "")
        return [name for name in more if name]

    def settings_of(self, member: Member) -> dict[str, Setting]:
        """Return a node's K3s settings of the inventory: those of its role, and its own instead of them."""
        return {**(self.server if member.role == "servers" else self.agent), **member.settings}

    @property
    def ip_version(self) -> int:
        """The IP version of the servers' first address: K3s' default networks follow it."""
        return 6 if ":" in self.of("servers")[0].address else 4

    @property
    def own_cni(self) -> bool:
        """Whether the network of pods is the user's: K3s then brings none, and nodes are Ready only with it."""
        return self.server.get("flannel-backend") == "none"

    @property
    def awaits_cni(self) -> bool:
        """Whether agents tell systemd only when the user's CNI runs: K3s' own network policies wait for it."""
        return self.own_cni and not self.server.get("disable-network-policy")

    @property
    def is_managed(self) -> bool:
        """Whether this tool sets the datastore up."""
        return isinstance(self.datastore, ManagedDatastore)

    @property
    def managed(self) -> ManagedDatastore:
        """The settings of a datastore that this tool sets up.

        Raises:
            ValueError: The datastore is external.
        """
        if not isinstance(self.datastore, ManagedDatastore):
            raise ValueError("the datastore is external")
        return self.datastore

    def secrets(self) -> list[Secret]:
        """Return every secret, so that a session can mask the output of hosts."""
        escaped = Secret(quote(self.datastore_password.reveal(), safe=""))  # as in PostgreSQL's endpoint
        known = [self.token, self.agent_token, self.endpoint, self.datastore_password, escaped, *self.file_secrets]
        for settings in (self.server, self.agent, *(member.settings for member in self.members)):
            for value in settings.values():
                known += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Secret)]
        known += [url for url in self.urls.values() if has_credentials(url.reveal())]
        return [secret for secret in dict.fromkeys(known) if secret]


def _number(member: Member) -> tuple[int, int]:
    address = ip_address(member.address)
    return address.version, int(address)
