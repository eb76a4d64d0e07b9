"""The options of workflows and tasks, checked: a misspelt one would have no effect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from nornir_k3s.errors import UsageError
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.suggest import did_you_mean
from nornir_k3s.run.context import DEADLINES, WIDTHS

_KEYS = ("deadlines", "widths", "cache", "sources", "whole", "limits", "keep_runs")


def check(options: Mapping[str, Any]) -> None:
    """Check the names of options, `limits`, and the numbers of `deadlines` (seconds) and `widths` (hosts at a time).

    Raises:
        UsageError: With every problem.
    """
    problems = list(_unknown("option", options, _KEYS))
    for key, known, unit in (("deadlines", DEADLINES, "seconds"), ("widths", WIDTHS, "hosts")):
        given = options.get(key) or {}
        if not isinstance(given, Mapping):
            problems.append(f"`{key}` is a mapping of names to {unit}")
            continue
        problems += _unknown(key, given, known)
        problems += [
            f"{key}: `{name}` is a number of {unit} above 0, not {value!r}"
            for name, value in given.items()
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0
        ]
    try:
        Limits.model_validate(options.get("limits") or {})
    except ValidationError as error:
        problems += [f"limits: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    if problems:
        raise UsageError("; ".join(problems), hint="correct `options`; no host was contacted")


def _unknown(what: str, given: Iterable[object], known: Collection[str]) -> Iterable[str]:
    return [f"{what}: there is no `{name}`" + did_you_mean(name, known) for name in given if name not in known]
