"""What the commands `backup` and `restore` read from its options and config.yaml, ask, write and return."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import Backup, Declined, K3sError, Report, Restoration, UsageError
from nornir_k3s.cli import backup, restore, schedule
from nornir_k3s.cli.arguments import SUBCOMMANDS
from nornir_k3s.inventory import config
from nornir_k3s.model.backup import BackupOptions, Manifest

from .test_command_ends import Ctx, ctx, parsed

__all__ = ["ctx"]  # a fixture


class Work:
    """The workflow, and the options that it got."""

    def __init__(self, patch: pytest.MonkeyPatch, ctx: Ctx) -> None:
        self.options = BackupOptions()
        self.error: K3sError | None = None
        ctx.arguments = {"options": {"backup": BackupOptions(folder=Path("/srv"), keep=30), "whole": True}}
        patch.setattr(backup, "backup", self.made)
        patch.setattr(backup, "plan_backup", lambda _nr, **_: Backup(cluster="test", planned=True, steps=["dump it"]))

    def made(self, _nr: object, *, options: dict[str, Any]) -> Backup:
        assert options["whole"]
        self.options = options["backup"]
        if self.error:
            raise self.error
        return Backup(cluster="test", place="/srv/x", bytes=2048, sha256="abc", removed=["/srv/old"], notes=["a note"])


@pytest.fixture
def work(ctx: Ctx, monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch, ctx)


def test_the_options_win_over_the_configuration(work: Work, ctx: Ctx, tmp_path: Path) -> None:
    assert backup.run(parsed("backup", "--json", str(tmp_path / "out"))) == 0
    assert (work.options.folder, work.options.keep) == (Path("/srv"), 30)
    assert json.loads((tmp_path / "out").read_text())["place"] == "/srv/x"
    assert ctx.said.splitlines() == [
        "backup: /srv/x, 2 KiB",
        "SHA-256: abc",
        "removed: /srv/old",
        "note: a note",
    ]
    words = ("--to", str(tmp_path), "--keep", "3", "--certificate", "c.pem", "--verify")
    assert backup.run(parsed("backup", *words)) == 0
    assert (work.options.folder, work.options.keep) == (tmp_path, 3)
    assert (work.options.certificate, work.options.verify) == (Path("c.pem").absolute(), True)
    assert backup.run(parsed("backup", "--command", "sh -c 'cat >x'")) == 0
    assert work.options.command == ["sh", "-c", "cat >x"]


@pytest.mark.parametrize("text", ["'", " "])
def test_a_command_that_is_none(work: Work, ctx: Ctx, text: str) -> None:
    assert backup.run(parsed("backup", "--command", text)) == 2
    assert "--command: " in ctx.said


def test_a_plan_is_shown(work: Work, ctx: Ctx) -> None:
    assert backup.run(parsed("backup", "--plan")) == 0
    assert ctx.said.splitlines() == ["back cluster test up", "  dump it"]


def test_a_failure_is_written_too(work: Work, ctx: Ctx, tmp_path: Path) -> None:
    work.error = K3sError("db1: no room")
    work.error.report = Backup(cluster="test", outcome="failed")
    assert backup.run(parsed("backup", "--json", str(tmp_path / "out"))) == 1
    assert json.loads((tmp_path / "out").read_text())["outcome"] == "failed"
    assert "db1: no room" in ctx.said


def test_what_excludes_what() -> None:
    for name, words, wrong in (
        ("backup", ("--to", "x", "--command", "y"), True),
        ("backup", ("--to", "x"), False),
        ("schedule", ("install", "--job", "backup", "--html", "x"), True),
        ("schedule", ("install", "--job", "backup"), False),
        ("schedule", ("install", "--deadline", "0"), True),
    ):
        assert bool(SUBCOMMANDS[name].conflict(parsed(name, *words))) is wrong


def test_paths_of_the_configuration_are_relative_to_it(tmp_path: Path) -> None:
    for name in ("hosts", "groups", "defaults"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    (tmp_path / "config.yaml").write_text("user_defined: {k3s: {backup: {folder: mine, command: 'cat x'}}}\n")
    found = config.load(tmp_path / "config.yaml").options.backup
    assert found.below(tmp_path) == BackupOptions(folder=tmp_path / "mine", command=["cat", "x"])
    assert found.keep == 14


def test_a_folder_that_the_service_cannot_make_is_told_when_the_timer_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    given = {"backup": BackupOptions(folder=tmp_path / "new")}
    found: Any = SimpleNamespace(
        nr=SimpleNamespace(inventory=SimpleNamespace(defaults=SimpleNamespace(data={"k3s_cluster": {"name": "prod"}}))),
        config=SimpleNamespace(path=tmp_path / "config.yaml", state=tmp_path, cache=tmp_path),
        arguments={"options": given},
    )
    args = parsed("schedule", "install", "--job", "backup")
    args.jobs = {"backup": ["nornir-k3s", "backup"]}
    with pytest.raises(UsageError, match=r"backup\.folder: .*new is not a folder"):
        schedule.schedule(found, args)
    (tmp_path / "new").mkdir()
    assert tmp_path / "new" in schedule.schedule(found, args).writes


PLAN = Restoration(
    cluster="test",
    file="x.tar",
    manifest=Manifest(
        cluster="test",
        k3s_version="v1.34.9+k3s1",
        datastore="mariadb",
        token="0" * 12,
        created=datetime(2026, 11, 26, tzinfo=UTC),
    ),
    changes={"s1": ["stop K3s"]},
    notes=["a note"],
)
SHOWN = ["restore cluster test from x.tar, of 2026-11-26 00:00:00 UTC", "  s1: stop K3s", "note: a note"]


class Restored:
    """The workflow of a restore."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error: K3sError | None = None
        self.ran = False
        patch.setattr(restore, "restore", self.restored)
        patch.setattr(restore, "plan_restore", lambda _nr, _file, **_: PLAN)

    def restored(self, *_: object, confirm: Callable[[Restoration], bool] | None, **__: object) -> Report:
        if confirm and not confirm(PLAN):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        if self.error:
            raise self.error
        self.ran = True
        return Report(cluster="test")


@pytest.fixture
def restored(ctx: Ctx, monkeypatch: pytest.MonkeyPatch) -> Restored:
    return Restored(monkeypatch)


def test_the_plan_of_a_restore_is_shown_and_written(restored: Restored, ctx: Ctx, tmp_path: Path) -> None:
    assert restore.run(parsed("restore", "x.tar", "--plan", "--json", str(tmp_path / "plan"))) == 0
    assert ctx.said.splitlines() == SHOWN
    assert json.loads((tmp_path / "plan").read_text())["changes"] == {"s1": ["stop K3s"]}
    assert restore.run(parsed("restore", "x.tar", "--plan")) == 0
    assert not restored.ran


def test_without_a_terminal_it_needs_yes(restored: Restored, ctx: Ctx) -> None:
    assert restore.run(parsed("restore", "x.tar")) == 2
    assert ctx.said.splitlines()[:3] == SHOWN
    assert "--yes" in ctx.said
    assert not restored.ran
    assert restore.run(parsed("restore", "x.tar", "--yes")) == 0
    assert restored.ran


@pytest.mark.parametrize(("answer", "code"), [("test", 0), (" test ", 0), ("y", 6), ("", 6), (None, 6)])
def test_it_asks_for_the_name_of_the_cluster(
    restored: Restored, ctx: Ctx, monkeypatch: pytest.MonkeyPatch, answer: str | None, code: int
) -> None:
    def typed(*_: object, **__: object) -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(type(ctx.err), "is_terminal", True)
    monkeypatch.setattr(ctx.err, "input", typed)
    assert restore.run(parsed("restore", "x.tar")) == code
    assert restored.ran is (code == 0)


def test_a_restore_that_failed_shows_its_report(restored: Restored, ctx: Ctx, tmp_path: Path) -> None:
    for report in (Report(cluster="test", notes=["half"]), None):
        restored.error = K3sError("s1: it broke")
        restored.error.report = report
        assert restore.run(parsed("restore", "x.tar", "--yes", "--json", str(tmp_path / "out"))) == 1
    assert json.loads((tmp_path / "out").read_text())["notes"] == ["half"]
    assert "s1: it broke" in ctx.said
