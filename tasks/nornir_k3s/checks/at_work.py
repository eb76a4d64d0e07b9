"""Who is at work on the cluster, for those that only read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nornir_k3s.model.host_facts import HostFacts


def owners(facts: Mapping[str, HostFacts]) -> list[str]:
    """Return who changes the cluster, in words; nothing where nobody does."""
    return list(dict.fromkeys(_owners(facts.values())))


def _owners(facts: Iterable[HostFacts]) -> Iterable[str]:
    for one in facts:
        if one.work.held:
            yield str(one.work.owner or f"a run that has just begun on {one.host}")
        if one.lease is not None and one.lease.owner and one.lease.age < one.lease.lasts:
            yield str(one.lease.owner)
