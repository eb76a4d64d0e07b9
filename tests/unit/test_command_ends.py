"""How commands end: the question that is answered with no, the exit code of a plan, and what -v prints."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nornir.core.task import Result, Task

from nornir_k3s import Declined, Plan, Report, Status
from nornir_k3s.cli import arguments, deploy, session
from nornir_k3s.cli import plan as plan_command
from nornir_k3s.cli import status as status_command
from nornir_k3s.cli.console import Screen, Verbose, confirmed
from nornir_k3s.model.plan import Change, HostPlan
from nornir_k3s.model.status import Certificate

from .test_progress import nornir


@dataclass
class Ctx:
    """A session without Nornir."""

    out: Screen
    err: Screen
    nr: Any = None
    log: Path = Path("/nowhere/log")
    arguments: Any = None

    def report_console(self, _json: Path | None) -> Screen:
        return self.out

    @property
    def said(self) -> str:
        assert isinstance(self.out.file, io.StringIO)
        return self.out.file.getvalue()


def returns(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_more: value


@pytest.fixture
def ctx(monkeypatch: pytest.MonkeyPatch) -> Ctx:
    out = Screen(file=io.StringIO(), width=100, highlight=False, soft_wrap=True)
    found = Ctx(out, out, nr=nornir("s1"), arguments={})
    monkeypatch.setattr(session, "_settings", returns(None))
    monkeypatch.setattr(session, "opened", returns(found))
    monkeypatch.setattr(session, "Screen", returns(out))
    return found


def parsed(name: str, *words: str) -> argparse.Namespace:
    return arguments.subcommand(name, Path("config.yaml")).parse_args(words)


@pytest.mark.parametrize("answer", ["n", "", "no", "nein", None])
def test_no_and_the_end_of_the_input_are_no(answer: str | None) -> None:
    def ask() -> str:
        if answer is None:
            raise EOFError
        return answer

    assert confirmed(ask) is False
    assert confirmed(lambda: " Yes ") is True


def test_no_at_the_question_of_a_deploy_is_no_error(
    ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def declines(*args: object, **more: object) -> Report:
        error = Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        error.report = Report(cluster="test")
        error.report.end(error, "declined")
        raise error

    monkeypatch.setattr(deploy, "deploy", declines)
    assert deploy.run(parsed("deploy", "--json", str(tmp_path / "report"))) == Declined.exit_code == 6
    assert ctx.said == "Aborted: not confirmed; nothing was changed\n"
    report = Report.model_validate_json((tmp_path / "report").read_text())
    assert (report.outcome, report.exit_code, report.error) == ("declined", 6, None)
    assert not caplog.records


CHANGE = Change(id="s1/file:/x", phase="servers", kind="file", target="/x", summary="change /x")


@pytest.mark.parametrize(
    ("words", "changes", "code"),
    [
        (["plan"], [CHANGE], 0),
        (["plan", "--exit-code"], [CHANGE], 3),
        (["plan", "--exit-code"], [], 0),
        (["deploy", "--plan"], [CHANGE], 0),
        (["deploy", "--plan", "--exit-code"], [CHANGE], 3),
    ],
)
def test_a_plan_has_an_exit_code_for_changes_where_it_is_asked_for(
    ctx: Ctx, monkeypatch: pytest.MonkeyPatch, words: list[str], changes: list[Change], code: int
) -> None:
    hosts = {"s1": HostPlan(role="servers", changes=changes)}
    made = Plan(cluster="test", version="v1.34.9+k3s1", hosts=hosts, phases=["servers"])
    monkeypatch.setattr(plan_command, "plan", returns(made))
    run: Callable[[argparse.Namespace], int] = {"plan": plan_command.run, "deploy": deploy.run}[words[0]]
    assert run(parsed(*words)) == code
    assert "change /x" in ctx.said or not changes


@dataclass
class Data:
    """What a phase hands to the next one."""

    number: int = 1


@pytest.mark.parametrize("data", [Data(), [Data()], ("/path", 5), {"a": 1}])
def test_verbose_prints_texts_and_diffs_and_no_objects(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def work(task: Task) -> Result:
        return Result(host=task.host, result=data if task.host.name == "s1" else ["file:/x"], diff="+line")

    results = nornir("s1", "s2").with_processors([Verbose()]).run(task=work, name="status")
    said = capsys.readouterr().out
    assert results["s1"].result is data, "the phase still has it"
    for words in ("* s1", "file:/x", "+line"):
        assert words in said
    for words in ("Data(", "number", "/path", "{"):
        assert words not in said


def test_verbose_status_lists_every_certificate(ctx: Ctx, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Status(cluster="test", version="v1.34.9+k3s1", url="https://10.0.0.100:6443")
    found.certificates = [
        Certificate(host=name, path="/p", days=days, authority=False) for name, days in (("s1", 90), ("s2", 365))
    ]
    monkeypatch.setattr(status_command, "status", returns(found))
    assert status_command.run(parsed("status")) == 0
    assert "365 days" not in ctx.said
    assert status_command.run(parsed("status", "-v")) == 0
    assert "  365 days: /p on s2" in ctx.said
