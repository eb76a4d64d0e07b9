"""Facts about a host as a machine: hardware and kernel, network, file systems, package sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class System:
    """The machine; sizes in KiB; empty or 0 if unknown."""

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
    """Facts that are read only before a host is set up."""

    cpus: int = 0
    systemd: str = ""


class Address(NamedTuple):
    """An address of an interface, with prefix length."""

    interface: str
    cidr: str


class Route(NamedTuple):
    """A route: its network, and the rest of the line."""

    network: str
    details: str


class Socket(NamedTuple):
    """A listening TCP socket, and its processes as `ss` shows them."""

    local: str
    processes: str


class Nameserver(NamedTuple):
    """A name server of a resolv.conf; the address is empty if the file has none."""

    file: str
    address: str


class Neighbour(NamedTuple):
    """Another machine that answers for an address."""

    address: str
    entry: str


class VrrpRouter(NamedTuple):
    """Another host or router that sends VRRP, with its virtual router ID and the version of VRRP."""

    address: str
    router_id: str
    version: str


class Reach(NamedTuple):
    """A connection attempt to another host; outcome: open, closed, silent, unroutable or failed."""

    name: str
    address: str
    outcome: str


class Unreachable(NamedTuple):
    """An address of an external datastore that a server cannot connect to, and why."""

    address: str
    reason: str


@dataclass(frozen=True)
class RoundTrips:
    """The round trips from a load balancer to the servers.

    Arguments:
        kept: The longest one, in milliseconds, that its configuration is for; 0 if it does not say so.
        milliseconds: By server; empty where nothing was measured.
    """

    kept: int = 0
    milliseconds: Mapping[str, float] = field(default_factory=dict)


class Mount(NamedTuple):
    """The file system of a path that exists or will exist."""

    path: str
    filesystem: str
    free_kib: int
    options: tuple[str, ...]


class Space(NamedTuple):
    """Free space of a file system."""

    path: str
    free_mib: int
    free_inodes: int
    all_inodes: int


@dataclass(frozen=True)
class Repositories:
    """What the package manager can install, and what it has left unfinished.

    Arguments:
        broken: Packages that an interrupted installation has left.
        sources: The number of package sources; -1 if unknown.
        unavailable: Wanted packages that no source has.
        candidates: Versions that would be installed.
    """

    broken: tuple[str, ...] = ()
    sources: int = -1
    unavailable: tuple[str, ...] = ()
    candidates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernel:
    """Kernel features for containers.

    Arguments:
        modules: yes, no, or unknown by name; disabled: modprobe runs something else instead (modprobe.d(5)).
        watches: fs.inotify.max_user_watches.
        kmsg: /dev/kmsg can be opened.
    """

    controllers: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    keys: int = 0
    iptables: str = ""
    watches: int = 0
    kmsg: bool = True


@dataclass(frozen=True)
class Selinux:
    """SELinux' mode, and whether the policy for K3s is installed."""

    mode: str = ""
    policy: bool = False
