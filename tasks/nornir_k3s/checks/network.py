"""Checks of addresses, ports, routes and of connections between hosts.

Sources: docs.k3s.io `installation/requirements.md` (ports); k3s `contrib/util/check-config.sh` (routes).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.facts import main_unit
from nornir_k3s.facts.network import REGISTRATION
from nornir_k3s.inventory import rules
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import datastore, keepalived

_SEVERITY: Mapping[bool, Severity] = {False: "error", True: "warning"}  # it may wait for the first server
_UNITS = {*k3s.UNITS.values(), "haproxy.service", "keepalived.service"}  # of other roles than datastore
_FAILURES = {
    "silent": "timeout after 3 s (firewall or wrong network?)",
    "unroutable": "no route to host, or rejected by a firewall",
    "failed": "connection failed",
}


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield the problems of the host's network."""
    yield from _addresses(cluster, member, facts)
    yield from _ports(cluster, member, facts)
    yield from _reach(member, facts)
    if member.role in NODES:
        yield from _routes(cluster, member, facts)
    if "lb" in member.roles:
        yield from _vip_network(cluster, member, facts)


def _addresses(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    for address in member.addresses:
        if not facts.interface_of(address):
            own = ", ".join(one for _, one in facts.addresses if not one.startswith(("127.", "::1", "fe80")))
            found = f"no interface has the address {address} (there are {own})"
            yield problem(member.name, "address", found, "the inventory's address", "correct it in the inventory")
    # A host that was a load balancer may have one: the next deploy takes it away.
    balancer = "lb" in member.roles or keepalived.CONFIG in facts.ledger.files
    for vip in () if balancer else filter(facts.interface_of, cluster.vips):
        remedy = "choose a free address for the VIP"
        yield problem(member.name, "vip", f"this host has the VIP {vip}", "the VIP on load balancers only", remedy)


def _wanted_ports(cluster: Cluster, role: str) -> tuple[int, ...]:
    api = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    return {
        "servers": (api, *k3s.SERVER_PORTS),
        "agents": k3s.AGENT_PORTS,
        "lb": (cluster.registration.port, cluster.lb.stats.port),
        "datastore": datastore.kind(cluster).ports if role == "datastore" else (),
    }[role]


def _ports(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    wanted = {port for role in member.roles if not _runs(cluster, role, facts) for port in _wanted_ports(cluster, role)}
    for local, processes in facts.sockets:
        port = local.rpartition(":")[2]
        # An HAProxy that runs may be told to take another port.
        new = "lb" in member.roles and port in _haproxy_ports(cluster) and processes and '"haproxy"' not in processes
        if new or (port.isdigit() and int(port) in wanted and "k3s" not in processes):
            name = processes.split('"')[1] if '"' in processes else "another program"
            found = f"port {port} is in use by {name} ({local})"
            yield problem(member.name, "port", found, "a free port", f"stop {name}, or move it to another port")


def _haproxy_ports(cluster: Cluster) -> tuple[str, ...]:
    """Return the ports that HAProxy has on every address of a load balancer, or on loopback."""
    shared = str(cluster.server.get("https-listen-port", k3s.API_PORT)) == str(cluster.registration.port)
    return (str(cluster.lb.stats.port), *(() if shared else (str(cluster.registration.port),)))


def _runs(cluster: Cluster, role: str, facts: HostFacts) -> bool:
    """Return whether the service of this role has its ports already."""
    # The unit of a datastore may be named after its version.
    names = (
        [main_unit(cluster, role, facts.family)]
        if role != "datastore"
        else [unit for unit in facts.units if unit not in _UNITS]
    )
    return any(facts.unit(name).active in ("active", "activating", "reloading") for name in names)


def _reach(member: Member, facts: HostFacts) -> Iterator[Finding]:
    for name, address, outcome in facts.reach:
        if outcome in _FAILURES:
            found = f"cannot connect to {name} at {address}: {_FAILURES[outcome]}"
            remedy, severity = "check routes and firewalls between them", _SEVERITY[name == REGISTRATION]
            yield problem(member.name, "reach", found, "a direct connection", remedy, severity)


def _routes(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    if not facts.default_routes:
        found = "no default route: K3s does not start without one"
        remedy = "add one; without internet access, a default route over a dummy interface is enough"
        yield problem(member.name, "default-route", found, "a default route", remedy)
    if not cluster.settings_of(member).get("resolv-conf"):
        yield from _nameservers(member, facts)
    if facts.ledger.installed or set(facts.foreign_units) & set(k3s.UNITS.values()):
        return  # the routes of its own pods are in these networks
    for key in rules.CIDRS:
        for network in rules.networks(cluster.server, key, cluster.ip_version):
            for to, details in facts.routes:
                if _overlap(to, network):
                    found = f"the route to {to} ({details.strip()}) overlaps {key} {network}"
                    remedy = f"choose another {key}; it cannot be changed later"
                    yield problem(member.name, "cidr", found, "no overlap", remedy)


def _nameservers(member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield a finding if K3s would give containers 8.8.8.8: no file has only name servers that suit them."""
    files: dict[str, list[str]] = {}
    for file, address in facts.nameservers:
        files.setdefault(file, []).extend([address] if address else [])
    if not files or any(addresses and all(map(_suits, addresses)) for addresses in files.values()):
        return
    bad = [f"{file} has {one}" for file, addresses in files.items() for one in addresses if not _suits(one)]
    severity: Severity
    found, severity = f"{', '.join(bad)}: K3s gives containers 8.8.8.8 instead", "warning"
    remedy = "remove loopback and link-local name servers from resolv.conf, or set `resolv-conf` to a file without them"
    if not bad:
        found, severity = "resolv.conf has no name server: K3s gives containers 8.8.8.8", "note"
        remedy = "nothing to do if nothing needs names from outside the cluster; else add name servers"
    yield problem(member.name, "nameserver", found, "only name servers that containers can reach", remedy, severity)


def _suits(nameserver: str) -> bool:
    """Return whether K3s takes this name server (Go: net.ParseIP, IP.IsGlobalUnicast)."""
    try:
        address = ipaddress.ip_address(nameserver)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    other = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not other and "%" not in nameserver and nameserver != "255.255.255.255"


def _overlap(text: str, network: rules.Network) -> bool:
    try:
        other = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return other.version == network.version and other.overlaps(network)


def _vip_network(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    if member.interface and not any(dev == member.interface for dev, _ in facts.addresses):
        names = ", ".join(sorted({dev for dev, _ in facts.addresses}))
        found = f"no interface {member.interface} with an address (there are {names})"
        yield problem(member.name, "interface", found, member.interface, "correct k3s.interface in the inventory")
        return
    dev = member.interface or facts.interface_of(member.address)
    networks = [ipaddress.ip_interface(address).network for name, address in facts.addresses if name == dev]
    networks = [network for network in networks if network.prefixlen < network.max_prefixlen]
    for vip in map(ipaddress.ip_address, cluster.vips if networks else ()):
        if any(vip in network for network in networks):
            continue
        found = f"the VIP {vip} is outside the networks of {dev} ({', '.join(map(str, networks))})"
        remedy = "choose a free address of that network; or, if it is routed to them, say `accept: [vip-network]`"
        yield problem(member.name, "vip-network", found, "a network of the load balancers", remedy)


def cni(cluster: Cluster) -> Iterator[Finding]:
    """Yield a note if K3s is to run without flannel (docs.k3s.io `networking/basic-network-options.md`)."""
    if cluster.own_cni:
        found = "flannel-backend is none: nodes stay NotReady, and no pods are scheduled, until a CNI runs"
        names = ", ".join(file.path.rpartition("/")[2] for file in cluster.files if "/server/manifests/" in file.path)
        remedy = f"nothing to do if {names} contains one; else " if names else ""
        remedy += "install it with the kubeconfig that deploy saves as soon as the API answers"
        if cluster.awaits_cni:
            found += "; K3s' network policies wait, too: agents are starting until then, and K3s ends after 15 min"
            remedy += "; if it enforces network policies itself, set disable-network-policy: true"
        yield problem(cluster.of("servers")[0].name, "cni", found, "a CNI of your own", remedy, "note")
