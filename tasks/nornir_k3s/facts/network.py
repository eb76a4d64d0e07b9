"""The network as a host sees it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query, Rows, When, Words
from nornir_k3s.model import machine_facts
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.records import Record
from nornir_k3s.roles import datastore

REGISTRATION = "the registration address"  # the name of that target of `reach`


class Addresses(Rows[machine_facts.Address]):
    """Interfaces and their addresses with prefix length (ip-address(8))."""

    name, source, row = "addresses", "network", machine_facts.Address


class DefaultRoutes(Words):
    """Default routes as `ip route` prints them, IPv4 and IPv6."""

    name, source = "default_routes", "network"


class Routes(Rows[machine_facts.Route]):
    """Other IPv4 routes."""

    name, source, roles, when, row = "routes", "network", NODES, "setup", machine_facts.Route


class Sockets(Rows[machine_facts.Socket]):
    """Listening TCP sockets and their processes (ss(8))."""

    name, source, row = "sockets", "network", machine_facts.Socket


class Nameservers(Rows[machine_facts.Nameserver]):
    """Name servers of the files that K3s takes for containers, in its order (k3s: pkg/agent/config/config.go)."""

    name, source, roles, when, row = "nameservers", "network", NODES, "setup", machine_facts.Nameserver

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name the files: the second one is systemd-resolved's."""
        return k3s.RESOLV_CONFS


class Names(Fact[Mapping[str, tuple[str, ...]]]):
    """The addresses of the names that this server or agent uses."""

    name, source, roles = "names", "network", NODES

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the names of `names_used`."""
        return list(names_used(query.cluster, query.member)) or None

    def parse(self, records: Sequence[Record]) -> Mapping[str, tuple[str, ...]]:
        """Return the addresses by name."""
        rows = (record.take(2) for record in records)
        return {name: tuple(addresses.split()) for name, addresses in rows}


def names_used(cluster: Cluster, member: Member) -> Mapping[str, str]:
    """Return the names that a server or agent must resolve, and what each one is."""
    used = {cluster.registration.name or "": "the registration address"}
    if cluster.endpoint and member.role == "servers":
        used |= dict.fromkeys((host for host, _ in parse_endpoint(cluster.endpoint).hosts), "the datastore")
    if "artifacts.url" in cluster.urls and not cluster.artifacts.push:
        used[urlsplit(cluster.urls["artifacts.url"].reveal()).hostname or ""] = "the mirror of K3s"
    return {name: what for name, what in used.items() if name and not _is_address(name)}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text.startswith("/")  # a socket
    return True


class Reach(Rows[machine_facts.Reach]):
    """Which of the hosts that it must connect to it reaches; a port that nobody listens on yet counts as reached.

    An agent's tunnels need every server at all times. The others show by their work whom they reach.
    """

    name, source, row = "reach", "network", machine_facts.Reach

    def when_for(self, query: Query) -> When:
        """Ask agents always."""
        return "always" if query.member.role == "agents" else "setup"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask about the hosts of `targets`."""
        return [word for target in targets(query.cluster, query.member) for word in target] or None


def targets(cluster: Cluster, member: Member) -> Sequence[tuple[str, str, int]]:
    """Return the hosts that a host must reach: name, address, port."""
    api = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    found = [(server.name, server.address, api) for server in cluster.of("servers")]
    if member.role == "servers":
        port = datastore.kind(cluster).ports[0] if cluster.is_managed else 0
        found += [(host.name, host.address, port) for host in cluster.of("datastore")]
    elif member.role == "agents" and cluster.registration.way == "external":
        found.append((REGISTRATION, str(urlsplit(cluster.url).hostname), cluster.registration.port))
    elif member.role == "datastore" and "lb" not in member.roles:
        return []
    return [target for target in found if target[0] != member.name]


class Neighbours(Rows[machine_facts.Neighbour]):
    """Another machine that answers for the VIP (ip-neighbour(8))."""

    name, source, roles, when, row = "neighbours", "network", ("lb",), "setup", machine_facts.Neighbour

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask about each VIP."""
        return (query.cluster.registration.port, *query.cluster.vips) if query.cluster.vips else None


class Vrrp(Rows[machine_facts.VrrpRouter]):
    """Who sends VRRP in the network of this load balancer (RFC 5798); read until its own keepalived runs."""

    name, source, roles, when, row = "vrrp", "vrrp", ("lb",), "setup", machine_facts.VrrpRouter

    def arguments(self, query: Query) -> Iterable[object]:
        """Name the address on whose interface it listens."""
        return (query.member.address,)


class UnreachableDatastore(Rows[machine_facts.Unreachable]):
    """Addresses of an external datastore that a server cannot connect to, and why."""

    name, source, roles, row = "unreachable", "network", ("servers",), machine_facts.Unreachable

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask about each address of the endpoint."""
        endpoint = query.cluster.endpoint
        return [word for host in parse_endpoint(endpoint).hosts for word in host] if endpoint else None
