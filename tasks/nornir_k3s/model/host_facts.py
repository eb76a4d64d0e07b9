"""HostFacts: the facts of one host as typed values. `facts/` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nornir_k3s.model import family as families
from nornir_k3s.model.datastore_facts import Database, DatastoreHealth, Stored
from nornir_k3s.model.encryption import Encryption
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.k3s_facts import Api, Backend, CertificateFile, RequestedApi, ServerFiles, SettingsFile, SystemPod
from nornir_k3s.model.lease import Lease
from nornir_k3s.model.machine_facts import (
    Address,
    Capacity,
    Kernel,
    Mount,
    Nameserver,
    Neighbour,
    Reach,
    Repositories,
    RoundTrips,
    Route,
    Selinux,
    Socket,
    Space,
    System,
    Unreachable,
    VrrpRouter,
)
from nornir_k3s.model.work import Work


class Served(NamedTuple):
    """Something that a service of this host has for others: a database, a frontend."""

    service: str
    what: str


@dataclass(frozen=True)
class FileState:
    """One file: kind is file, link, other or absent; times in seconds since the epoch.

    Arguments:
        changed: When its content, mode or owner changed (ctime).
        written: When its content changed (mtime).
        sha256: The hash of a file; the target of a link.
        text: Its content, if it differs and may be read; may contain secrets.
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
    """One large file; the hash of a missing one is `-`."""

    sha256: str = "-"
    mode: int = 0
    written: int = 0

    def same(self, sha256: str, mode: int) -> bool:
        """Return whether it has this hash and mode."""
        return (self.sha256, self.mode) == (sha256, mode)


@dataclass(frozen=True)
class UnitState:
    """One systemd unit; times in seconds since the epoch, 0 for never."""

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
    """The records of this tool on the host.

    Arguments:
        files: Files that it wrote.
        settled: Files whose mode or owner it has set, and when.
        same: Files whose settings a process had already when they were written: their SHA-256, and its start.
        pending: Units that must restart or reload, because a run was interrupted before they did.
        reloaded: Units that it has reloaded with their own command, and when.
        drained: Servers that it has taken out of this load balancer's rotation, and not brought back yet.
        cordoned: Whether it has cordoned this host's node, and not uncordoned it yet.
        installed: The mark of the last finished installation of K3s.
        locked: Whether a run is changing the host.
    """

    files: frozenset[str] = frozenset()
    settled: Mapping[str, int] = field(default_factory=dict)
    same: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    reloaded: Mapping[str, int] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    cordoned: bool = False
    installed: str = ""
    locked: bool = False


@dataclass(frozen=True)
class Made:
    """What this tool has put on the host.

    Arguments:
        state: Its folder is there.
        k3s: It has put K3s there.
        files: Those that it wrote, and whether a copy of what was there before is kept.
        copies: Files that were there before and are not any more, although a copy is.
        packages: Those that it has installed, with what came along.
        booleans: Those of SELinux that it has turned on.
        stopped: Units that an interrupted reset has stopped, or was about to restart.
        shared: Those of them that have data of others.
        password: K3s has gone, and has left the password of the node.
        dumps: Of the datastore.
    """

    state: bool = False
    k3s: bool = False
    files: Mapping[str, bool] = field(default_factory=dict)
    copies: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    stopped: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    password: bool = False
    dumps: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostFacts:
    """The facts of one host; each field except the last ones is a fact of `facts/`."""

    host: str
    now: float = 0.0
    work: Work = field(default_factory=Work)
    system: System = field(default_factory=System)
    distribution: tuple[str, ...] = ()
    capacity: Capacity = field(default_factory=Capacity)
    ssh_sessions: int = 0
    addresses: tuple[Address, ...] = ()
    default_routes: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    sockets: tuple[Socket, ...] = ()
    nameservers: tuple[Nameserver, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reach: tuple[Reach, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    vrrp: tuple[VrrpRouter, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    repositories: Repositories = field(default_factory=Repositories)
    files: Mapping[str, FileState] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactState] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    ledger: Ledger = field(default_factory=Ledger)
    made: Made = field(default_factory=Made)
    units: Mapping[str, UnitState] = field(default_factory=dict)
    missing_links: tuple[str, ...] = ()
    foreign_units: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    space: tuple[Space, ...] = ()
    kernel: Kernel = field(default_factory=Kernel)
    firewalls: tuple[str, ...] = ()
    selinux: Selinux = field(default_factory=Selinux)
    booleans: Mapping[str, str] = field(default_factory=dict)  # `on` or `off`, while SELinux is enforcing
    server: ServerFiles = field(default_factory=ServerFiles)
    encryption: Encryption = field(default_factory=Encryption)
    agent_ca: str = ""
    node_password: bool = True
    registration: str | None = None  # why an agent does not reach the registration address; None if it was not asked
    api: Api = field(default_factory=Api)
    kubeconfig: str = field(default="", repr=False)
    lease: Lease | None = None
    effective_config: Mapping[str, Any] | None = None
    password_refused: int = 0  # when K3s last found another one than the node's
    extra_settings: tuple[SettingsFile, ...] = ()
    installations: tuple[Installed, ...] = ()
    certificates: tuple[CertificateFile, ...] = ()
    others: tuple[Served, ...] = ()
    backends: Mapping[str, Backend] = field(default_factory=dict)
    round_trips: RoundTrips = field(default_factory=RoundTrips)
    stored: tuple[Stored, ...] = ()
    database: Database = field(default_factory=Database)
    datastore_health: DatastoreHealth = field(default_factory=DatastoreHealth)
    requested_apis: tuple[RequestedApi, ...] = ()
    containerd_templates: Mapping[str, str] = field(default_factory=dict)
    system_pods: tuple[SystemPod, ...] | None = None
    installed_version: str = ""  # of K3s, where it does not run
    traefik_values: str = ""  # the own values of its chart, as far as their names matter
    latency: Mapping[str, float] = field(default_factory=dict)  # milliseconds by address
    unreachable: tuple[Unreachable, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict, repr=False)  # texts by path; secret
    # Not read by the script: the seconds that the clock is ahead of the controller's, and the results of probing an
    # external datastore.
    skew: float = 0.0
    skew_error: float = 0.0  # by how much it may be wrong, because the answer took so long
    datastore: tuple[Finding, ...] = ()
    datastore_certificates: tuple[CertificateFile, ...] = ()

    @property
    def known_family(self) -> families.Family | None:
        """The family of its distribution; None if it is none that this tool knows."""
        return families.of(self.distribution, self.system.package_manager.split())

    @property
    def family(self) -> families.Family:
        """The family of its distribution; of one that is not known, Debian's."""
        return self.known_family or families.DEBIAN

    @property
    def ready(self) -> bool:
        """Whether this server's `/readyz` returns ok."""
        return self.api.ready

    @property
    def in_service(self) -> bool:
        """Whether this server is ready, or this agent's service is active: a change of it can be taken back."""
        return self.ready or self.unit("k3s-agent.service").active == "active"

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of packages, installed or to be installed; of PostgreSQL, that of the cluster with our settings.

        Debian's packages of a new major version make a second, empty cluster beside it.
        """
        ours = [one.version for one in self.stored if (one.product, one.ours) == ("postgresql", "yes")]
        kept = {"postgresql": max(ours, key=int)} if ours else {}
        return {**self.repositories.candidates, **self.packages, **kept}

    def unit(self, name: str) -> UnitState:
        """Return a unit's state; a unit that was not read counts as not found."""
        return self.units.get(name, UnitState())

    def has_read_before(self, unit: str) -> bool:
        """Return whether a unit's process has the settings of its files from others, which they came from."""
        started = self.unit(unit).started
        return any(started == one for _, one in self.ledger.same.values()) and started > 0

    def interface_of(self, address: str) -> str:
        """Return the interface with this address, or nothing."""
        return next((one.interface for one in self.addresses if one.cidr.split("/")[0] == address), "")
