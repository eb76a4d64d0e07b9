"""What a lab is: its name, its network and its hosts, as the Nornir inventory tells it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nornir.core.inventory import Host
from nornir.plugins.inventory import SimpleInventory
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nornir_k3s_lab.errors import LabConfigError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True)
class LabHost:
    """One host of a lab.

    Arguments:
        name: Its name in the inventory, and its host name.
        address: Its IPv4 address.
        user: Who logs in: `root` by key, or a user with sudo.
        sudo_password_file: Where the user's password is kept; without it, sudo does not ask.
    """

    name: str
    address: str
    user: str = "root"
    sudo_password_file: Path | None = None


@dataclass(frozen=True)
class LabSpec:
    """A lab as it is asked for.

    Arguments:
        name: Short name, part of everything the lab makes on the machine.
        network: IPv4 range, the machine itself gets its first address.
        hosts: The hosts.
        key_file: The private key to log in with; its public half lies beside it.
        known_hosts: The file the hosts' keys are written to.
    """

    name: str
    network: str
    hosts: tuple[LabHost, ...]
    key_file: Path
    known_hosts: Path

    @property
    def gateway(self) -> str:
        """The machine's own address in the lab, with the length of the network's prefix."""
        network = ipaddress.IPv4Network(self.network)
        return f"{network[1]}/{network.prefixlen}"


def short_id(*words: str) -> str:
    """Eight hexadecimal digits for a name: interfaces have 15 characters at most."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:8]


def problems_of(name: str, network: str, hosts: Sequence[LabHost]) -> list[str]:
    """All that is wrong with a lab's name, network and hosts, one line each."""
    problems = []
    if not _LABEL.fullmatch(name):
        problems.append(f"the lab's name {name!r} must be 1 to 32 lower-case letters, digits and dashes")
    try:
        range_ = ipaddress.IPv4Network(network)
    except ValueError as error:
        return [*problems, f"the lab's network {network!r} is no IPv4 range: {error}"]
    if range_.prefixlen > 29 or not range_.is_private:
        problems.append(f"the lab's network {network} must be a private range of /29 or larger")
    if not hosts:
        problems.append("the lab has no hosts")
    taken: dict[str, str] = {str(range_[1]): "the machine itself"}
    for host in hosts:
        problems += _host_problems(host, range_, taken)
        taken[host.address] = host.name
    return problems


def _host_problems(host: LabHost, network: ipaddress.IPv4Network, taken: Mapping[str, str]) -> Iterable[str]:
    if not _LABEL.fullmatch(host.name):
        yield f"{host.name}: a host of the lab has a name of 1 to 32 lower-case letters, digits and dashes"
    if not _USER.fullmatch(host.user):
        yield f"{host.name}: {host.user!r} is no user name"
    if host.user == "root" and host.sudo_password_file:
        yield f"{host.name}: root needs no sudo password"
    try:
        address = ipaddress.IPv4Address(host.address)
    except ValueError:
        yield f"{host.name}: hostname must be an IPv4 address of the lab's network {network}, not {host.address!r}"
        return
    if address not in network or address in (network.network_address, network.broadcast_address):
        yield f"{host.name}: {address} is no host address of the lab's network {network}"
    if host.address in taken:
        yield f"{host.name}: {address} is the address of {taken[host.address]} already"


def load(config: Path, inventory: Path | None = None) -> LabSpec:
    """Read a lab from Nornir's config.yaml and inventory, without InitNornir.

    Arguments:
        config: The config.yaml; relative paths in it are relative to its folder.
        inventory: A folder with hosts.yaml, groups.yaml and defaults.yaml, instead of the config's own.
    """
    settings = _read_config(config)
    lab = ((settings.get("user_defined") or {}).get("lab")) or {}
    if not isinstance(lab, dict) or not {"name", "network"} <= lab.keys():
        raise LabConfigError(f"{config} has no user_defined.lab with name and network", hint="the lab needs both")
    files = _inventory_files(config, settings, inventory)
    for file in files.values():
        if not file.exists() and file is files["host_file"]:
            raise LabConfigError(f"{file} does not exist", hint="give the inventory's folder with --inventory")
    loaded = SimpleInventory(**{option: str(file) for option, file in files.items()}).load()
    base = files["host_file"].parent
    hosts = tuple(_lab_host(host, base) for host in loaded.hosts.values())
    folder = config.resolve().parent / ".lab" / str(lab["name"])
    problems = problems_of(str(lab["name"]), str(lab["network"]), hosts)
    keys = {_extra(host, "key_file", base) or folder / "id_ed25519" for host in loaded.hosts.values()}
    known = {_extra(host, "alt_key_file", base) or folder / "known_hosts" for host in loaded.hosts.values()}
    if len(keys) > 1 or len(known) > 1:
        problems.append("all hosts of the lab share one key_file and one alt_key_file")
    if problems:
        raise LabConfigError(*problems)
    return LabSpec(str(lab["name"]), str(lab["network"]), hosts, key_file=keys.pop(), known_hosts=known.pop())


def _read_config(config: Path) -> dict[str, Any]:
    try:
        settings = YAML(typ="safe").load(config.read_text())  # as Nornir reads it
    except OSError as error:
        raise LabConfigError(f"cannot read {config}: {error.strerror}", hint="give the file with --config") from error
    except (YAMLError, ValueError, AssertionError) as error:
        raise LabConfigError(f"{config} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise LabConfigError(f"{config} must hold a mapping")
    return settings


def _inventory_files(config: Path, settings: dict[str, Any], inventory: Path | None) -> dict[str, Path]:
    names = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}
    if inventory is not None:
        return {option: inventory.resolve() / name for option, name in names.items()}
    options = ((settings.get("inventory") or {}).get("options")) or {}
    base = config.resolve().parent
    return {option: base / Path(options.get(option, name)).expanduser() for option, name in names.items()}


def _lab_host(host: Host, base: Path) -> LabHost:
    ssh = host.get("k3s_ssh") or {}
    password = ssh.get("sudo_password") if isinstance(ssh, dict) else None
    file = password.get("file") if isinstance(password, dict) else None
    return LabHost(
        name=host.name,
        address=str(host.hostname),
        user=host.username or "root",
        sudo_password_file=_absolute(base, file) if file else None,
    )


def _extra(host: Host, key: str, base: Path) -> Path | None:
    value = (host.get_connection_parameters("netmiko").extras or {}).get(key)
    return _absolute(base, value) if value else None


def _absolute(base: Path, value: str) -> Path:
    return (base / Path(value).expanduser()).resolve()
