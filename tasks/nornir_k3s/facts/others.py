"""What hosts serve for others than this cluster."""

from __future__ import annotations

from collections.abc import Iterable

from nornir_k3s import shell
from nornir_k3s.facts.fact import Query, Rows
from nornir_k3s.model.family import Service
from nornir_k3s.model.host_facts import Served
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.settings import ManagedDatastore


class Others(Rows[Served]):
    """Databases, users, frontends and VIPs of others on a datastore host or a load balancer that is not ours yet."""

    name, source, roles, row = "others", "others", ("datastore", "lb"), Served

    def calls(self, query: Query) -> Iterable[str]:
        """Name the kind of service, and the database and users that are this cluster's."""
        if "lb" in query.member.roles:
            yield shell.call("fact_others", STATE, "lb", "")
        if "datastore" in query.member.roles:
            managed = query.cluster.managed
            service = query.family.service(managed.kind)
            yield shell.call("fact_others", STATE, managed.kind, *words(managed, service))


def words(managed: ManagedDatastore, service: Service) -> tuple[str, ...]:
    """Return what says which content of a database server is this cluster's, and how it is packaged."""
    package = service.packages[0] if service.packages else ""
    folder = service.folder.partition("{")[0].rstrip("/")
    return managed.database, package, service.instances, managed.user, folder
