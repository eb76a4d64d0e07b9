"""What the command `backup` reads from its options and config.yaml, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import Backup, K3sError
from nornir_k3s.cli import backup
from nornir_k3s.cli.arguments import SUBCOMMANDS
from nornir_k3s.inventory import config
from nornir_k3s.model.backup import BackupOptions

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
    words = ("--to", str(tmp_path), "--keep", "3", "--certificate", "c.pem")
    assert backup.run(parsed("backup", *words)) == 0
    assert (work.options.folder, work.options.keep) == (tmp_path, 3)
    assert work.options.certificate == Path("c.pem").absolute()
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
