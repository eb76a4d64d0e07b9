"""What samples of probes mean: failures, gaps, lost writes, and which limits are broken. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nornir_k3s.model.drill_limits import Limit
from nornir_k3s.model.drill_report import STEP, FaultResult, ProbeResult, WatchResult


@dataclass(frozen=True)
class Sample:
    """One request of a probe.

    Arguments:
        begin, end: Of time.monotonic().
        error: Why it failed, or nothing.
        name: Of the object that it wrote.
    """

    begin: float
    end: float
    error: str = ""
    name: str = ""


def result(
    place: str, kind: Literal["read", "write"], samples: Sequence[Sample], *, begin: float, end: float, healed: float
) -> ProbeResult:
    """Return what a probe met.

    Arguments:
        begin, end: When it began and ended; the time before the first answer counts as a gap, as after the last one.
        healed: When the fault ended.
    """
    answered = sorted(one.end for one in samples if not one.error)
    since, until = longest_gap([begin, *answered, end])
    return ProbeResult(
        place=place,
        kind=kind,
        requests=len(samples),
        failed=sum(1 for one in samples if one.error),
        gap=round(until - since, 3),
        back=round(max(0.0, until - healed), 3),
        errors=dict(Counter(one.error for one in samples if one.error).most_common(5)),
        timeline=timeline(samples, begin, end),
    )


def longest_gap(moments: Sequence[float]) -> tuple[float, float]:
    """Return the two neighbours of a sorted list that are farthest apart."""
    pairs = list(pairwise(moments)) or [(0.0, 0.0)]
    return max(pairs, key=lambda pair: pair[1] - pair[0])


def timeline(samples: Sequence[Sample], begin: float, end: float) -> str:
    """Return a letter for each quarter of a second, by what ended then: `f` failed, `a` all answered, `-` nothing."""
    letters = ["-"] * max(1, int((end - begin) / STEP) + 1)
    for one in samples:
        at = min(len(letters) - 1, max(0, int((one.end - begin) / STEP)))
        letters[at] = "f" if one.error or letters[at] == "f" else "a"
    return "".join(letters)


def lost(acknowledged: Collection[str], held: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Return how many acknowledged writes each server does not have, if any.

    Arguments:
        held: The names that each server lists.
    """
    missing = {server: len(set(acknowledged) - set(names)) for server, names in held.items()}
    return {server: count for server, count in missing.items() if count}


def watched(seen: Collection[str], held: Collection[str], *, events: int, reconnects: int) -> WatchResult:
    """Return what a watch saw, compared with what the datastore holds."""
    missed, phantom = set(held) - set(seen), set(seen) - set(held)
    return WatchResult(events=events, reconnects=reconnects, missed=len(missed), phantom=len(phantom))


def broken(found: FaultResult) -> Iterator[str]:
    """Yield the limits that a fault broke, in words, with the worst probe; writes that are lost are always one."""
    limit, probes = found.limit, found.probes
    one = max(probes, key=lambda one: one.failed, default=None)
    if one and limit.failed is not None and one.failed > limit.failed:
        yield f"{one.failed} of {one.requests} {_from(one)} failed; limit {limit.failed}"
    one = max(probes, key=lambda one: one.gap, default=None)
    if one and limit.gap is not None and one.gap > limit.gap:
        yield f"no answer for {one.gap:.2f} s, {_from(one)}; limit {limit.gap:g} s"
    one = max(probes, key=lambda one: one.back, default=None)
    if one and limit.back is not None and one.back > limit.back:
        yield f"no answer until {one.back:.2f} s after the fault, {_from(one)}; limit {limit.back:g} s"
    if limit.died is not None and len(found.died) > limit.died:
        yield f"K3s ended on {', '.join(found.died)}; limit {limit.died}"
    for server, count in found.lost.items():
        yield f"{server} does not have {count} of {found.acknowledged} acknowledged writes"
    if found.watch and (found.watch.missed or found.watch.phantom):
        yield (
            f"the watch missed {found.watch.missed} objects of the datastore,"
            f" and saw {found.watch.phantom} that it does not hold"
        )


def _from(one: ProbeResult) -> str:
    return f"{one.kind}s from {one.place}"


def together(limit: Limit, other: Limit) -> Limit:
    """Return what two faults at once may cost: of each the more generous limit."""

    def larger(name: str) -> float | None:
        values = getattr(limit, name), getattr(other, name)
        return None if None in values else max(values)

    return Limit(**{name: larger(name) for name in Limit.model_fields})  # type: ignore[arg-type]  # each its own type
