"""What a host inherits for one key of its data, level by level; Nornir itself returns the first level only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nornir.core.inventory import Host

HOST = "the host"
DEFAULTS = "the defaults"


def levels(host: Host, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each level that has this key, in Nornir's order: host, its groups, defaults.

    Groups come in the host's order, each before its own parents (nornir: core/inventory.py, extended_groups).
    """
    named = [(HOST, host.data), *((f"group {group.name}", group.data) for group in host.extended_groups())]
    for name, data in (*named, (DEFAULTS, host.defaults.data)):
        if key in data:
            yield name, data[key]


def added_up(host: Host, key: str) -> dict[str, Any]:
    """Return the mappings of all levels added up: of each of their keys the value of the nearest level."""
    found: dict[str, Any] = {}
    for _, value in levels(host, key):
        if isinstance(value, Mapping):
            found = {**value, **found}
    return found
