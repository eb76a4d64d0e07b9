"""What this tool has put on a host; read before a reset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s import shell
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.facts.others import Others, words
from nornir_k3s.model.host_facts import Made
from nornir_k3s.model.paths import DUMPS, STATE
from nornir_k3s.records import Record


class MadeByUs(Fact[Made]):
    """Files, packages, SELinux booleans and dumps of this tool, by its own notes."""

    name, source, when = "made", "made", "reset"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read its own folder."""
        return (STATE, DUMPS)

    def parse(self, records: Sequence[Record]) -> Made:
        """Return the notes."""
        notes: dict[str, dict[str, str]] = {}
        for record in records:
            kind, subject, value = record.take(3)
            notes.setdefault(kind, {})[subject] = value
        return Made(
            state="state" in notes,
            k3s="k3s" in notes,
            files={path: value == "before" for path, value in notes.get("file", {}).items()},
            copies=tuple(notes.get("copy", ())),
            packages=tuple(notes.get("package", ())),
            booleans=tuple(notes.get("boolean", ())),
            stopped=frozenset(notes.get("stopped", ())),
            shared=frozenset(notes.get("shared", ())),
            password="password" in notes,
            dumps=tuple(notes.get("dump", ())),
        )


class Holds(Others):
    """What a datastore host holds beside this cluster's data, whoever installed it; our etcd lets nobody else in."""

    def calls(self, query: Query) -> Iterable[str]:
        """Look without this tool's notes, by which everything counts as ours."""
        if "datastore" not in query.member.roles or query.cluster.managed.kind == "etcd":
            return
        managed = query.cluster.managed
        service = query.family.service(managed.kind)
        yield shell.call("fact_others", "/nowhere", managed.kind, *words(managed, service))


class OtherClusters(Others):
    """Clusters of PostgreSQL that are not this tool's; their data go with the packages."""

    source = "made"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask the host of a PostgreSQL."""
        if "datastore" in query.member.roles and query.cluster.managed.kind == "postgresql":
            yield shell.call("other_clusters")
