"""The table of K3s' settings, `k3s_settings.toml`: who takes each, in which form, and since which release."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

TABLE: Mapping[str, Mapping[str, Any]] = tomllib.loads(
    files("nornir_k3s").joinpath("k3s_settings.toml").read_text(encoding="utf-8")
)


def where(**wanted: object) -> frozenset[str]:
    """Return the settings that have these values in the table; of a tuple, any."""
    return frozenset(
        key
        for key, row in TABLE.items()
        if all(row.get(name) in (value if isinstance(value, tuple) else (value,)) for name, value in wanted.items())
    )


def unknown_to(key: str, release: Sequence[int]) -> str:
    """Return why a release of K3s has no such setting, or nothing.

    Arguments:
        key: A setting of the table; others are not judged.
        release: Major, minor and patch version.
    """
    row = TABLE.get(key, {})
    if "since" in row and not reached(row["since"], release):
        return f"it came with K3s {_listed(row['since'])}"
    if "until" in row and reached(row["until"], release):
        return f"it is gone since K3s {_listed(row['until'])}"
    return ""


def deprecated(key: str, release: Sequence[int]) -> str:
    """Return what to write instead of a setting that a release of K3s warns of, or nothing."""
    row = TABLE.get(key, {})
    return str(row["instead"]) if "instead" in row and reached(row["deprecated"], release) else ""


def reached(firsts: Sequence[str], release: Sequence[int]) -> bool:
    """Return whether a release is one of these first ones of their minor versions, or a later one."""
    patches = {tuple(map(int, first.split(".")[:2])): int(first.split(".")[2]) for first in firsts}
    minor = tuple(release[:2])
    return release[2] >= patches[minor] if minor in patches else minor > max(patches)


def _listed(firsts: Sequence[str]) -> str:
    return ", ".join(firsts[:-1]) + (" and " if len(firsts) > 1 else "") + firsts[-1]
