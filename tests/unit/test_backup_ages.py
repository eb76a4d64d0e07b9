"""The age of the last backup: what status, drift and the metrics tell of it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from nornir_k3s import DriftReport, Status
from nornir_k3s.compare import backup
from nornir_k3s.model.backup import LastBackups
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.report import prometheus, terminal
from nornir_k3s.state import backups

from .test_left import prepared
from .test_removal import THREE

NOW = datetime.now(UTC)


def hours(count: float) -> datetime:
    return NOW - timedelta(hours=count)


@pytest.mark.parametrize(
    ("made", "verified", "words"),
    [
        (None, None, ""),
        (0.5, None, "the last backup is less than an hour old (x), none was verified"),
        (1.5, 30.5, "the last backup is 1 hour old (x), the last verified one is 30 hours old"),
        (73, None, "the last backup is 3 days old (x), none was verified"),
    ],
)
def test_the_ages_in_words(made: float | None, verified: float | None, words: str) -> None:
    now = datetime.now(UTC)  # which is not the time at which the tests were collected
    times = [None if count is None else now - timedelta(hours=count) for count in (made, verified)]
    last = LastBackups(made=times[0], verified=times[1], place="x")
    assert str(last) == words
    console = Console(file=io.StringIO(), width=200)
    terminal.show_status(Status(cluster="c", version="v1.34.9+k3s1", url="u", backups=last), console)
    assert isinstance(console.file, io.StringIO)
    assert ("backup" in console.file.getvalue()) == bool(words)
    assert words in console.file.getvalue()


def test_one_that_is_too_old_is_drift() -> None:
    assert list(backup.differences(LastBackups(), Limits(), NOW)) == []
    last = LastBackups(made=hours(24 * 6), place="x")
    assert list(backup.differences(last, Limits(), NOW)) == []
    (one,) = backup.differences(last, Limits(backup_days=2), NOW)
    assert (one.id, one.severity, one.found) == ("cluster/backup:last", "warning", "the last backup is 6 days old")
    assert one.since == last.made


def test_the_metrics_have_both() -> None:
    report = DriftReport(cluster="c", started=NOW)
    assert "backup_age" not in prometheus.metrics(report)
    report.backups = LastBackups(made=hours(1), verified=hours(2))
    lines = prometheus.metrics(report).splitlines()
    assert 'nornir_k3s_drift_backup_age_seconds{cluster="c"} 3600.0' in lines
    assert 'nornir_k3s_drift_verified_backup_age_seconds{cluster="c"} 7200.0' in lines


def test_a_verified_one_is_remembered(tmp_path: Path) -> None:
    store = prepared(THREE, tmp_path).store
    assert backups.last(store) == LastBackups()
    backups.save(store, hours(2), "first", verified=True)
    backups.save(store, hours(1), "second", verified=False)
    assert backups.last(store) == LastBackups(made=hours(1), verified=hours(2), place="second")
