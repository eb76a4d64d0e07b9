"""K3s as it is installed on servers and agents, whoever did it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nornir_k3s import k3s_installed
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.paths import STATE
from nornir_k3s.records import Record, RecordError, decoded, integer

_KINDS = {"environment": "environments", "settings": "files", "token": "tokens"}


class Installations(Fact[tuple[Installed, ...]]):
    """Every K3s whose settings this tool does not know, with those of its unit, environment and files.

    It is one that this tool did not install, or one to which somebody has added flags or drop-ins.

    Their values are secret in part. Sources: those of `k3s_installed`.

    Arguments:
        everything: Read also one that this tool has installed.
    """

    name, source, roles = "installations", "k3s_installed", NODES

    def __init__(self, *, everything: bool = False) -> None:
        self._everything = everything

    def arguments(self, query: Query) -> Iterable[object]:
        """Name its own folder, which are read, and what the host's K3s is."""
        role = "agent" if query.member.role == "agents" else "server"
        return (STATE, "everything" if self._everything else "others", role)

    def parse(self, records: Sequence[Record]) -> tuple[Installed, ...]:
        """Return each, by its unit's name."""
        made: list[dict[str, Any]] = []
        for record in records:
            if record[:1] == ("unit",):
                _, name, active, enabled, ours, text = record.take(6)
                made.append({"name": name, "text": decoded(text), "environments": [], "files": [], "tokens": []})
                made[-1]["ours"] = ours == "yes"
                made[-1] |= {"active": active in ("active", "activating", "reloading"), "enabled": enabled == "enabled"}
                continue
            kind, path, text = record.take(3)
            if made and kind == "changed":
                made[-1]["changed"] = max(integer(path), made[-1].get("changed", 0))
                continue
            if not made or kind not in _KINDS:
                raise RecordError(f"not a file of a unit: {record}")
            made[-1][_KINDS[kind]].append((path, decoded(text)))
        found = [one for given in made if (one := k3s_installed.installed(**given))]
        return tuple(sorted(found, key=lambda one: one.unit))
