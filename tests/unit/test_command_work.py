"""What remove, replace, upgrade and drill ask, write and return, whatever their workflow does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import Declined, Interrupted, K3sError, Report
from nornir_k3s.cli import drill, remove, replace, upgrade
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.model.drill_limits import Limit
from nornir_k3s.model.drill_report import DrillPlan, DrillReport, PlannedFault
from nornir_k3s.model.removal import Removal
from nornir_k3s.model.upgrade_report import UpgradeReport, UpgradeStep
from nornir_k3s.workflows import drill as drill_workflow
from nornir_k3s.workflows import upgrade as upgrade_workflow

from .test_command_ends import Ctx, ctx, parsed, returns

__all__ = ["ctx"]  # a fixture
INVENTORY = "s2:\n  hostname: 10.0.0.13\n# the third\ns3:\n  hostname: 10.0.0.14\n"
REMOVAL = Removal(
    cluster="test", hosts=["s3"], changes={"s3": ["uninstall K3s"]}, notes=["delete s3 from the inventory"]
)
OLD, NEW = "v1.34.3+k3s1", "v1.35.1+k3s1"


def removes(*_: object, confirm: Callable[[Removal], bool] | None, **__: object) -> Report:
    """Stand in for the workflows of remove and replace."""
    if confirm and not confirm(REMOVAL):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
    return Report(cluster="test", notes=["delete s3 from the inventory", "another"])


def fails(report: Any, error: type[K3sError] = K3sError) -> Callable[..., Any]:
    def work(*_: object, **__: object) -> None:
        failed = error("s3: it broke")
        failed.report = report
        raise failed

    return work


@pytest.fixture
def hosts(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the hosts, with the session around it, and both workflows."""
    path = tmp_path / "hosts.yaml"
    path.write_text(INVENTORY)
    monkeypatch.setattr(ctx, "config", SimpleNamespace(sources=Sources({"hosts": read(path)})), raising=False)
    for module, work in ((remove, "remove"), (replace, "replace")):
        monkeypatch.setattr(module, work, removes)
        monkeypatch.setattr(module, f"plan_{work.replace('remove', 'removal').replace('place', 'placement')}", planned)
    return path


def planned(*_: object, **__: object) -> Removal:
    return REMOVAL.model_copy(deep=True)


def answers(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Sit at a terminal and answer."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(type(ctx.err), "is_terminal", True)
    monkeypatch.setattr(ctx.err, "input", returns(answer))


def test_a_plan_of_a_removal_says_where_the_host_is_and_writes_it(ctx: Ctx, hosts: Path, tmp_path: Path) -> None:
    assert remove.run(parsed("remove", "s3", "--plan", "--json", str(tmp_path / "plan"))) == 0
    assert f"s3 is in {hosts}:4; --write deletes it there" in ctx.said
    assert json.loads((tmp_path / "plan").read_text())["changes"] == {"s3": ["uninstall K3s"]}
    assert hosts.read_text() == INVENTORY


@pytest.mark.parametrize(("command", "verb"), [("remove", "remove s3 from"), ("replace", "replace s3 in")])
def test_without_a_terminal_it_shows_the_plan_and_needs_yes(
    ctx: Ctx, hosts: Path, monkeypatch: pytest.MonkeyPatch, command: str, verb: str
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    module = {"remove": remove, "replace": replace}[command]
    assert module.run(parsed(command, "s3")) == 2
    assert f"{verb} cluster test" in ctx.said
    assert "add --yes" in ctx.said


@pytest.mark.parametrize("command", ["remove", "replace"])
def test_it_asks_once_on_a_terminal(ctx: Ctx, hosts: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    module = {"remove": remove, "replace": replace}[command]
    answers(ctx, monkeypatch, "n")
    assert module.run(parsed(command, "s3")) == Declined.exit_code
    assert ctx.said.count("uninstall K3s") == 1
    answers(ctx, monkeypatch, "y")
    assert module.run(parsed(command, "s3")) == 0


@pytest.mark.parametrize("command", ["remove", "replace"])
def test_a_failure_shows_how_far_it_came(
    ctx: Ctx, hosts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    module = {"remove": remove, "replace": replace}[command]
    monkeypatch.setattr(module, command, fails(Report(cluster="test", notes=["how far"])))
    assert module.run(parsed(command, "s3", "--yes", "--json", str(tmp_path / "report"))) == 1
    assert Report.model_validate_json((tmp_path / "report").read_text()).notes == ["how far"]
    assert "s3: it broke" in ctx.said
    monkeypatch.setattr(module, command, fails(None))
    assert module.run(parsed(command, "s3", "--yes")) == 1


@pytest.mark.usefixtures("ctx")
def test_write_cuts_the_host_out_and_only_then(hosts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert remove.run(parsed("remove", "s3", "--yes", "--json", str(report))) == 0
    assert hosts.read_text() == INVENTORY
    told = ["delete s3 from the inventory", "another", f"s3 is in {hosts}:4; --write deletes it there"]
    assert json.loads(report.read_text())["notes"] == told
    monkeypatch.setattr(remove, "remove", fails(Report(cluster="test")))
    assert remove.run(parsed("remove", "s3", "--yes", "--write")) == 1
    assert hosts.read_text() == INVENTORY, "a removal that failed is run again"
    monkeypatch.setattr(remove, "remove", removes)
    assert remove.run(parsed("remove", "s3", "--yes", "--write", "--json", str(report))) == 0
    assert hosts.read_text() == "s2:\n  hostname: 10.0.0.13\n# the third\n"
    assert json.loads(report.read_text())["notes"] == ["another"]


def path(state: Any = "done", line: str = "") -> UpgradeReport:
    return UpgradeReport(
        cluster="test",
        inventory_version=OLD,
        inventory_line=line,
        nodes={"s1": OLD, "a1": OLD},
        ways={"s1": [NEW], "a1": [NEW]},
        steps=[UpgradeStep(version=NEW, state=state, report=Report(cluster="test"))],
        exit_code=0 if state == "done" else 1,
    )


def upgrades(report: UpgradeReport) -> Callable[..., UpgradeReport]:
    def work(*_: object, confirm: Any, tell: Callable[[str], None], **__: object) -> UpgradeReport:
        if confirm and not confirm(report):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        tell(f"to {NEW}")
        return report

    return work


def test_the_path_of_an_upgrade_is_shown_first(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upgrade_workflow, "plan", returns(path("not begun")))
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--plan", "--json", str(tmp_path / "plan"))) == 0
    assert f"s1: {OLD} → {NEW}\n" in ctx.said
    assert json.loads((tmp_path / "plan").read_text())["path"] == [NEW]
    monkeypatch.setattr(upgrade_workflow, "upgrade", upgrades(path()))
    answers(ctx, monkeypatch, "no")
    assert upgrade.run(parsed("upgrade", "--to", "v1.35")) == Declined.exit_code
    answers(ctx, monkeypatch, "y")
    assert upgrade.run(parsed("upgrade", "--to", "v1.35")) == 0
    assert f"to {NEW}\n" in ctx.said
    assert f"{NEW}: done\n" in ctx.said


@pytest.mark.parametrize("text", ["  version: {}  # kept\n", "  version: '{}'\n", '  {{"version": "{}"}}\n'])
@pytest.mark.usefixtures("ctx")
def test_an_upgrade_writes_the_version_where_it_stands(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, before = tmp_path / "defaults.yaml", text.format(OLD)
    file.write_text(before)
    report = path(line=f"{file}:1")
    monkeypatch.setattr(upgrade_workflow, "upgrade", upgrades(report))
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--yes")) == 0
    assert file.read_text() == before
    assert report.notes == [f"write `version: {NEW}` in {file}:1: the next deploy would refuse to go back"]
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--yes", "--write")) == 0
    assert file.read_text() == text.format(NEW)


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "is in no file that can be changed"), ("{0}:1", f"does not say `version: {OLD}`")],
)
def test_a_version_that_stands_elsewhere_is_left_to_the_user(
    ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(f"data:\n  version: {OLD}\n")
    monkeypatch.setattr(upgrade_workflow, "upgrade", upgrades(path(line=line.format(file))))
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--yes", "--write")) == 2
    assert said in ctx.said
    assert file.read_text() == f"data:\n  version: {OLD}\n"


def test_an_upgrade_that_failed_leaves_the_inventory(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upgrade_workflow, "upgrade", fails(path("failed")))
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--yes", "--write", "--json", str(tmp_path / "report"))) == 1
    assert f"{NEW}: failed\n" in ctx.said
    assert f"now: {OLD}: s1, a1\n" in ctx.said
    assert json.loads((tmp_path / "report").read_text())["steps"][0]["state"] == "failed"
    report = path("failed")
    monkeypatch.setattr(upgrade_workflow, "upgrade", upgrades(report))
    assert upgrade.run(parsed("upgrade", "--to", "v1.35", "--yes")) == 1
    assert report.notes == []


DRILL = DrillReport(cluster="test", version=OLD, url="https://10.0.0.100:6443")
FAULTS = DrillPlan(
    cluster="test",
    url=DRILL.url,
    namespace="nornir-k3s-drill",
    faults=[PlannedFault(id="server-stop:s1", what="stop K3s on s1", seconds=8, limit=Limit(failed=0))],
)


def drills(*_: object, confirm: Any, tell: Callable[[str], None], **__: object) -> DrillReport:
    if confirm and not confirm(FAULTS):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
    tell("server-stop:s1")
    return DRILL


def test_a_drill_asks_before_it_breaks_something(ctx: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drill_workflow, "plan", returns(FAULTS))
    monkeypatch.setattr(drill_workflow, "drill", drills)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert drill.run(parsed("drill")) == 2
    assert "add --yes" in ctx.said
    answers(ctx, monkeypatch, "n")
    assert drill.run(parsed("drill")) == Declined.exit_code
    answers(ctx, monkeypatch, "y")
    assert drill.run(parsed("drill")) == 0
    files = [str(tmp_path / name) for name in ("json", "html", "svg")]
    assert drill.run(parsed("drill", "--yes", "--json", files[0], "--html", files[1], "--svg", files[2])) == 0
    assert json.loads(Path(files[0]).read_text())["outcome"] == "ok"
    assert Path(files[1]).read_text().startswith("<!doctype html>")
    assert "<svg" in Path(files[2]).read_text()


@pytest.mark.usefixtures("ctx")
def test_a_drill_that_was_stopped_writes_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped = DRILL.model_copy(update={"interrupted": True})
    monkeypatch.setattr(drill_workflow, "drill", fails(stopped, Interrupted))
    assert drill.run(parsed("drill", "--yes", "--json", str(tmp_path / "report"))) == 130
    assert json.loads((tmp_path / "report").read_text())["outcome"] == "interrupted"
