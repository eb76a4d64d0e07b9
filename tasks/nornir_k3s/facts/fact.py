"""Fact: one kind of thing that is read from a host: its shell, its parser, its type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from nornir_k3s import shell
from nornir_k3s.model.cluster import ROLES, Cluster, Member
from nornir_k3s.model.family import DEBIAN, Family
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.records import Record

T = TypeVar("T")
R = TypeVar("R", bound=tuple[Any, ...])
When = Literal["always", "setup", "drift", "upgrade", "reset", "held", "status"]


@dataclass(frozen=True)
class Query:
    """What a host is asked about.

    Arguments:
        cluster, member: Whose host it is.
        spec: What the host must look like: names the files, units and packages to read.
        drift: Read also what only a drift check compares.
        deep: Hash also the large files that look as they did when they were put there.
        family: Its family of distributions, as far as it is known.
    """

    cluster: Cluster
    member: Member
    spec: HostSpec
    drift: bool = False
    deep: bool = False
    family: Family = DEBIAN


class Fact(Generic[T]):
    """One kind of fact.

    `name` is its field of `HostFacts`, the name of its records and, after `fact_`, of the shell function in `source`.
    `roles` says which hosts have it. `when` says when they are asked: `always`; `setup`: only while the host's service
    does not run yet; `drift`: only in a drift check; `upgrade`: in a second look, before a newer minor version;
    `reset`: before all goes; `held`: where the controller lacks a secret; `status`: by `status` alone.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    roles: ClassVar[Sequence[str]] = ROLES
    when: ClassVar[When] = "always"

    def when_for(self, query: Query) -> When:  # noqa: ARG002 - for those that need it
        """Return when this host is asked."""
        return self.when

    def calls(self, query: Query) -> Iterable[str]:
        """Return the lines of shell that read it; none where this host does not have it."""
        if not set(query.member.roles) & set(self.roles):
            return []
        arguments = self.arguments(query)
        return [] if arguments is None else [shell.call(f"fact_{self.name}", *arguments)]

    def arguments(self, query: Query) -> Iterable[object] | None:  # noqa: ARG002 - for those that need it
        """Return the arguments of its shell function; None where there is nothing to ask for."""
        return ()

    def parse(self, records: Sequence[Record]) -> T:
        """Return what its records say.

        Raises:
            RecordError: They are not what the function prints.
        """
        raise NotImplementedError


class Words(Fact[tuple[str, ...]]):
    """A fact of one word a record."""

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return the words."""
        return tuple(record.take(1)[0] for record in records)


class Rows(Fact[tuple[R, ...]], Generic[R]):
    """A fact of one `row`, a named tuple of texts, a record."""

    row: type[R]

    def parse(self, records: Sequence[Record]) -> tuple[R, ...]:
        """Return the rows."""
        fields: Sequence[str] = self.row._fields  # type: ignore[attr-defined]  # of a named tuple
        return tuple(self.row(*record.take(len(fields))) for record in records)
