"""Who is at work on the cluster, for those that only read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.work import Owner


def owners(facts: Mapping[str, HostFacts], *, but: str = "") -> list[str]:
    """Return who changes the cluster, in words; nothing where nobody does.

    Arguments:
        but: The id of an owner that does not count: the run that asks.
    """
    return list(dict.fromkeys(str(one) for one in _owners(facts.values()) if isinstance(one, str) or one.id != but))


def _owners(facts: Iterable[HostFacts]) -> Iterable[Owner | str]:
    for one in facts:
        if one.work.held:
            yield one.work.owner or f"a run that has just begun on {one.host}"
        if one.lease is not None and one.lease.owner and one.lease.age < one.lease.lasts:
            yield one.lease.owner
