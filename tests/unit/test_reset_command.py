"""What `reset` asks, writes and returns, whatever its workflow does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import Declined, K3sError, Report
from nornir_k3s.cli import reset
from nornir_k3s.model.reset import Reset

from .test_command_ends import Ctx, ctx, parsed, returns
from .test_command_work import fails

__all__ = ["ctx"]  # a fixture
PLAN = Reset(
    cluster="cluster", changes={"s1": ["uninstall K3s"]}, datastore={"db1": ["stop mariadb.service"]}, notes=["kept"]
)
NOTHING = Reset(cluster="cluster", changes={}, notes=[])


class Work:
    """Stands in for the workflow, and keeps what it was told."""

    plan = PLAN

    def __call__(self, *_: object, confirm: Any, datastore: Any, lost: Any) -> Report:
        self.lost = lost
        if confirm and not confirm(self.plan):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        self.datastore = datastore(self.plan) if callable(datastore) else datastore
        return Report(cluster="cluster")


@pytest.fixture
def work(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Work:
    found = Work()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(reset, "reset", found)
    monkeypatch.setattr(reset, "plan_reset", lambda *_, **__: PLAN.model_copy(deep=True))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    return found


def answers(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, *given: str | None) -> None:
    """Sit at a terminal and answer; None is the end of the input."""
    left = list(given)

    def typed(*_: object, **__: object) -> str:
        one = left.pop(0)
        if one is None:
            raise EOFError
        return one

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(type(ctx.err), "is_terminal", True)
    monkeypatch.setattr(ctx.err, "input", typed)


@pytest.mark.usefixtures("work")
def test_a_plan_shows_the_datastore_apart_and_timers_of_the_controller(ctx: Ctx, tmp_path: Path) -> None:
    timer = tmp_path / "systemd" / "user" / "nornir-k3s-drift-cluster.timer"
    timer.parent.mkdir(parents=True)
    timer.touch()
    assert reset.run(parsed("reset", "--plan", "--json", str(tmp_path / "plan"))) == 0
    assert "s1: uninstall K3s" in ctx.said
    assert "only if that is asked for:\n  db1: stop mariadb.service" in ctx.said
    notes = json.loads((tmp_path / "plan").read_text())["notes"]
    assert notes == ["kept", f"{timer} still runs for this cluster: `nornir-k3s schedule remove`"]


def test_a_host_that_has_nothing_of_it_is_said(ctx: Ctx, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "plan_reset", returns(NOTHING))
    assert reset.run(parsed("reset", "--plan")) == 0
    assert "nothing of this tool is left on its hosts" in ctx.said


@pytest.mark.parametrize(
    ("given", "code", "datastore"),
    [
        (["n"], 6, None),
        ([None], 6, None),
        (["y", ""], 0, False),
        (["y", None], 0, False),
        (["y", "clustre"], 0, False),
        (["y", "cluster"], 0, True),
    ],
)
def test_it_asks_once_and_for_the_datastore_by_name(
    ctx: Ctx, work: Work, monkeypatch: pytest.MonkeyPatch, given: list[str | None], code: int, *, datastore: bool | None
) -> None:
    answers(ctx, monkeypatch, *given)
    assert reset.run(parsed("reset")) == code
    assert getattr(work, "datastore", None) is datastore


def test_a_cluster_without_a_datastore_of_ours_is_not_asked_for_it(
    ctx: Ctx, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.plan = NOTHING
    answers(ctx, monkeypatch, "y")
    assert reset.run(parsed("reset")) == 0
    assert work.datastore is False


def test_a_script_says_what_it_wants(ctx: Ctx, work: Work) -> None:
    assert reset.run(parsed("reset")) == 2
    assert "add --yes" in ctx.said
    assert reset.run(parsed("reset", "--yes", "--lost", "a1,a2")) == 0
    assert (work.datastore, work.lost) == (False, ("a1", "a2"))
    assert reset.run(parsed("reset", "--yes", "--datastore", "cluster")) == 0
    assert work.datastore is True
    assert reset.run(parsed("reset", "--yes", "--datastore", "prod")) == 2
    assert "--datastore prod: this is cluster cluster" in ctx.said


@pytest.mark.usefixtures("work")
def test_a_failure_shows_how_far_it_came(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reset, "reset", fails(Report(cluster="cluster", notes=["how far"]), K3sError))
    assert reset.run(parsed("reset", "--yes", "--json", str(tmp_path / "report"))) == 1
    assert Report.model_validate_json((tmp_path / "report").read_text()).notes == ["how far"]
    monkeypatch.setattr(reset, "reset", fails(None))
    assert reset.run(parsed("reset", "--yes")) == 1
