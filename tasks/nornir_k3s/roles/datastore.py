"""The desired state of a managed datastore: its hosts, its content, and the endpoint for the servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.family import Family, Service, every
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.roles.datastore_etcd import ETCD
from nornir_k3s.roles.datastore_mysql import MARIADB, MYSQL
from nornir_k3s.roles.datastore_postgresql import POSTGRESQL


class Managed(Protocol):
    """A kind of datastore that this tool sets up."""

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports it listens on; the first one is for K3s."""

    def endpoint(self, cluster: Cluster) -> Secret:
        """Return K3s' endpoint string."""

    def spec(self, cluster: Cluster, member: Member, service: Service) -> HostSpec:
        """Return the desired state of one of its hosts, with its packages, unit and paths there."""

    def missing(self, cluster: Cluster, content: Database) -> list[str]:
        """Return what the datastore lacks: database, users, passwords, rights."""

    def prepare(self, cluster: Cluster) -> Secret:
        """Return a script that creates what is missing."""

    def dump(self, cluster: Cluster, member: Member) -> Recipe:
        """Return how to dump the content to a file on its host."""

    def obsolete_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return the users that no server needs any more."""

    def tidy(self, users: Sequence[str]) -> Secret:
        """Return a script that removes these users."""

    def own_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return all users of this cluster."""

    def drop(self, cluster: Cluster, users: Sequence[str]) -> Secret:
        """Return a script that removes the cluster's database and these users."""


KINDS: Mapping[str, Managed] = {"mariadb": MARIADB, "mysql": MYSQL, "postgresql": POSTGRESQL, "etcd": ETCD}


def kind(cluster: Cluster) -> Managed:
    """Return the kind of the cluster's managed datastore."""
    return KINDS[cluster.managed.kind]


def spoken(cluster: Cluster) -> str:
    """Return the kind of the datastore: of an external one, the protocol that it speaks."""
    return parse(cluster.endpoint).kind if cluster.endpoint else cluster.managed.kind


def spec(cluster: Cluster, member: Member, family: Family, packages: Mapping[str, str]) -> HostSpec:
    """Return the desired state of a datastore host, as far as it is known now.

    Arguments:
        family: Its family of distributions; without a package for the datastore there, nothing is desired.
        packages: Versions of its packages, installed or to be installed; the paths of some files depend on them.
    """
    service = family.service(cluster.managed.kind)
    if service.needs_version:
        version = packages.get(service.packages[0], "").partition("+")[0]
        if not version.isdigit():
            return HostSpec(packages=service.packages)
        service = service.at(version)
    return kind(cluster).spec(cluster, member, service) if service.unit else HostSpec()


def unit(cluster: Cluster, family: Family) -> str:
    """Return the unit that is active when the datastore is set up on a host of this family."""
    return family.service(cluster.managed.kind).main


def units(cluster: Cluster) -> str:
    """Return the names that this unit may have, separated by spaces."""
    return " ".join(dict.fromkeys(service.main for service in every(cluster.managed.kind)))


def endpoint(cluster: Cluster) -> Secret:
    """Return the datastore endpoint for the servers."""
    if cluster.is_managed:
        return kind(cluster).endpoint(cluster)
    if cluster.endpoint is None:
        raise ValueError("an external datastore always has an endpoint")
    return cluster.endpoint


def steps(cluster: Cluster, content: Database) -> list[Step]:
    """Return the step that creates what the datastore lacks, if anything."""
    missing = kind(cluster).missing(cluster, content)
    if not missing:
        return []
    return [Step("database", "inside", f"create {', '.join(missing)}", payload=kind(cluster).prepare(cluster))]


def tidy_steps(cluster: Cluster, content: Database) -> list[Step]:
    """Return the step that removes users that no server needs any more, if any."""
    users = kind(cluster).obsolete_users(cluster, content)
    if not users:
        return []
    return [Step("database", "old users", f"remove {', '.join(users)}", payload=kind(cluster).tidy(users))]
