"""A host of group datastore: what it must look like, what is wrong inside, and the endpoint that the servers get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.host_facts import Database
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.roles.datastore_etcd import ETCD
from nornir_k3s.roles.datastore_mysql import MARIADB, MYSQL
from nornir_k3s.roles.datastore_postgresql import POSTGRESQL


class Managed(Protocol):
    """A kind of datastore that this tool sets up."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens: for K3s first."""

    @property
    def unit(self) -> str:
        """The unit whose activity shows that its package is installed and at work."""

    def alive(self, member: Member) -> str:
        """Return a shell command that is true while it answers on its host."""

    def endpoint(self, cluster: Cluster) -> Secret:
        """Return the endpoint as K3s takes it."""

    def spec(self, cluster: Cluster, member: Member, packages: Mapping[str, str]) -> HostSpec:
        """Return what one of its hosts must look like."""

    def lacks(self, cluster: Cluster, inside: Database) -> list[str]:
        """Return in words what is not inside yet."""

    def prepare(self, cluster: Cluster) -> Secret:
        """Return a script that makes what it lacks."""

    def dump(self, cluster: Cluster, member: Member) -> Recipe:
        """Return how what is inside is written to a file on its host."""

    def old(self, cluster: Cluster, inside: Database) -> list[str]:
        """Return the users that no server needs any more."""

    def tidy(self, users: Sequence[str]) -> Secret:
        """Return a script that removes these users."""


KINDS: Mapping[str, Managed] = {"mariadb": MARIADB, "mysql": MYSQL, "postgresql": POSTGRESQL, "etcd": ETCD}


def kind(cluster: Cluster) -> Managed:
    """Return how the cluster's managed datastore is set up."""
    return KINDS[cluster.managed.kind]


def spec(cluster: Cluster, member: Member, packages: Mapping[str, str]) -> HostSpec:
    """Return what the datastore host must look like, as far as is known now.

    Arguments:
        packages: Versions of its packages, installed or to be installed: some name their folders after them.
    """
    return kind(cluster).spec(cluster, member, packages)


def endpoint(cluster: Cluster) -> Secret:
    """Return the datastore endpoint every server gets."""
    if cluster.is_managed:
        return kind(cluster).endpoint(cluster)
    if cluster.endpoint is None:
        raise ValueError("an external datastore always has an endpoint")
    return cluster.endpoint


def steps(cluster: Cluster, inside: Database) -> list[Step]:
    """Return the step that gives the datastore what it lacks inside, if anything."""
    lacks = kind(cluster).lacks(cluster, inside)
    if not lacks:
        return []
    return [Step("database", "inside", f"create {', '.join(lacks)}", payload=kind(cluster).prepare(cluster))]


def tidy_steps(cluster: Cluster, inside: Database) -> list[Step]:
    """Return the step that removes users which no server needs any more, if there are any."""
    users = kind(cluster).old(cluster, inside)
    if not users:
        return []
    return [Step("database", "old users", f"remove {', '.join(users)}", payload=kind(cluster).tidy(users))]
