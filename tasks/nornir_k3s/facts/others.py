"""What hosts serve for others than this cluster."""

from __future__ import annotations

from collections.abc import Iterable

from nornir_k3s import shell
from nornir_k3s.facts.fact import Query, Rows
from nornir_k3s.model.host_facts import Served
from nornir_k3s.model.paths import STATE


class Others(Rows[Served]):
    """Databases, keys, frontends and VIPs of others on a datastore host or a load balancer that is not ours yet."""

    name, source, roles, row = "others", "others", ("datastore", "lb"), Served

    def calls(self, query: Query) -> Iterable[str]:
        """Name the kind of service, and the database that is this cluster's."""
        if "lb" in query.member.roles:
            yield shell.call("fact_others", STATE, "lb", "")
        if "datastore" in query.member.roles:
            managed = query.cluster.managed
            service = query.family.service(managed.kind)
            words = (*service.packages[:1], service.instances) if service.packages else ("", "")
            yield shell.call("fact_others", STATE, managed.kind, managed.database, *words)
