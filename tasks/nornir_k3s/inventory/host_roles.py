"""Roles: which one each host has by its groups, and what is wrong with that. No host vanishes without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nornir.core.inventory import Host, Inventory

from nornir_k3s.inventory.problems import Problems
from nornir_k3s.model.cluster import NODES, ROLES, Member
from nornir_k3s.model.suggest import closest, did_you_mean

KEY = "k3s_role"
_SHOWN = 5  # names of hosts in the note
# Names that people give to the group of a role.
_ALIASES = {
    "datastore": ("database", "databases", "datastores", "db"),
    "servers": ("server", "master", "masters", "control_plane", "controlplane", "managers"),
    "agents": ("agent", "worker", "workers", "nodes"),
    "lb": ("lbs", "loadbalancer", "loadbalancers", "balancers", "haproxy"),
}


def of(host: Host, groups: Mapping[str, str]) -> list[str]:
    """Return the roles whose group (or a group below it) this host is in.

    Arguments:
        groups: The names of the roles' groups, where they are others.
    """
    return [role for role in ROLES if host.has_parent_group(groups.get(role, role))]


def first(roles: Sequence[str]) -> str:
    """Return the role whose settings a host with several has: that of its K3s, or the first one."""
    return next((role for role in roles if role in NODES), roles[0])


def counts(inventory: Inventory, groups: Mapping[str, str], away: Sequence[Member] = ()) -> Counter[str]:
    """Return how many hosts each role has, also those with problems of their own, and those that are away."""
    roles = [role for host in inventory.hosts.values() for role in of(host, groups)]
    return Counter([*roles, *(role for one in away if one.name not in inventory.hosts for role in one.roles)])


def circles(inventory: Inventory) -> list[str]:
    """Return the groups that contain themselves through their parent groups: Nornir would follow them for ever."""
    return [name for name, group in inventory.groups.items() if _reaches(group, group)]


def _reaches(start: Host, wanted: Host) -> bool:
    todo, seen = list(start.groups), set()
    while todo:
        group = todo.pop()
        if group is wanted:
            return True
        if group.name not in seen:
            seen.add(group.name)
            todo += group.groups
    return False


def check(inventory: Inventory, groups: Mapping[str, str], problems: Problems) -> None:
    """Add what is wrong with the names of the roles' groups, and with `k3s_role`."""
    for role, group in groups.items():
        others = [one for one in ROLES if one != role and groups.get(one, one) == group]
        if group not in inventory.groups:
            text = f"the inventory has no group `{group}`" + did_you_mean(group, inventory.groups)
            problems.cluster(text, "groups", role)
        elif "agents" in (role, *others) and others:  # servers may be load balancers and the datastore, all of them
            problems.cluster(f"`{group}` is the group of {' and '.join(others)} too", "groups", role)
    entries = [("hosts", (name,), host.data) for name, host in inventory.hosts.items()]
    entries += [("groups", (name,), group.data) for name, group in inventory.groups.items()]
    for kind, above, data in [*entries, ("defaults", (), inventory.defaults.data)]:
        if KEY in data and data[KEY] != "none":
            label = ".".join(above) or kind
            text = f"{label}: `{KEY}` is `none` or left out, not {data[KEY]!r}: a host gets its role from its group"
            problems.other(text, kind, *above, "data", KEY)
    for host in inventory.hosts.values():
        roles = of(host, groups)
        if {"servers", "agents"} <= set(roles):
            names = [groups.get(role, role) for role in NODES]
            text = f"it is in {' and '.join(names)}, but a server is a node as well: remove it from {names[1]}"
            problems.host(host.name, text, "groups")
        elif roles and any(KEY in one.data for one in (host, *host.extended_groups())):
            group = groups.get(roles[0], roles[0])
            problems.host(host.name, f"it is in group {group}, and has `{KEY}: none`: remove one", "data", KEY)


def note(inventory: Inventory, groups: Mapping[str, str]) -> str:
    """Return a note about the hosts that have no role and do not say so, or nothing."""
    hosts = [host for host in inventory.hosts.values() if not of(host, groups) and host.get(KEY) is None]
    if not hosts:
        return ""
    names = ", ".join(host.name for host in hosts[:_SHOWN]) + (", …" if len(hosts) > _SHOWN else "")
    count = "1 host has" if len(hosts) == 1 else f"{len(hosts)} hosts have"
    near = "; ".join(dict.fromkeys(_near(hosts, groups)))
    known = ", ".join(dict.fromkeys(groups.get(role, role) for role in ROLES))
    return (
        f"{count} no role and {'is' if len(hosts) == 1 else 'are'} left out: {names}{f' ({near})' if near else ''};"
        f" roles come from groups {known}; `{KEY}: none` in the data says that none is meant"
    )


def _near(hosts: Sequence[Host], groups: Mapping[str, str]) -> Iterator[str]:
    names = {alias: groups.get(role, role) for role in ROLES for alias in (role, *_ALIASES[role])}
    names |= {groups.get(role, role): groups.get(role, role) for role in ROLES}
    for host in hosts:
        for group in host.extended_groups():
            simple = group.name.lower().replace("-", "_")
            if near := names.get(closest(simple, names, cutoff=0.7)):
                yield f"group {group.name}: did you mean `{near}`?"
