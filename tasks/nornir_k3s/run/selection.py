"""Choice: the hosts and phases that the operator selects, and the confirmation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nornir.core import Nornir

from nornir_k3s.errors import UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.suggest import closest


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> bool: ...


P = TypeVar("P", bound=_Named)
# They change nothing, and every other phase needs their results.
ALWAYS = ("observe", "artifacts", "preflight")
_ROLES = "roles come from the groups datastore, servers, agents and lb, or those in k3s_cluster.groups"


@dataclass(frozen=True)
class Choice:
    """Which part of a deploy is carried out.

    Arguments:
        limit: Names of hosts and groups: no other host is changed; empty for all.
        until: The last phase.
        only: The only phase, after observe, artifacts and preflight.
        skip_unreachable: Go on without load balancers that are down, too, unless one may hold the VIP.
        ignore_window: Restart K3s outside `rolling_update.window`, too.
        trial: Seconds; servers and agents that run take their change back then, unless a new login confirms it before.
        confirm: Called before a running cluster is changed, with the planned changes of each host; False aborts.

    Raises:
        UsageError: `limit` is a text.
    """

    limit: tuple[str, ...] = ()
    until: str = ""
    only: str = ""
    confirm: Callable[[Mapping[str, Sequence[str]]], bool] | None = None
    skip_unreachable: bool = False
    ignore_window: bool = False
    trial: int = 0

    def __post_init__(self) -> None:
        """Refuse a text as `limit`: its letters would be names of hosts."""
        if isinstance(self.limit, str):
            raise UsageError(f"limit={self.limit!r} is a text", hint=f"give a tuple of names: limit=({self.limit!r},)")

    def chain(self, phases: Sequence[P]) -> list[P]:
        """Return the phases to run.

        Raises:
            UsageError: There is no phase of that name.
        """
        names = [phase.name for phase in phases]
        for wanted in (self.until, self.only):
            if wanted and wanted not in names:
                raise _unknown("phase", wanted, names)
        if self.only:
            return [phase for phase in phases if phase.name in (*ALWAYS, self.only)]
        chain = list(phases[: names.index(self.until) + 1]) if self.until else list(phases)
        # The preflight asks nothing of the release: it needs none, if it is the last phase.
        return [one for one in chain if self.until != "preflight" or one.name != "artifacts"]

    def first_change(self, phases: Sequence[P]) -> str:
        """Return the name of the first phase that changes a host, or nothing."""
        return next((phase.name for phase in phases if not phase.reads), "")

    def hosts(self, nr: Nornir, cluster: Cluster) -> frozenset[str] | None:
        """Return the names of the hosts that may be changed, or None for all.

        Raises:
            UsageError: There is no host or group of this name, or it has no role in the cluster.
        """
        if not self.limit:
            return None
        members = [member.name for member in cluster.members]
        found: set[str] = set()
        for word in self.limit:
            if word in members:
                found.add(word)
            elif word in nr.inventory.groups:
                hosts = nr.inventory.hosts
                chosen = {name for name in members if name in hosts and hosts[name].has_parent_group(word)}
                if not chosen:
                    raise UsageError(f"no host of group {word!r} has a role in this cluster", hint=_ROLES)
                found |= chosen
            elif word in nr.inventory.hosts:
                raise UsageError(f"host {word!r} has no role in this cluster", hint=_ROLES)
            else:
                raise _unknown("host or group", word, [*members, *nr.inventory.groups])
        return frozenset(found)


def _unknown(what: str, word: str, known: Sequence[str]) -> UsageError:
    near = closest(word, known)
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(known)}"
    return UsageError(f"there is no {what} {word!r}", hint=hint)
