"""What a load balancer knows of the servers: their states, and how far they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import machine_facts
from nornir_k3s.model.k3s_facts import Backend
from nornir_k3s.records import Record, RecordError, integer
from nornir_k3s.roles import haproxy, load_balancer


class Backends(Fact[Mapping[str, Backend]]):
    """The state of each server in HAProxy, and since how many seconds (HAProxy's management guide, `show stat`)."""

    name, source, roles = "backends", "load_balancer", ("lb",)

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name HAProxy's sockets."""
        return load_balancer.sockets()

    def parse(self, records: Sequence[Record]) -> Mapping[str, Backend]:
        """Return the states by the servers' names, without HAProxy's row for the whole backend."""
        rows = (record.take(3) for record in records)
        return {
            name: Backend(state, integer(seconds) if seconds else None)
            for name, state, seconds in rows
            if name != "BACKEND"
        }


class RoundTrips(Fact[machine_facts.RoundTrips]):
    """The round trips to the servers' API: measured, until HAProxy's configuration says what it is for.

    Then those of HAProxy's own connections are looked at (ss(8), minrtt), if there are any.
    """

    name, source, roles = "round_trips", "load_balancer", ("lb",)

    def arguments(self, query: Query) -> Iterable[object]:
        """Name HAProxy's configuration, and each server's node, address and port."""
        port = query.cluster.server.get("https-listen-port", k3s.API_PORT)
        servers = query.cluster.of("servers")
        return (haproxy.CONFIG, *(word for one in servers for word in (one.node_name, one.address, port)))

    def parse(self, records: Sequence[Record]) -> machine_facts.RoundTrips:
        """Return them; the record without a server is the configuration's."""
        rows = [record.take(2) for record in records]
        kept = [integer(limit) for name, limit in rows if not name]
        try:
            found = {name: float(milliseconds) for name, milliseconds in rows if name}
        except ValueError as error:
            raise RecordError(f"no round trip: {error}") from None
        return machine_facts.RoundTrips(kept[0] if kept else 0, found)
