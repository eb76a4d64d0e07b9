"""A Nornir inventory from files that were read already: Nornir uses exactly the data that was validated.

It builds the same objects as Nornir's SimpleInventory (nornir `plugins/inventory/simple.py`), but skips invalid
entries, so that all other problems of the inventory are found in the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nornir.core.inventory import (
    ConnectionOptions,
    Defaults,
    Group,
    Groups,
    Host,
    Hosts,
    Inventory,
    ParentGroups,
)
from nornir.core.plugins.inventory import InventoryPluginRegister

from nornir_k3s.errors import InventoryError

NAME = "k3s_loaded_inventory"
_BASIC = ("hostname", "port", "username", "password", "platform")
_Element = TypeVar("_Element", Host, Group)


class LoadedInventory:
    """Nornir's inventory from the data of hosts.yaml, groups.yaml and defaults.yaml.

    Arguments:
        data: The content of each file, by `hosts`, `groups` and `defaults`, validated.
        problems: Errors of files that could not be read.
        files: The options of SimpleInventory, from which other paths are derived.
    """

    def __init__(self, data: Mapping[str, Any], problems: Sequence[str] = (), **files: str) -> None:
        self._data = data
        self._problems = problems
        self.files = files

    def load(self) -> Inventory:
        """Return the inventory.

        Raises:
            InventoryError: A file could not be read.
        """
        if self._problems:
            raise InventoryError(self._problems)
        raw = _mapping(self._data.get("defaults"))
        defaults = Defaults(
            data=_mapping(raw.get("data")),
            connection_options=_connections(raw),
            **{key: raw.get(key) for key in _BASIC},
        )
        hosts, groups = _mapping(self._data.get("hosts")), _mapping(self._data.get("groups"))
        made = Groups({name: _element(Group, name, entry, defaults) for name, entry in groups.items()})
        members = Hosts({name: _element(Host, name, entry, defaults) for name, entry in hosts.items()})
        for name, group in made.items():
            # A circle, which has been reported, is left open: Nornir would follow it for ever.
            group.groups = ParentGroups(
                one for one in _parents(groups[name], made) if one is not group and not one.has_parent_group(group)
            )
        for name, host in members.items():
            host.groups = _parents(hosts[name], made)
        return Inventory(hosts=members, groups=made, defaults=defaults)


def register() -> str:
    """Register the plugin with Nornir and return its name."""
    InventoryPluginRegister.register(NAME, LoadedInventory)
    return NAME


def _element(kind: type[_Element], name: str, entry: object, defaults: Defaults) -> _Element:
    raw = _mapping(entry)
    return kind(
        name=name,
        data=_mapping(raw.get("data")),
        defaults=defaults,
        connection_options=_connections(raw),
        **{key: raw.get(key) for key in _BASIC},
    )


def _connections(raw: dict[str, Any]) -> dict[str, ConnectionOptions]:
    return {
        name: ConnectionOptions(
            extras=_mapping(options).get("extras"), **{key: _mapping(options).get(key) for key in _BASIC}
        )
        for name, options in _mapping(raw.get("connection_options")).items()
    }


def _parents(entry: object, groups: Groups) -> ParentGroups:
    wanted = _mapping(entry).get("groups")
    return ParentGroups(groups[name] for name in (wanted if isinstance(wanted, list) else ()) if _known(name, groups))


def _known(name: object, groups: Groups) -> bool:
    return isinstance(name, str) and name in groups


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
