"""What holds for several hosts, once, with their names."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from nornir_k3s.model.finding import Finding

T = TypeVar("T", bound=Hashable)
_OF_THE_HOST = {"host", "id", "since"}


FEW = 8  # names in a message


def few(names: Sequence[str]) -> str:
    """Return these names as text; of many, the first ones and how many others there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def hosts_by(pairs: Iterable[tuple[str, T]]) -> Mapping[T, list[str]]:
    """Return each value once, in the order of its first host, with its hosts.

    Arguments:
        pairs: Host and value.
    """
    found: dict[T, list[str]] = {}
    for host, value in pairs:
        names = found.setdefault(value, [])
        if host not in names:
            names.append(host)
    return found


def together(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings that differ in the host only as one, for people: `host` names all, `since` is the first."""
    kept: dict[str, list[Finding]] = {}
    for one in findings:
        kept.setdefault(one.model_dump_json(exclude=_OF_THE_HOST), []).append(one)
    result = []
    for same in kept.values():
        names = ", ".join(dict.fromkeys(one.host for one in same))
        since = min((one.since for one in same if one.since), default=None)
        result.append(same[0].model_copy(update={"host": names, "since": since}))
    return result
