"""K3s settings of a host: those of its own, its groups and the defaults added up, and what is hidden by that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nornir.core.inventory import Host

from nornir_k3s import k3s
from nornir_k3s.inventory.named_items import by_name, name_of
from nornir_k3s.inventory.problems import Problems
from nornir_k3s.model.masking import without_credentials
from nornir_k3s.plugins.inherited import HOST, levels

_SHOWN = 5  # names of hosts in a note


@dataclass(frozen=True)
class Hidden:
    """A value that a nearer level hides."""

    key: str
    text: str
    level: str
    by: str


@dataclass
class Merged:
    """The settings of one host, the level that each comes from, and what is hidden."""

    settings: dict[str, Any] = field(default_factory=dict)
    level: dict[str, str] = field(default_factory=dict)
    hidden: list[Hidden] = field(default_factory=list)

    def add(self, key: str, value: Any, level: str) -> None:  # noqa: ANN401 - a setting as it stands in the file
        """Add a setting of a nearer level; what it hides is noted."""
        plain = key.rstrip("+")
        if key != plain:  # it adds to what is there, or else to the settings of the whole cluster
            target = plain if plain in self.settings else key
            self.settings[target] = [*_items(self.settings.get(target, [])), *_items(value)]
            self.level.setdefault(target, level)
            return
        before = [*_items(self.settings.pop(f"{key}+", [])), *_items(self.settings.get(key, []))]
        if by_name(key):
            names = {name_of(key, item) for item in _items(value)}
            kept = [item for item in before if name_of(key, item) not in names]
            self._note(key, [item for item in before if item not in kept and item not in _items(value)], level)
            self.settings[key] = [*kept, *_items(value)] if kept else value
        else:
            gone = before if sorted(map(str, _flat(key, before))) != sorted(map(str, _flat(key, _items(value)))) else []
            self._note(key, gone, level)
            self.settings[key] = value
        self.level[key] = level

    def drop(self, keys: Iterable[str]) -> None:
        """Remove settings, and what is said of them."""
        gone = set(keys)
        self.settings = {key: value for key, value in self.settings.items() if key not in gone}
        self.hidden = [one for one in self.hidden if one.key not in gone]

    def _note(self, key: str, gone: Sequence[Any], by: str) -> None:
        if gone:
            text = ", ".join(_shown(key, item) for item in gone)
            self.hidden.append(Hidden(key, text, self.level.get(key) or self.level.get(f"{key}+", ""), by))


def of(host: Host, problems: Problems) -> Merged | None:
    """Return the settings of a host, nearest level first; None if a level is no mapping."""
    found, wrong = Merged(), False
    for name, data in reversed(list(levels(host, "k3s"))):
        if isinstance(data, Mapping):
            for key, value in data.items():
                found.add(str(key), value, name)
            continue
        wrong = True
        what = "it is empty: write `{}`, or remove it" if data is None else "it must be a mapping of settings"
        problems.host(host.name, f"`k3s` of {name}: {what}", "data", "k3s")
    return None if wrong else found


def over(shared: Mapping[str, Any], own: Merged, source: str) -> Iterator[Hidden]:
    """Yield the settings of the whole cluster that those of a host hide.

    Arguments:
        shared: Those of its role, typed.
        source: The mapping that they are in.
    """
    for key, value in own.settings.items():
        plain = key.removesuffix("+")
        before, given = _items(shared.get(plain, [])), _flat(plain, _items(value))
        names = {name_of(plain, item) for item in given} if by_name(plain) else set()
        if key != plain:  # it adds, and hides only what has the same name
            before = [item for item in before if name_of(plain, item) in names]
        items = [item for item in before if item not in given]
        if items:
            text = ", ".join(_shown(plain, item) for item in items)
            yield Hidden(key, text, source, own.level.get(key, HOST))


def notes(hidden: Iterable[tuple[str, Hidden]]) -> tuple[str, ...]:
    """Return one note for each value that is hidden, with the hosts on which it is.

    Arguments:
        hidden: Name of the host, and what is hidden there.
    """
    hosts: dict[Hidden, list[str]] = defaultdict(list)
    for host, one in hidden:
        hosts[one].append(host)
    return tuple(
        f"{', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}:"
        f" `{one.key}` of {one.by} hides {one.text} of {one.level}"
        for one, names in hosts.items()
    )


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - a setting
    return value if isinstance(value, list) else [value]


def _flat(key: str, items: list[Any]) -> list[Any]:
    """Return the items of a list as K3s has them: some are split at commas."""
    if key not in k3s.SPLIT:
        return items
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def _shown(key: str, item: Any) -> str:  # noqa: ANN401 - an item of a setting
    if key in k3s.SECRETS or isinstance(item, Mapping):
        return "a secret"
    return without_credentials(str(item))
