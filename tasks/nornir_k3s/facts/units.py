"""systemd units, and what K3s' installer has made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query, Words
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.host_facts import UnitState
from nornir_k3s.model.paths import STATE
from nornir_k3s.records import Record, RecordError

FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
LINKS = "/usr/local/bin"  # where the installer puts kubectl, crictl and ctr, unless the host has its own


class Units(Fact[Mapping[str, UnitState]]):
    """The units of the spec (systemctl show); times in seconds since the epoch.

    Source: org.freedesktop.systemd1(5). A unit's lines come together; an empty one ends them.
    """

    name, source = "units", "units"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the spec's units."""
        return [unit.name for unit in query.spec.units] or None

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
    return int(text) if text.isascii() and text.isdigit() else 0  # systemd writes `[not set]` and `n/a`, too


class MissingLinks(Words):
    """Links of K3s' installer that are gone (k3s: install.sh, create_symlinks)."""

    name, source = "missing_links", "units"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask where the installer has run."""
        return (LINKS,) if query.spec.install else None


class ForeignUnits(Words):
    """Units of a K3s, or of another Kubernetes, that this tool did not install."""

    name, source, roles = "foreign_units", "units", NODES

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read its own folder, and those of units (systemd.unit(5))."""
        return (STATE, *FOLDERS)
