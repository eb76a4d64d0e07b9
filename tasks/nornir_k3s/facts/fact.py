"""Fact: one kind of value that is read from a host: its shell function, its parser, its type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from nornir_k3s import shell
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.records import Record

T = TypeVar("T")
When = Literal["always", "setup", "drift"]


@dataclass(frozen=True)
class Query:
    """What to read from a host.

    Arguments:
        cluster, member: The host and its cluster.
        spec: The desired state, which names the files, units and packages to read.
        drift: Also read the facts that only a drift check needs.
        deep: Hash every large file, even if its size and times are unchanged.
    """

    cluster: Cluster
    member: Member
    spec: HostSpec
    drift: bool = False
    deep: bool = False


class Fact(Generic[T]):
    """One kind of fact.

    `name` is its field of `HostFacts`, the name of its records and, after `fact_`, of the shell function in `source`.
    `when` is `always`; `setup`: only on a host whose service is not active yet; `drift`: only in a drift check.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    when: ClassVar[When] = "always"

    def when_for(self, query: Query) -> When:  # noqa: ARG002 - for subclasses
        """Return when the fact is read on this host."""
        return self.when

    def calls(self, query: Query) -> Iterable[str]:  # noqa: ARG002 - for subclasses
        """Return the lines of shell that read the fact; none if this host does not have it."""
        return [self.call()]

    def call(self, *arguments: object) -> str:
        """Return the call of its shell function."""
        return shell.call(f"fact_{self.name}", *arguments)

    def parse(self, records: Sequence[Record]) -> T:
        """Return the fact from its records.

        Raises:
            RecordError: The shell function does not print such records.
        """
        raise NotImplementedError
