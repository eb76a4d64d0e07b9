"""Packages of the groups datastore and lb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import host_facts
from nornir_k3s.records import Record, RecordError, integer


class Packages(Fact[Mapping[str, str]]):
    """Versions of the spec's packages that are installed (dpkg-query(1))."""

    name, source = "packages", "packages"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the spec's packages."""
        return query.spec.packages or None

    def parse(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Return versions by name."""
        found = {}
        for record in records:
            name, version = record.take(2)
            found[name] = version
        return found


class Apt(Fact[host_facts.Apt]):
    """Whether apt can install the spec's packages: half-installed ones, sources, candidates (apt-cache(8))."""

    name, source, roles, when = "apt", "packages", ("datastore", "lb"), "setup"

    def arguments(self, query: Query) -> Iterable[object]:
        """Ask about the packages of a datastore; those of a load balancer are in every release."""
        return query.spec.packages if "datastore" in query.member.roles else ()

    def parse(self, records: Sequence[Record]) -> host_facts.Apt:
        """Return what apt says."""
        found: dict[str, list[str]] = {"broken": [], "unavailable": [], "sources": []}
        candidates: dict[str, str] = {}
        for record in records:
            match record:
                case ("candidate", name, version):
                    candidates[name] = version
                case (("broken" | "unavailable" | "sources") as kind, value):
                    found[kind].append(value)
                case _:
                    raise RecordError(f"not a record of apt: {record}")
        sources = integer(found["sources"][0]) if found["sources"] else -1
        return host_facts.Apt(tuple(found["broken"]), sources, tuple(found["unavailable"]), candidates)
