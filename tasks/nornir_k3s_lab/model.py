"""A lab: its name, network and hosts, and the rules for them."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Debian releases that a host can run; the first is the default.
RELEASES = ("bookworm", "trixie", "sid")
# Those whose systemd, 258 or newer, does not boot with cgroup v1.
UNIFIED = ("sid",)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True)
class LabHost:
    """One host of a lab.

    Arguments:
        name: Its name in the inventory, and its host name.
        address: Its IPv4 address.
        user: The user who logs in with the key: `root`, or one with sudo.
        sudo_password_file: The file with the user's password; without it, sudo does not ask for one.
        release: Its Debian release, of `RELEASES`.
    """

    name: str
    address: str
    user: str = "root"
    sudo_password_file: Path | None = None
    release: str = RELEASES[0]


@dataclass(frozen=True)
class LabSpec:
    """The settings of a lab.

    Arguments:
        name: Short name, part of everything that the lab creates on this machine.
        network: IPv4 network; this machine gets its first address.
        hosts: The hosts.
        key_file: The private key to log in with; the public key is beside it, with `.pub`.
        known_hosts: The file that the host keys are written to.
    """

    name: str
    network: str
    hosts: tuple[LabHost, ...]
    key_file: Path
    known_hosts: Path

    @property
    def gateway(self) -> str:
        """The address of this machine in the lab, with the prefix length of the network."""
        network = ipaddress.IPv4Network(self.network)
        return f"{network[1]}/{network.prefixlen}"


@dataclass(frozen=True)
class HostStatus:
    """The state of one host.

    Arguments:
        host: The host.
        state: `running`, `off` (it has a disk) or `absent`.
        init: The process ID, on this machine, of the host's process 1.
        link: The name of its network link on this machine.
    """

    host: LabHost
    state: str
    init: int | None
    link: str


def short_id(*words: str) -> str:
    """Eight hexadecimal digits for a name: the names of interfaces have 15 characters at most."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:8]


def problems_of(name: str, network: str, hosts: Sequence[LabHost]) -> list[str]:
    """All problems of a lab's name, network and hosts, one line each."""
    problems = []
    if not _LABEL.fullmatch(name):
        problems.append(f"the lab's name {name!r} must be 1 to 32 lower-case letters, digits and dashes")
    try:
        subnet = ipaddress.IPv4Network(network)
    except ValueError as error:
        return [*problems, f"the lab's network {network!r} is not an IPv4 network: {error}"]
    if subnet.prefixlen > 29 or not subnet.is_private:
        problems.append(f"the lab's network {network} must be a private network of /29 or larger")
    if not hosts:
        problems.append("the lab has no hosts")
    taken: dict[str, str] = {str(subnet[1]): "this machine"}
    for host in hosts:
        problems += _host_problems(host, subnet, taken)
        taken[host.address] = host.name
    return problems


def _host_problems(host: LabHost, network: ipaddress.IPv4Network, taken: Mapping[str, str]) -> Iterable[str]:
    if not _LABEL.fullmatch(host.name):
        yield f"{host.name}: the name of a host must be 1 to 32 lower-case letters, digits and dashes"
    if not _USER.fullmatch(host.user):
        yield f"{host.name}: {host.user!r} is not a valid user name"
    if host.user == "root" and host.sudo_password_file:
        yield f"{host.name}: root needs no sudo password"
    if host.release not in RELEASES:
        yield f"{host.name}: {host.release!r} is not a release that a host of a lab can run: {', '.join(RELEASES)}"
    try:
        address = ipaddress.IPv4Address(host.address)
    except ValueError:
        yield f"{host.name}: hostname must be an IPv4 address of the lab's network {network}, not {host.address!r}"
        return
    if address not in network or address in (network.network_address, network.broadcast_address):
        yield f"{host.name}: {address} is not a usable host address of the lab's network {network}"
    if host.address in taken:
        yield f"{host.name}: {address} is already the address of {taken[host.address]}"
