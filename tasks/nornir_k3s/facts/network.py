"""The network of a host: addresses, routes, sockets, connections to other hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query, When
from nornir_k3s.model import host_facts
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.records import Record
from nornir_k3s.roles import datastore


class Addresses(Fact[tuple[host_facts.Address, ...]]):
    """Interfaces and their addresses with prefix length (ip-address(8))."""

    name, source = "addresses", "network"

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Address, ...]:
        """Return them."""
        return tuple(host_facts.Address(*record.take(2)) for record in records)


class DefaultRoutes(Fact[tuple[str, ...]]):
    """Default routes as `ip route` prints them, IPv4 and IPv6."""

    name, source = "default_routes", "network"

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return one line each."""
        return tuple(record.take(1)[0] for record in records)


class Routes(Fact[tuple[host_facts.Route, ...]]):
    """Other IPv4 routes."""

    name, source, when = "routes", "network", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask hosts that K3s runs on."""
        return [self.call()] if query.member.role in NODES else []

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Route, ...]:
        """Return them."""
        return tuple(host_facts.Route(*record.take(2)) for record in records)


class Sockets(Fact[tuple[host_facts.Socket, ...]]):
    """Listening TCP sockets and their processes (ss(8))."""

    name, source = "sockets", "network"

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Socket, ...]:
        """Return them."""
        return tuple(host_facts.Socket(*record.take(2)) for record in records)


class Nameservers(Fact[tuple[str, ...]]):
    """Name servers of resolv.conf."""

    name, source, when = "nameservers", "network", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask hosts that K3s runs on."""
        return [self.call()] if query.member.role in NODES else []

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return their addresses."""
        return tuple(record.take(1)[0] for record in records)


class Reach(Fact[tuple[host_facts.Reach, ...]]):
    """Whether the host can connect to those that it needs; a closed port (connection refused) counts as reachable.

    The tunnels of an agent need every server at all times; other hosts are checked before they are set up.
    """

    name, source = "reach", "network"

    def when_for(self, query: Query) -> When:
        """Return `always` for agents."""
        return "always" if query.member.role == "agents" else "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Try to connect to the hosts of `targets`."""
        words = [word for target in targets(query.cluster, query.member) for word in target]
        return [self.call(*words)] if words else []

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Reach, ...]:
        """Return one result per host."""
        return tuple(host_facts.Reach(*record.take(3)) for record in records)


def targets(cluster: Cluster, member: Member) -> Sequence[tuple[str, str, int]]:
    """Return the hosts that a host must reach: name, address, port."""
    api = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    servers = [(server.name, server.address, api) for server in cluster.of("servers") if server.name != member.name]
    if member.role == "servers":
        port = datastore.kind(cluster).ports[0] if cluster.is_managed else 0
        return [*servers, *((host.name, host.address, port) for host in cluster.of("datastore"))]
    return servers if member.role in ("agents", "lb") else []


class Neighbours(Fact[tuple[host_facts.Neighbour, ...]]):
    """Another machine that answers for the VIP (ip-neighbour(8))."""

    name, source, when = "neighbours", "network", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Look for the VIP from load balancers."""
        address = query.cluster.registration.address
        if query.member.role != "lb" or not address:
            return []
        return [self.call(address, query.cluster.registration.port)]

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Neighbour, ...]:
        """Return them."""
        return tuple(host_facts.Neighbour(*record.take(2)) for record in records)


class UnreachableDatastore(Fact[tuple[host_facts.Unreachable, ...]]):
    """Addresses of an external datastore that a server cannot connect to, and why."""

    name, source = "unreachable", "network"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask servers."""
        if query.cluster.endpoint is None or query.member.role != "servers":
            return []
        return [self.call(*(word for host in parse_endpoint(query.cluster.endpoint).hosts for word in host))]

    def parse(self, records: Sequence[Record]) -> tuple[host_facts.Unreachable, ...]:
        """Return them."""
        return tuple(host_facts.Unreachable(*record.take(2)) for record in records)
