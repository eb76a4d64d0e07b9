"""systemd units, and the files of K3s' installer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.host_facts import UnitState
from nornir_k3s.model.paths import STATE
from nornir_k3s.records import Record, RecordError

LINKS = "/usr/local/bin"  # where the installer links kubectl, crictl and ctr, unless the host has its own


class Units(Fact[Mapping[str, UnitState]]):
    """The units of the spec (systemctl show); times in seconds since the epoch.

    Source: org.freedesktop.systemd1(5). A unit's lines come together; an empty one ends them.
    """

    name, source = "units", "units"

    def calls(self, query: Query) -> Iterable[str]:
        """Read the units of the spec."""
        return [self.call(*(unit.name for unit in query.spec.units))] if query.spec.units else []

    def parse(self, records: Sequence[Record]) -> Mapping[str, UnitState]:
        """Return each unit's state by its name."""
        found: dict[str, UnitState] = {}
        unit: dict[str, str] = {}
        for record in [*records, Record(("",))]:
            (line,) = record.take(1)
            key, equal, value = line.partition("=")
            if line and not equal:
                raise RecordError(f"not a property of a unit: {record}")
            if line:
                unit[key] = value
            elif "Id" in unit:
                found[unit["Id"]] = _state(unit)
                unit = {}
        return found


def _state(unit: Mapping[str, str]) -> UnitState:
    return UnitState(
        load=unit.get("LoadState", ""),
        active=unit.get("ActiveState", ""),
        sub=unit.get("SubState", ""),
        enabled=unit.get("UnitFileState", ""),
        restarts=_number(unit.get("NRestarts", "")),
        started=_number(unit.get("ExecMainStartTimestamp", "").lstrip("@")),
        changed=_number(unit.get("StateChangeTimestamp", "").lstrip("@")),
        command=unit.get("ExecStart", "").partition("argv[]=")[2].partition(" ;")[0].strip(),
        dropins=tuple(unit.get("DropInPaths", "").split()),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0  # systemd also prints `[not set]` and `n/a`


class MissingLinks(Fact[tuple[str, ...]]):
    """Missing links of K3s' installer (k3s: install.sh, create_symlinks)."""

    name, source = "missing_links", "units"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask nodes."""
        return [self.call(LINKS)] if query.spec.install else []

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return their paths."""
        return tuple(record.take(1)[0] for record in records)


class ForeignUnits(Fact[tuple[str, ...]]):
    """Units of a K3s that this tool did not install."""

    name, source, when = "foreign_units", "units", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask nodes."""
        return [self.call(STATE)] if query.member.role in NODES else []

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return their names."""
        return tuple(record.take(1)[0] for record in records)
