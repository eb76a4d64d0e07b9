"""The results of earlier drift checks on the controller: which findings are new, gone or stayed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError
from nornir_k3s.model.drift_report import DriftReport
from nornir_k3s.model.finding import CHECK, Finding

KEEP = 100
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.json")
_LEVELS = ("accepted", "note", "warning", "error")
# Kinds and checks whose numbers move in every run: only a new severity is news of them.
_MEASURED = {"certificate", "latency", "connections", "table", "compaction", "disk", "unit", "backend"}
_MEASURED_CHECKS = {"clock", "disk", "datastore-latency", "datastore-tls"}
_NUMBER = re.compile(r"\s*[-+]?\d[\d.,:/-]*")
_COUNT = re.compile(r"; \d+ of \d+ servers have it")  # the other servers have findings of their own


class SavedRun(BaseModel):
    """The saved part of a drift report."""

    started: datetime
    seconds: float
    outcome: str
    unreachable: list[str]
    errors: dict[str, str] = Field(default_factory=dict)
    differences: list[Finding]


class History:
    """The folder with the saved runs of one cluster.

    Arguments:
        folder: Created with mode 0700 by the first run.
        keep: How many runs to keep.
    """

    def __init__(self, folder: Path, *, keep: int | None = None) -> None:
        self.folder = folder
        self.keep = keep or KEEP

    def runs(self, last: int = 0) -> list[SavedRun]:
        """Return the saved runs, the latest first; unreadable files are skipped.

        Arguments:
            last: The maximum; all of them by default.
        """
        found = []
        for path in reversed(self._paths()):
            with contextlib.suppress(OSError, ValidationError, ValueError):
                found.append(SavedRun.model_validate_json(path.read_text()))
            if last and len(found) == last:
                break
        return found

    def compare(self, report: DriftReport) -> None:
        """Mark the findings of a report as new or stayed since the run before, and add those that are gone.

        A finding that got worse, or of which something else was found, is new: a file that differed and is missing now.
        """
        runs = self.runs(1)
        last = runs[0] if runs else None
        report.lost = [
            name
            for name in report.unreachable
            if last is None
            or name not in last.unreachable
            or _plain(last.errors.get(name, report.hosts[name].error)) != _plain(report.hosts[name].error)
        ]
        if last is None:
            report.differences = [one.model_copy(update={"age": "new"}) for one in report.differences]
            return
        report.previous = last.started
        report.differences, left = _marked(report.differences, last.differences)
        # The state of an unreachable host is unknown.
        compared = {name for name, host in report.hosts.items() if host.reached} | {"cluster"}
        report.gone = [one for one in left if one.host in compared]

    def add(self, report: DriftReport) -> None:
        """Save a run, 0600, and remove the oldest ones.

        The last findings of an unreachable host are saved again, so that they are not new when it is back.

        Raises:
            UsageError: The folder cannot be written.
        """
        lost = set(report.unreachable)
        carried = [one for run in self.runs(1) for one in run.differences if one.host in lost]
        current = {one.id for one in report.differences}
        saved = SavedRun(
            started=report.started,
            seconds=report.seconds,
            outcome=report.outcome,
            unreachable=report.unreachable,
            errors={name: report.hosts[name].error for name in report.unreachable},
            differences=[*report.differences, *(one for one in carried if one.id not in current)],
        )
        path = self.folder / f"{report.started:%Y%m%dT%H%M%S.%fZ}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic_file.write(path, saved.model_dump_json())
            for old in self._paths()[: -self.keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}", hint="see `state`") from None

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _marked(now: Sequence[Finding], earlier: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Return the findings of now with their age, and the earlier ones that are gone; several can have one id."""
    left = list(earlier)
    marked: dict[int, Finding] = {}
    for same in (True, False):  # first those that are as they were: each earlier finding has one successor
        for place, one in enumerate(now):
            found = next((old for old in left if old.id == one.id and (not same or _stayed(old, one))), None)
            if place in marked or found is None:
                continue
            left.remove(found)
            marked[place] = one.model_copy(
                update={"age": "stayed"} if same else {"age": "new", "before": f"{found.level}: {found.found}"}
            )
    return [marked.get(place) or one.model_copy(update={"age": "new"}) for place, one in enumerate(now)], left


def _stayed(old: Finding, new: Finding) -> bool:
    """Return whether a finding is no news: it is not worse than it was, and it is the same that was found."""
    return (
        _LEVELS.index(new.level) <= _LEVELS.index(old.level) and _lasting(old) == _lasting(new) and old.diff == new.diff
    )


def _lasting(one: Finding) -> str:
    measured = one.subject in _MEASURED_CHECKS if one.kind == CHECK else one.kind in _MEASURED
    return _plain(one.found) if measured else _COUNT.sub("", one.found)


def _plain(text: str) -> str:
    return _NUMBER.sub("", text)
