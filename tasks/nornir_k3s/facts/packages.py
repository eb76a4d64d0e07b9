"""Packages of the groups datastore and lb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import machine_facts
from nornir_k3s.records import Record, RecordError, integer


class Packages(Fact[Mapping[str, str]]):
    """Versions of the spec's packages that are installed (dpkg-query(1), rpm(8))."""

    name, source = "packages", "packages"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the spec's packages."""
        return (query.family.manager, *query.spec.packages) if query.spec.packages else None

    def parse(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Return versions by name."""
        found = {}
        for record in records:
            name, version = record.take(2)
            found[name] = version
        return found


class Repositories(Fact[machine_facts.Repositories]):
    """Whether the spec's packages can be installed: broken ones, sources, candidates (apt-cache(8), dnf(8))."""

    name, source, roles, when = "repositories", "packages", ("datastore", "lb"), "setup"

    def arguments(self, query: Query) -> Iterable[object]:
        """Ask about the packages of a datastore; those of a load balancer are in every release."""
        return (query.family.manager, *(query.spec.packages if "datastore" in query.member.roles else ()))

    def parse(self, records: Sequence[Record]) -> machine_facts.Repositories:
        """Return what the package manager says."""
        found: dict[str, list[str]] = {"broken": [], "unavailable": [], "sources": []}
        candidates: dict[str, str] = {}
        for record in records:
            match record:
                case ("candidate", name, version):
                    candidates[name] = version
                case (("broken" | "unavailable" | "sources") as kind, value):
                    found[kind].append(value)
                case _:
                    raise RecordError(f"not a record of a package manager: {record}")
        sources = integer(found["sources"][0]) if found["sources"] else -1
        return machine_facts.Repositories(tuple(found["broken"]), sources, tuple(found["unavailable"]), candidates)
