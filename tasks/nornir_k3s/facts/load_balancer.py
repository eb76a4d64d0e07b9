"""What a load balancer knows of the servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.host_facts import Backend
from nornir_k3s.records import Record, integer

SOCKET = "/run/haproxy/admin.sock"


class Backends(Fact[Mapping[str, Backend]]):
    """Each server as HAProxy sees it, and for how many seconds (HAProxy's management guide, `show stat`)."""

    name, source, roles, when = "backends", "load_balancer", ("lb",), "drift"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name HAProxy's socket."""
        return (SOCKET,)

    def parse(self, records: Sequence[Record]) -> Mapping[str, Backend]:
        """Return them by the servers' names; HAProxy's row for all of them is left out."""
        rows = (record.take(3) for record in records)
        return {
            name: Backend(state, integer(seconds) if seconds else None)
            for name, state, seconds in rows
            if name != "BACKEND"
        }
