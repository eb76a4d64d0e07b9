"""What is true on one host, as typed values. `facts/` says how each is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from nornir_k3s.model.finding import Finding


@dataclass(frozen=True)
class System:
    """The machine; sizes in KiB, empty or 0 where it does not say."""

    arch: str = ""
    kernel: str = ""
    hostname: str = ""
    machine_id: str = ""
    os_name: str = ""
    init: str = ""
    package_manager: str = ""
    cgroup: str = ""
    inotify_instances: int = 0
    memory_kib: int = 0
    disk_kib: int = 0


@dataclass(frozen=True)
class Capacity:
    """What only a host that is yet to be set up is asked for."""

    cpus: int = 0
    systemd: str = ""


class Address(NamedTuple):
    """An address of an interface, with prefix length."""

    interface: str
    cidr: str


class Route(NamedTuple):
    """A route: to which network, and the rest of the line."""

    network: str
    how: str


class Socket(NamedTuple):
    """A listening TCP socket, and the processes behind it as `ss` shows them."""

    local: str
    processes: str


class Reach(NamedTuple):
    """A try to connect to another host; outcome: open, closed, silent, unroutable or failed."""

    name: str
    place: str
    outcome: str


class Neighbour(NamedTuple):
    """Another machine that answers for an address."""

    address: str
    entry: str


class Unreachable(NamedTuple):
    """An address of an external datastore that a server cannot connect to, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class FileState:
    """One file: kind is file, link, other or absent; times in seconds since the epoch.

    Arguments:
        changed: When its content, mode or owner was changed (ctime).
        written: When its content was (mtime).
        sha256: Of a link, where it leads.
        text: Its content where that was asked for and differs; it may hold secrets.
    """

    kind: str
    mode: int = 0
    owner: str = ""
    group: str = ""
    size: int = 0
    changed: int = 0
    sha256: str = ""
    text: str | None = field(default=None, repr=False)
    written: int = 0


@dataclass(frozen=True)
class ArtifactState:
    """One large file; `-` stands for the hash of one that is absent."""

    sha256: str = "-"
    mode: int = 0
    written: int = 0

    def same(self, sha256: str, mode: int) -> bool:
        """Say whether it is the wanted one."""
        return (self.sha256, self.mode) == (sha256, mode)


@dataclass(frozen=True)
class UnitState:
    """One systemd unit; times are seconds since the epoch, 0 when never."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    restarts: int = 0
    started: int = 0
    changed: int = 0
    command: str = ""
    dropins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """What this tool has noted on the host.

    Arguments:
        files: Files that it wrote.
        settled: Files whose mode or owner it set, and when.
        pending: Units that must restart or reload, since a run was stopped before they did.
        reloaded: Units that were reloaded by a command of its own, and when.
        installed: The mark of the last finished installation of K3s.
        locked: A run that changes the host is at work.
    """

    files: frozenset[str] = frozenset()
    settled: Mapping[str, int] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    reloaded: Mapping[str, int] = field(default_factory=dict)
    installed: str = ""
    locked: bool = False


class Mount(NamedTuple):
    """The file system where a path lies or will lie."""

    path: str
    filesystem: str
    free_kib: int
    options: tuple[str, ...]


class Space(NamedTuple):
    """What is free in a file system."""

    path: str
    free_mib: int
    free_inodes: int
    all_inodes: int


@dataclass(frozen=True)
class Apt:
    """The state of apt and dpkg.

    Arguments:
        broken: Half-installed packages.
        sources: How many package sources it has; -1 where it was not asked.
        unavailable: Wanted packages that no source has.
        candidates: Versions that would be installed.
    """

    broken: tuple[str, ...] = ()
    sources: int = -1
    unavailable: tuple[str, ...] = ()
    candidates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernel:
    """What containers need of the kernel; modules: yes, no or unknown."""

    controllers: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    keys: int = 0
    iptables: str = ""


@dataclass(frozen=True)
class Selinux:
    """SELinux' mode, and whether its policy for K3s is installed."""

    mode: str = ""
    policy: bool = False


class SettingsFile(NamedTuple):
    """A file that sets K3s settings beside ours: their names only, since values may be secrets."""

    path: str
    names: tuple[str, ...]
    changed: int


@dataclass(frozen=True)
class ServerFiles:
    """What a server's own files say of its cluster.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA.
        token: Fingerprint of the token it was started with.
        ca_certificate: The CA of the servers' certificates, PEM.
    """

    ca_prefix: str = ""
    token: str = ""
    ca_certificate: str = ""


@dataclass(frozen=True)
class NodeState:
    """One Kubernetes node as a server lists it.

    Arguments:
        since: When it became Ready, or not, in seconds since the epoch; 0 where it does not say.
        args: What K3s was started with, secrets masked: `k3s.io/node-args`.
    """

    name: str
    ready: bool
    version: str
    roles: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    schedulable: bool = True
    since: int = 0
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Api:
    """What a server's API answers.

    Arguments:
        ready: `/readyz` says ok, with credentials.
        nodes: The nodes; None where it did not list them.
        through_address: They were listed through the registration address.
        error: Why they could not be listed, where that was asked for.
    """

    ready: bool = False
    nodes: tuple[NodeState, ...] | None = None
    through_address: bool = False
    error: str = ""


class Backend(NamedTuple):
    """A server as a load balancer sees it, and for how many seconds."""

    state: str
    seconds: int | None = None


class CertificateFile(NamedTuple):
    """When the first certificate of a file expires, and whether it is a CA's own."""

    path: str
    expires: datetime
    authority: bool


@dataclass(frozen=True)
class Database:
    """What is inside a datastore.

    Arguments:
        alive: It answers.
        versions: Product and version of each address.
        databases: Names of the databases of this cluster's name.
        users: Users of this cluster, and whether each is as it must be.
        grants: Users that have their rights.
        bootstrap: Keys of K3s' bootstrap rows, and the sizes of their values in bytes.
        members: Members of an etcd.
        has_data: Whether a member of an etcd has its data; None where that was not asked.
    """

    alive: bool = False
    versions: tuple[tuple[str, str], ...] = ()
    databases: frozenset[str] = frozenset()
    users: Mapping[str, bool] = field(default_factory=dict)
    grants: frozenset[str] = frozenset()
    bootstrap: Mapping[str, int] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    has_data: bool | None = None


@dataclass(frozen=True)
class DatastoreHealth:
    """How a datastore is doing; None and empty where it does not say.

    Arguments:
        connections: In use, and allowed.
        table: Rows of K3s' table, about, and its bytes.
        revisions: The newest, and the one up to which it is compacted.
        etcd_size: Bytes of an etcd's data, and those of them in use.
        alarms: Of an etcd.
    """

    connections: tuple[int, int] | None = None
    table: tuple[int, int] | None = None
    revisions: tuple[int, int] | None = None
    etcd_size: tuple[int, int] | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostFacts:
    """What is true on one host; each field but the last ones is a fact of `facts/`."""

    host: str
    now: float = 0.0
    system: System = field(default_factory=System)
    capacity: Capacity = field(default_factory=Capacity)
    addresses: tuple[Address, ...] = ()
    default_routes: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    sockets: tuple[Socket, ...] = ()
    nameservers: tuple[str, ...] = ()
    reach: tuple[Reach, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    apt: Apt = field(default_factory=Apt)
    files: Mapping[str, FileState] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactState] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    ledger: Ledger = field(default_factory=Ledger)
    units: Mapping[str, UnitState] = field(default_factory=dict)
    missing_links: tuple[str, ...] = ()
    foreign_units: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    space: tuple[Space, ...] = ()
    kernel: Kernel = field(default_factory=Kernel)
    firewalls: tuple[str, ...] = ()
    selinux: Selinux = field(default_factory=Selinux)
    server: ServerFiles = field(default_factory=ServerFiles)
    agent_ca: str = ""
    api: Api = field(default_factory=Api)
    kubeconfig: str = field(default="", repr=False)
    effective_config: Mapping[str, Any] | None = None
    extra_settings: tuple[SettingsFile, ...] = ()
    certificates: tuple[CertificateFile, ...] = ()
    backends: Mapping[str, Backend] = field(default_factory=dict)
    database: Database = field(default_factory=Database)
    datastore_health: DatastoreHealth = field(default_factory=DatastoreHealth)
    latency: Mapping[str, float] = field(default_factory=dict)  # milliseconds by address
    unreachable: tuple[Unreachable, ...] = ()
    # Not read by the script: the clock's seconds ahead of the controller's, and what the probe of an external datastore
    # found from this server.
    skew: float = 0.0
    datastore: tuple[Finding, ...] = ()
    datastore_certificates: tuple[CertificateFile, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether this server's `/readyz` says ok."""
        return self.api.ready

    def unit(self, name: str) -> UnitState:
        """Return a unit's state; one that was not read counts as not found."""
        return self.units.get(name, UnitState())

    def interface_of(self, address: str) -> str:
        """Return the interface that carries an address, or nothing."""
        return next((one.interface for one in self.addresses if one.cidr.split("/")[0] == address), "")
