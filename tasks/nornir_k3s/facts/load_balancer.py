"""The state of the servers in a load balancer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.k3s_facts import Backend
from nornir_k3s.records import Record, integer
from nornir_k3s.roles.load_balancer import SOCKET


class Backends(Fact[Mapping[str, Backend]]):
    """The state of each server in HAProxy, and since how many seconds (HAProxy's management guide, `show stat`)."""

    name, source, roles, when = "backends", "load_balancer", ("lb",), "drift"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name HAProxy's socket."""
        return (SOCKET,)

    def parse(self, records: Sequence[Record]) -> Mapping[str, Backend]:
        """Return the states by the servers' names, without HAProxy's row for the whole backend."""
        rows = (record.take(3) for record in records)
        return {
            name: Backend(state, integer(seconds) if seconds else None)
            for name, state, seconds in rows
            if name != "BACKEND"
        }
