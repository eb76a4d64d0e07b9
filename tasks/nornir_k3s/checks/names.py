"""Checks of names: who resolves them, and where they lead. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from nornir_k3s.facts.network import names_used
from nornir_k3s.model.address_answer import CONTROLLER, AddressAnswer
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.finding import CLUSTER, Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts


class _Wrong(NamedTuple):
    found: str
    expected: str
    severity: Severity
    remedy: str = ""


def check(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], address: AddressAnswer | None = None
) -> Iterator[Finding]:
    """Yield the names that a host, or the controller, cannot resolve, and those that lead elsewhere.

    Arguments:
        address: What the controller has found at the registration address.
    """
    for member in (member for role in NODES for member in cluster.of(role)):
        if member.name in all_facts:
            yield from _of_host(cluster, member, all_facts)
    name = cluster.registration.name
    if name and address and address.resolved is not None:
        works = address.answers and address.via == CONTROLLER
        if not works or cluster.registration.way == "dns":
            yield from _of_controller(cluster, name, address.resolved, all_facts)


def _of_host(cluster: Cluster, member: Member, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    facts = all_facts[member.name]
    for name, what in names_used(cluster, member).items():
        if name not in facts.names:
            continue
        registration = name == cluster.registration.name
        wanted = _wanted(cluster) if registration else ""
        line = f"`{wanted or 'ADDRESS'} {name}` to /etc/hosts"
        if not facts.names[name]:
            remedy = f"add the name to DNS, or {line} on this host"
            if wanted:
                remedy += "; or remove `registration.name`: agents then use the address"
            found = f"it cannot resolve {name}, {what}"
            yield problem(member.name, "name", found, wanted or "an address", remedy)
        elif not registration or (cluster.registration.way != "dns" and _works(cluster, member.name, all_facts)):
            continue
        elif wrong := _leads_elsewhere(cluster, facts.names[name], all_facts):
            remedy = wrong.remedy or f"correct DNS, or add {line} on this host"
            found = f"it resolves {name}, {what}, to {wrong.found}"
            yield problem(member.name, "name", found, wrong.expected, remedy, wrong.severity)


def _works(cluster: Cluster, name: str, all_facts: Mapping[str, HostFacts]) -> bool:
    """Return whether a host reaches the API by that name: then it leads there, by NAT or another load balancer.

    A VIP of before a change works, too, as long as load balancers of ours hold it.
    """
    facts = all_facts[name]
    balancers = [all_facts[member.name] for member in cluster.of("lb") if member.name in all_facts]
    addresses = facts.names[cluster.registration.name or ""]
    ours = any(one.interface_of(address) for one in balancers for address in addresses)
    return not ours and (facts.registration == "" or facts.api.through_address)


def _wanted(cluster: Cluster) -> str:
    return "" if cluster.registration.way == "dns" else str(cluster.registration.address or "")


def _of_controller(
    cluster: Cluster, name: str, resolved: Collection[str], all_facts: Mapping[str, HostFacts]
) -> Iterator[Finding]:
    """Yield a warning if the kubeconfig, which has this name, cannot work here."""
    where = "for this machine, in DNS or /etc/hosts"
    if not resolved:
        found = f"{CONTROLLER} cannot resolve {name}: the kubeconfig, which uses it, does not work here"
        yield problem(CLUSTER, "name", found, _wanted(cluster) or "an address", f"add the name {where}", "warning")
    elif wrong := _leads_elsewhere(cluster, resolved, all_facts):
        found = f"{CONTROLLER} resolves {name}, the registration address, to {wrong.found}"
        yield problem(CLUSTER, "name", found, wrong.expected, wrong.remedy or f"correct it {where}", "warning")


def _leads_elsewhere(cluster: Cluster, addresses: Collection[str], all_facts: Mapping[str, HostFacts]) -> _Wrong | None:
    """Return what is wrong with the addresses of the registration address' name."""
    given, shown = str(cluster.registration.address or ""), ", ".join(addresses)
    if all(map(_is_itself, addresses)):
        return _Wrong(f"{shown}, which is each host itself", given or "the registration address", "error")
    if cluster.registration.way == "dns":
        return _not_servers(cluster, addresses, all_facts)
    if not given or set(addresses) == {given}:
        return None
    others = {address: member.name for member in cluster.members for address in member.addresses}
    hosts = [f"{address}, which is {others[address]}" for address in addresses if address in others]
    if hosts and given not in addresses:
        return _Wrong(", ".join(hosts), given, "error")
    return _Wrong(shown, given, "warning")


def _not_servers(cluster: Cluster, addresses: Collection[str], all_facts: Mapping[str, HostFacts]) -> _Wrong | None:
    given = str(cluster.registration.address or "")
    servers = {member.name: addresses_of(cluster, member, all_facts) for member in cluster.of("servers")}
    strangers = [one for one in addresses if one != given and not any(one in known for known in servers.values())]
    if strangers:
        expected = f"{given}, or addresses of servers" if given else "addresses of servers only"
        remedy = "remove it from the record; or, if it leads to a server, give it as that server's `node-external-ip`"
        return _Wrong(f"{', '.join(strangers)}, which is no server's address", expected, "error", remedy)
    if given in addresses:
        return None
    missing = [name for name, known in servers.items() if not known & set(addresses)]
    if missing and not given:
        hosts = ", ".join(f"{name} ({cluster.member(name).address})" for name in missing)
        remedy = "add it to the record as soon as the server runs"
        return _Wrong(f"{', '.join(addresses)}, without {hosts}", "an address of every server", "warning", remedy)
    return None


def addresses_of(cluster: Cluster, member: Member, all_facts: Mapping[str, HostFacts]) -> set[str]:
    """Return all addresses that lead to a server: of the inventory, and of its interfaces."""
    settings, known = cluster.settings_of(member), set(member.addresses)
    for key in ("node-external-ip", "advertise-address"):
        value = settings.get(key, [])
        known.update(str(one) for one in (value if isinstance(value, list) else [value]))
    if facts := all_facts.get(member.name):
        known.update(one.cidr.split("/")[0] for one in facts.addresses)
    return {one for one in known if not _is_itself(one)}


def _is_itself(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
