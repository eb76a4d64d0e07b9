"""The results of earlier drift checks on the controller: which findings are new, gone or stayed."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError
from nornir_k3s.model.drift_report import DriftReport
from nornir_k3s.model.finding import Finding

KEEP = 100
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z\.json")


class SavedRun(BaseModel):
    """The saved part of a drift report."""

    started: datetime
    seconds: float
    outcome: str
    unreachable: list[str]
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
        """Mark the findings of a report as new or stayed since the run before, and add those that are gone."""
        runs = self.runs(1)
        report.lost = [name for name in report.unreachable if not runs or name not in runs[0].unreachable]
        if not runs:
            report.differences = [one.model_copy(update={"age": "new"}) for one in report.differences]
            return
        before = {one.id: one for one in runs[0].differences}
        report.previous = runs[0].started
        report.differences = [
            one.model_copy(update={"age": "stayed" if one.id in before else "new"}) for one in report.differences
        ]
        now = {one.id for one in report.differences}
        # The state of an unreachable host is unknown.
        compared = {name for name, host in report.hosts.items() if host.reached} | {"cluster"}
        report.gone = [one for key, one in before.items() if key not in now and one.host in compared]

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
