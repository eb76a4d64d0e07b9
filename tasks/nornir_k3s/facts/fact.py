"""Fact: one kind of thing that is read from a host: its shell, its parser, its type."""

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
    """What a host is asked about.

    Arguments:
        cluster, member: Whose host it is.
        spec: What the host must look like: names the files, units and packages to read.
        drift: Read also what only a drift check compares.
        deep: Hash also the large files that look as they did when they were put there.
    """

    cluster: Cluster
    member: Member
    spec: HostSpec
    drift: bool = False
    deep: bool = False


class Fact(Generic[T]):
    """One kind of fact.

    `name` is its field of `HostFacts`, the name of its records and, after `fact_`, of the shell function in `source`.
    `when` says which hosts are asked: `always`; `setup`: only one whose service is not at work yet; `drift`: only in a
    drift check.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    when: ClassVar[When] = "always"

    def asked(self, query: Query) -> When:  # noqa: ARG002 - for those that need it
        """Return when this host is asked."""
        return self.when

    def calls(self, query: Query) -> Iterable[str]:  # noqa: ARG002 - for those that need it
        """Return the lines of shell that read it; none where this host does not have it."""
        return [self.call()]

    def call(self, *arguments: object) -> str:
        """Return the call of its shell function."""
        return shell.call(f"fact_{self.name}", *arguments)

    def parse(self, records: Sequence[Record]) -> T:
        """Return what its records say.

        Raises:
            RecordError: They are not what the function prints.
        """
        raise NotImplementedError
