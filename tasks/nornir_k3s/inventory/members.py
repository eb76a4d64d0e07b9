"""Members: the hosts of the cluster, from a Nornir inventory."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nornir.core.inventory import Host, Inventory

from nornir_k3s import k3s
from nornir_k3s.inventory import host_roles, merged, rules
from nornir_k3s.inventory.merged import Hidden, Merged
from nornir_k3s.inventory.problems import Problems
from nornir_k3s.inventory.yaml_reader import Key
from nornir_k3s.model.address import more_than_a_host
from nornir_k3s.model.cluster import NODES, Member
from nornir_k3s.plugins.inherited import DEFAULTS, HOST

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
# Keys of a host's `k3s` data that belong to this tool, not to K3s.
OWN_KEYS = {"address", "interface"}
# What has no effect on any host, and why.
_UNUSED = {"priority": "`priority` has no effect: load balancers come in the inventory's order, the first one first"}
_SHARED = {"servers": "k3s_cluster.server", "agents": "k3s_cluster.agent"}


def members(
    inventory: Inventory,
    groups: Mapping[str, str],
    problems: Problems,
    away: Sequence[Member] = (),
    *,
    shared: Mapping[str, Mapping[str, Any]] | None = None,
    hidden: list[tuple[str, Hidden]] | None = None,
) -> list[Member]:
    """Return the hosts that have a role in this cluster, in the inventory's order, then the ones that are away.

    Arguments:
        shared: The cluster-wide settings of a role, which `key+` of a host adds to.
        hidden: Gets the settings that nearer ones hide, with the host.
    """
    found = []
    settings = _settings(inventory, groups, problems)
    used = _used(settings)
    for host, roles, own in settings:
        role = host_roles.first(roles)
        wide = (shared or {}).get(role, {})
        own.drop(key for key in own.settings if (own.level[key], key) in used and _plain(key) not in _known(role))
        if member := _member(host, roles, own, problems, wide):
            found.append(member)
        if hidden is not None:
            more = merged.over(wide, own, _SHARED.get(role, ""))
            hidden += [(host.name, one) for one in (*own.hidden, *more)]
    _held_by_several(settings, problems)
    found += [member for member in away if member.name not in inventory.hosts]
    _duplicates("node name", "node-name", [(m.name, m.node_name) for m in found if m.role in NODES], problems)
    _duplicates("address", "node-ip", [(m.name, one) for m in found for one in m.addresses], problems)
    return found


def _settings(
    inventory: Inventory, groups: Mapping[str, str], problems: Problems
) -> list[tuple[Host, list[str], merged.Merged]]:
    """Return the hosts with a role, their roles, and their settings added up."""
    found = []
    for host in inventory.hosts.values():
        roles = host_roles.of(host, groups)  # `host_roles` tells of none, and of two that exclude each other
        if roles and not set(NODES) <= set(roles) and (own := merged.of(host, problems)) is not None:
            found.append((host, roles, own))
    return found


def _plain(key: str) -> str:
    return key.removesuffix("+")


def _known(role: str) -> frozenset[str]:
    if role not in NODES:
        return frozenset()
    return k3s.SERVER_SETTINGS if role == "servers" else k3s.AGENT_SETTINGS


def _used(settings: Iterable[tuple[Host, Sequence[str], Merged]]) -> set[tuple[str, str]]:
    """Return the settings of groups and the defaults that hosts take, so that others of these need not know them."""
    return {
        (level, key)
        for _, roles, own in settings
        for key, level in own.level.items()
        if level != HOST and _plain(key) in _known(host_roles.first(roles)) and _plain(key) not in k3s.MUST_MATCH
    }


def _held_by_several(settings: Iterable[tuple[Host, Sequence[str], Merged]], problems: Problems) -> None:
    """Report settings of one host that a group or the defaults give to several, but names and addresses."""
    held: dict[tuple[str, str], list[str]] = {}
    for host, roles, own in settings:
        for key in own.settings if set(roles) & set(NODES) else ():
            one = rules.of_one_host(_plain(key), own.settings[key]) and _plain(key) not in ("node-name", "node-ip")
            if one and own.level[key] != HOST:
                held.setdefault((own.level[key], key), []).append(host.name)
    for (level, key), names in held.items():
        if len(names) > 1:
            text = f"`{key}` of {level} is a setting of one host, and {', '.join(names)} get it: set it in their `k3s`"
            problems.host(names[0], f"k3s: {text}", "data", "k3s", key)


def _duplicates(what: str, key: str, pairs: Iterable[tuple[str, str]], problems: Problems) -> None:
    first: dict[str, str] = {}
    for name, value in pairs:
        if value in first:
            problems.host(name, f"it has the same {what} as {first[value]}: {value}", "data", "k3s", key)
        first.setdefault(value, name)


def _member(
    host: Host, roles: Sequence[str], merged_: Merged, problems: Problems, shared: Mapping[str, Any]
) -> Member | None:
    data, role = merged_.settings, host_roles.first(roles)
    own = {key: data[key] for key in data if key in OWN_KEYS}
    settings = {key: value for key, value in data.items() if key not in OWN_KEYS}
    for path, text in _host_problems(role, settings):
        problems.host(host.name, f"k3s: {text}", "data", "k3s", *path)
    address = _address(host, settings, own)
    if "node-ip+" in settings and "node-ip" not in settings:  # this tool gives each node its address
        settings = {"node-ip": [address], **settings}
    key = "node-ip" if role in NODES else "address"
    login = more_than_a_host(str(host.hostname or ""), "hostname", port="port: {}", user="username: {}")
    if login:
        problems.host(host.name, login, "hostname")
    try:
        address = str(ipaddress.ip_address(address))
    except ValueError:
        if key in data:
            text = more_than_a_host(address, f"k3s.{key}") or f"{address!r} is not an IP address"
            problems.host(host.name, text, "data", "k3s", key)
        elif not login:
            text = f"{address!r} is not an IP address; give the address the other hosts use as `k3s.{key}`"
            problems.host(host.name, text, "hostname")
        return None
    if re.search(r"^-|[\s\0]", str(host.username or "")):
        problems.host(host.name, f"{host.username!r} is not a valid user name", "username")
    if "interface" in own and "lb" not in roles and merged_.level["interface"] != DEFAULTS:
        text = "`interface` is for load balancers: it is where the VIP is"
        problems.host(host.name, f"k3s: {text}", "data", "k3s", "interface")
    interface = str(own.get("interface") or "")
    if interface and not re.fullmatch(r"[^\s/\0]{1,15}", interface):
        problems.host(host.name, f"{interface!r} is not a valid interface name", "data", "k3s", "interface")
    node_name = str(settings.get("node-name") or host.name).lower()
    if role in NODES and (not _NAME.match(node_name) or node_name == "localhost"):
        text = f"{node_name!r} is not a valid node name: use letters, digits, - and ., but not localhost"
        problems.host(host.name, text, "data", "k3s", "node-name")
    beside = tuple(other for other in roles if other != role)
    return Member(host.name, role, address, node_name, rules.typed(settings, shared), interface, beside)


def _address(host: Host, settings: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    node_ip = rules.listed(settings.get("node-ip") or [])
    return str(node_ip[0] if node_ip else own.get("address") or host.hostname or host.name)


def _host_problems(role: str, settings: Mapping[str, Any]) -> Iterator[tuple[tuple[Key, ...], str]]:
    if role not in NODES:
        yield from (((key,), _UNUSED[key]) for key in settings if key in _UNUSED)
        settings = {key: value for key, value in settings.items() if key not in _UNUSED}
        yield from (((key,), f"`{key}` is a K3s setting, but no K3s runs on hosts of group {role}") for key in settings)
        return
    shared = [key for key in settings if key.rstrip("+") in k3s.MUST_MATCH]
    yield from (((key,), f"`{key}` must be the same on all servers: set it in k3s_cluster.server") for key in shared)
    known = k3s.SERVER_SETTINGS if role == "servers" else k3s.AGENT_SETTINGS
    yield from rules.settings({key: value for key, value in settings.items() if key not in shared}, known)
