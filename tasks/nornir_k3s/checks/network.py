"""Checks of addresses, ports, routes and of who reaches whom.

Sources: docs.k3s.io `installation/requirements.md` (ports); k3s `contrib/util/check-config.sh` (routes).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.facts import main_unit
from nornir_k3s.inventory import rules
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import datastore

_SERVER_PORTS = (6444, 10248, 10249, 10250, 10256, 10257, 10258, 10259, 10010)
_AGENT_PORTS = (6444, 10248, 10249, 10250, 10256, 10010)
_HOW = {
    "silent": "nothing answers within 3 s (a firewall, or the wrong network?)",
    "unroutable": "there is no route, or a firewall refuses",
    "failed": "no connection",
}


def check(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    """Yield what is wrong with the host's network."""
    yield from _addresses(cluster, member, seen)
    yield from _ports(cluster, member, seen)
    yield from _reach(member, seen)
    if member.role in NODES:
        yield from _routes(cluster, member, seen)
    if member.role == "lb":
        yield from _vip_network(cluster, member, seen)


def _addresses(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    if not seen.interface_of(member.address):
        have = ", ".join(address for _, address in seen.addresses if not address.startswith(("127.", "::1", "fe80")))
        found = f"{member.address} is on none of its interfaces ({have})"
        yield problem(member.name, "address", found, "the inventory's address", "correct the host's address")
    vip = str(cluster.registration.address or "")
    if vip and member.role != "lb" and seen.interface_of(vip):
        remedy = "choose a free address for the VIP"
        yield problem(member.name, "vip", f"it carries the VIP {vip} itself", "on load balancers only", remedy)


def _wanted_ports(cluster: Cluster, member: Member) -> tuple[int, ...]:
    api = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    return {
        "servers": (api, *_SERVER_PORTS),
        "agents": _AGENT_PORTS,
        "lb": (cluster.registration.port,),
        "datastore": datastore.kind(cluster).ports if member.role == "datastore" else (),
    }[member.role]


def _ports(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    # A datastore's unit may be named after a version; it has no other.
    units = list(seen.units.values()) if member.role == "datastore" else [seen.unit(main_unit(cluster, member.role))]
    if any(state.active in ("active", "activating", "reloading") for state in units):
        return
    wanted = _wanted_ports(cluster, member)
    for local, who in seen.sockets:
        port = local.rpartition(":")[2]
        if port.isdigit() and int(port) in wanted and "k3s" not in who:
            name = who.split('"')[1] if '"' in who else "another program"
            found = f"port {port} is taken by {name} ({local})"
            yield problem(member.name, "port", found, f"{port} free", f"stop {name} or move it")


def _reach(member: Member, seen: HostFacts) -> Iterator[Finding]:
    for name, place, how in seen.reach:
        if how in _HOW:
            found = f"it does not reach {name} at {place}: {_HOW[how]}"
            yield problem(member.name, "reach", found, "a direct connection", "check routes and firewalls between them")


def _routes(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    if not seen.default_routes:
        found = "it has no default route, and K3s does not start without one"
        remedy = "add one; where there is no way out, one over a dummy interface will do"
        yield problem(member.name, "default-route", found, "a default route", remedy)
    names = seen.nameservers
    if names and all(name.startswith(("127.", "::1")) for name in names) and not member.settings.get("resolv-conf"):
        found = f"resolv.conf names only {', '.join(names)}, and K3s then gives containers 8.8.8.8"
        remedy = (
            "set `resolv-conf` to a file with real name servers (systemd-resolved: /run/systemd/resolve/resolv.conf)"
        )
        yield problem(member.name, "nameserver", found, "a server that containers reach", remedy, "warning")
    if seen.ledger.installed:
        return  # the routes of its own pods lie in these networks
    for key in rules.CIDRS:
        for network in rules.networks(cluster.server, key):
            for to, how in seen.routes:
                if _overlap(to, network):
                    found = f"it routes {to} ({how.strip()}), which overlaps {key} {network}"
                    remedy = f"choose another {key}; it cannot be changed later"
                    yield problem(member.name, "cidr", found, "networks of the cluster's own", remedy)


def _overlap(text: str, network: rules.Network) -> bool:
    try:
        other = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return other.version == network.version and other.overlaps(network)


def _vip_network(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    if member.interface and not any(dev == member.interface for dev, _ in seen.addresses):
        have = ", ".join(sorted({dev for dev, _ in seen.addresses}))
        found = f"it has no interface {member.interface} with an address (it has {have})"
        yield problem(member.name, "interface", found, member.interface, "correct k3s.interface in the inventory")
        return
    vip = cluster.registration.address
    dev = member.interface or seen.interface_of(member.address)
    networks = [ipaddress.ip_interface(address).network for name, address in seen.addresses if name == dev]
    networks = [network for network in networks if network.prefixlen < network.max_prefixlen]
    if vip and networks and not any(vip in network for network in networks):
        found = f"the VIP {vip} is in none of the networks of {dev} ({', '.join(map(str, networks))})"
        remedy = "choose a free address of that network, or route the VIP to the load balancers and accept this"
        yield problem(member.name, "vip-network", found, "a network of the load balancers", remedy)


def vip_taken(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield a finding where a machine that is no load balancer of ours answers for the VIP."""
    vip = str(cluster.registration.address or "")
    balancers = [member for member in cluster.of("lb") if member.name in facts]
    if any(facts[member.name].interface_of(vip) for member in balancers):
        return
    for member in balancers:
        for address, entry in facts[member.name].neighbours:
            found = f"another machine has the VIP {address} already: {entry.strip()}"
            yield problem(member.name, "vip", found, "a free address", "choose another VIP, or free this one")
            return
