"""Observed: what is true on one host, as typed facts."""

from __future__ import annotations

from dataclasses import dataclass, field

from nornir_k3s.model.finding import Finding


@dataclass(frozen=True)
class FileState:
    """One file as found: kind is file, link, other or absent."""

    kind: str
    mode: int = 0
    owner: str = ""
    group: str = ""
    size: int = 0
    changed: int = 0
    sha256: str = ""
    text: str | None = field(default=None, repr=False)  # may hold secrets
    written: int = 0  # `changed` is also when its mode or owner was


@dataclass(frozen=True)
class ArtifactState:
    """One big file as found; `-` stands for the hash of one that is not there."""

    sha256: str = "-"
    mode: int = 0
    written: int = 0

    def same(self, sha256: str, mode: int) -> bool:
        """Say whether it is the wanted one."""
        return (self.sha256, self.mode) == (sha256, mode)


@dataclass(frozen=True)
class UnitState:
    """One systemd unit as found; times are seconds since the epoch, 0 when never."""

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


@dataclass
class Observed:
    """What is true on one host."""

    host: str
    now: float = 0.0
    skew: float = 0.0  # seconds its clock is ahead of the controller's
    arch: str = ""
    kernel: str = ""
    hostname: str = ""
    machine: str = ""
    os: tuple[str, str, str] = ("", "", "")
    init: str = ""
    manager: str = ""
    addresses: list[tuple[str, str]] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    listening: list[tuple[str, str]] = field(default_factory=list)
    cgroup: str = ""
    inotify: int = 0
    memory_kib: int = 0
    disk_kib: int = 0
    packages: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileState] = field(default_factory=dict)
    artifacts: dict[str, ArtifactState] = field(default_factory=dict)
    units: dict[str, UnitState] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)  # files that this tool wrote
    settled: dict[str, int] = field(default_factory=dict)  # files whose mode or owner we set, and when
    reloaded: dict[str, int] = field(default_factory=dict)  # units reloaded by a command of ours, and when
    installed: str = ""
    database: list[tuple[str, str, str]] = field(default_factory=list)
    facts: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)  # of a host that is yet to be set up
    datastore: list[Finding] = field(default_factory=list)  # what this server finds wrong with an external one
    unreachable: list[tuple[str, str]] = field(default_factory=list)  # addresses of an external datastore, and why
    ca_prefix: str = ""
    token: str = ""
    ca_cert: str = ""
    ready: bool = False
    nodes: list[NodeState] | None = None
    through: bool = False  # the nodes were listed through the registration address
    kubeconfig: str = field(default="", repr=False)

    def fact(self, name: str) -> str:
        """Return the one word of a fact, or nothing."""
        found = self.facts.get(name)
        return found[0][0] if found and found[0] else ""

    def unit(self, name: str) -> UnitState:
        """Return a unit's state; one that was not looked at counts as not found."""
        return self.units.get(name, UnitState())

    def interface_of(self, address: str) -> str:
        """Return the interface that carries an address, or nothing."""
        return next((dev for dev, have in self.addresses if have.split("/")[0] == address), "")
