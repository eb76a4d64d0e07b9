"""The options of workflows and tasks, and those of config.yaml, checked: a misspelt one would have no effect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nornir.core import Nornir
from pydantic import ValidationError

from nornir_k3s.errors import UsageError
from nornir_k3s.inventory.explain import explain
from nornir_k3s.inventory.file_models import Options
from nornir_k3s.model.backup import BackupOptions
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.drill_limits import DrillOptions
from nornir_k3s.model.suggest import did_you_mean

DEADLINES = {
    "connect": 60,
    "observe": 60,
    "dump": 3600,
    "packages": 900,
    "push": 1800,
    "server": 600,
    "agent": 600,
    "apply": 300,
    "verify": 300,
}
WIDTHS = {"stage": 20, "agents": 10}
_KEYS = (
    *("deadlines", "widths", "cache", "sources", "whole", "limits", "keep_runs", "drill", "version", "fresh"),
    *("backup", "renew", "renew_datastore", "new_ca"),
)


def configured(nr: Nornir) -> Options | None:
    """Return `user_defined.k3s` of a Nornir's config.yaml, or None where it has none.

    Raises:
        UsageError: With every problem.
    """
    given = nr.config.user_defined.get("k3s")
    if given is None:
        return None
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        lines = [
            f"user_defined.k3s{'.' * bool(path)}{'.'.join(map(str, path))}: {text}"
            for path, text in explain(error, Options)
        ]
    raise UsageError("\n".join(lines), hint="correct config.yaml; no host was contacted")


def complete(nr: Nornir, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the given options, and those of the Nornir's config.yaml where none is given.

    Raises:
        UsageError: With every problem of either.
    """
    given = dict(options or {})
    check(given)
    own = configured(nr)
    if own is None:
        return given
    more: dict[str, Any] = {
        "backup": own.backup,
        "cache": own.cache,
        "limits": own.drift.limits,
        "keep_runs": own.drift.keep_runs,
        "drill": own.drill,
    }
    merged = {key: {**getattr(own, key), **(given.get(key) or {})} for key in ("deadlines", "widths")}
    return {**{key: value for key, value in more.items() if value is not None}, **given, **merged}


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
    for key, model in (("limits", Limits), ("drill", DrillOptions), ("backup", BackupOptions)):
        try:
            model.model_validate(options.get(key) or {})
        except ValidationError as error:
            problems += [f"{key}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    if problems:
        raise UsageError("; ".join(problems), hint="correct `options`; no host was contacted")


def _unknown(what: str, given: Iterable[object], known: Collection[str]) -> Iterable[str]:
    return [f"{what}: there is no `{name}`" + did_you_mean(name, known) for name in given if name not in known]
