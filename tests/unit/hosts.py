"""Facts of hosts, for tests that need no host."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

from nornir_k3s.model.host_facts import HostFacts


def changed(facts: HostFacts, **values: Any) -> HostFacts:
    """Return facts with some changed; a mapping changes fields of a fact that has fields."""
    new: dict[str, Any] = {}
    for name, value in values.items():
        before = getattr(facts, name)
        new[name] = replace(before, **value) if is_dataclass(before) and isinstance(value, dict) else value  # type: ignore[type-var]
    return replace(facts, **new)
