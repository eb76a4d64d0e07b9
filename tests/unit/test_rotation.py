"""What rotations do in common: the command, the table of what can be rotated, and the password of the database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import tasks
from nornir_k3s.cli import options_of_changes
from nornir_k3s.cli import rotate as command
from nornir_k3s.errors import Busy, Declined, OutsideWindow, UsageError
from nornir_k3s.model.plan import Change, HostPlan, Plan
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import window
from nornir_k3s.phases.cluster_lock import ClusterLock
from nornir_k3s.run import gather, shared
from nornir_k3s.state import locks
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows import rotate, rotate_database_password

from .conftest import HOSTS
from .test_command_ends import Ctx, ctx, parsed, returns
from .test_command_work import answers, fails
from .test_left import nr, prepared

__all__ = ["ctx"]  # a fixture

PLANNED = Rotation(cluster="test", what="token", notes=["a note"])
PLANNED.add(["s1", "s2"], "restart k3s.service")
PLANNED.add([], "nothing, nowhere")


def change(host: str, phase: str, summary: str) -> Change:
    return Change(id=f"{host}/{summary}", phase=phase, kind="file", target="x", summary=summary)


def test_the_command_offers_what_can_be_rotated() -> None:
    assert tuple(options_of_changes.ROTATED) == tuple(rotate.KINDS)


def test_what_cannot_be_rotated_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match=r"database-pasword cannot be rotated.*did you mean"):
        rotate.plan_rotation(nr(HOSTS), "database-pasword")


def test_a_secret_that_is_made_anew_is_saved_only_when_it_is_committed(tmp_path: Path) -> None:
    Store(tmp_path, base=tmp_path).write("token", "old\n")
    fresh = Store(tmp_path, base=tmp_path, keep=False, fresh=("token",))
    assert fresh.secret("token", None, make=lambda: Secret("new")).reveal() == "new"
    fresh.commit()
    assert Store(tmp_path, base=tmp_path).secret("token", None).reveal() == "old"


class Deployed:
    """A cluster in memory whose deploys and plans are recorded."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.deploys = folder, list[dict[str, Any]]()
        self.file = folder / "state" / "test" / "datastore-password"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("old\n")
        monkeypatch.setattr(rotate_database_password, "deploy", self._deploy)
        monkeypatch.setattr(plans, "plan", self._plan)
        monkeypatch.setattr(gather, "gather_facts", returns(None))

    def _deploy(self, _: object, **given: Any) -> Report:
        self.deploys.append(given)
        return Report(cluster="test")

    def _plan(self, _: object, **given: Any) -> Plan:
        assert given["options"]["fresh"] == ("datastore-password",)
        hosts = {
            "db1": HostPlan(role="datastore", changes=[change("db1", "datastore", "create a user")]),
            "s1": HostPlan(role="servers", changes=[change("s1", "first-server", "change config.yaml")]),
            "s2": HostPlan(role="servers", changes=[change("s2", "servers", "change config.yaml")]),
        }
        phases = ["datastore", "first-server", "servers"]
        return Plan(cluster="test", version="v", hosts=hosts, phases=phases, batches=[], notes=["later"])

    def rotate(self, settings: dict[str, Any] | None = None, **given: Any) -> Report:
        external = "endpoint" in (settings or {}).get("datastore", {})
        team = nr({name: host for name, host in HOSTS.items() if name != "db1" or not external})
        team.inventory.defaults.data["k3s_cluster"] |= settings or {}
        arguments = {"base": self.folder, "state": self.folder / "state", **given}
        return rotate.rotate(team, "database-password", **arguments)


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    return Deployed(tmp_path, monkeypatch)


def test_a_new_password_is_planned_saved_and_deployed(deployed: Deployed) -> None:
    asked: list[Rotation] = []

    def confirm(plan: Rotation) -> bool:
        asked.append(plan)
        return True

    deployed.rotate(confirm=confirm, ignore_window=True)
    assert [(step.hosts, step.what) for step in asked[0].steps][1:] == [
        (["db1"], "create a user"),
        (["s1"], "change config.yaml"),
        (["s2"], "change config.yaml"),
        (["db1"], "remove the user with the old password"),
    ]
    assert asked[0].notes == ["later"]
    assert deployed.deploys[0]["choice"].ignore_window
    new = deployed.file.read_text()
    assert new != "old\n"
    assert deployed.file.stat().st_mode & 0o777 == 0o600
    deployed.rotate()
    assert deployed.file.read_text() != new


def test_an_agent_that_is_down_keeps_no_password_from_being_rotated(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient: list[Any] = []
    monkeypatch.setattr(gather, "gather_facts", lambda _, **given: lenient.append(given["lenient"]))
    deployed.rotate()
    assert lenient == [["a1"]]


def test_a_plan_changes_nothing_and_neither_does_a_no_nor_a_deploy_meanwhile(deployed: Deployed) -> None:
    found = rotate.plan_rotation(nr(HOSTS), "database-password", base=deployed.folder, state=deployed.folder / "state")
    assert found.what == "database-password"
    with pytest.raises(Declined):
        deployed.rotate(confirm=lambda _: False)
    with locks.deploy_lock(deployed.file.parent), pytest.raises(Busy):
        deployed.rotate()
    assert deployed.file.read_text() == "old\n"
    assert deployed.deploys == []


def test_no_password_is_made_while_another_controller_works(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(*_: object) -> None:
        raise Busy("ann@ci-7 deploys")

    monkeypatch.setattr(ClusterLock, "require", require)
    with pytest.raises(Busy):
        deployed.rotate()
    assert [path.name for path in deployed.file.parent.glob("datastore-password*")] == ["datastore-password"]
    assert deployed.file.read_text() == "old\n"
    assert deployed.deploys == []


def test_no_password_is_made_outside_the_window(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "closed", lambda run: "" if run.ignore_window else "Mon")
    with pytest.raises(OutsideWindow, match="nothing was changed"):
        deployed.rotate()
    assert deployed.file.read_text() == "old\n"
    deployed.rotate(ignore_window=True)
    assert deployed.file.read_text() != "old\n"


@pytest.mark.parametrize("name", ["db1", "s2"])
def test_an_inventory_that_lacks_one_who_needs_the_password_is_refused(deployed: Deployed, name: str) -> None:
    prepared(HOSTS, deployed.folder)
    team = nr({one: host for one, host in HOSTS.items() if one != name})
    with pytest.raises(UsageError, match=f"{name}: not in this inventory"):
        rotate.rotate(team, "database-password", base=deployed.folder, state=deployed.folder / "state")
    assert deployed.file.read_text() == "old\n"


EXTERNAL = {"endpoint": {"file": "endpoint"}}


@pytest.mark.parametrize(
    ("datastore", "words"),
    [
        (EXTERNAL, "the datastore is external"),
        ({"kind": "mariadb", "password": {"file": "endpoint"}}, "refers to the password; change the secret there"),
        ({"kind": "etcd"}, "etcd has client certificates, and no password"),
    ],
)
def test_a_password_that_this_tool_does_not_make_is_refused(
    deployed: Deployed, datastore: dict[str, Any], words: str
) -> None:
    (deployed.folder / "endpoint").write_text("mysql://u:p@tcp(10.0.0.11:3306)/k3s\n")
    with pytest.raises(UsageError, match=words):
        deployed.rotate({"datastore": datastore})
    assert deployed.deploys == []


def test_a_cluster_without_a_password_yet_is_deployed_first(deployed: Deployed) -> None:
    deployed.file.unlink()
    with pytest.raises(UsageError, match="has no password of its datastore yet"):
        deployed.rotate()


def test_the_task_rotates_once_and_later_tasks_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def work(_: object, what: str, **given: Any) -> Report:
        asked.append((what, given["options"]))
        return Report(cluster="test")

    monkeypatch.setattr(tasks, "rotate", work)
    monkeypatch.setattr(tasks, "plan_rotation", returns(PLANNED))
    team = nr(HOSTS)
    before = None
    for dry in (True, False):
        results = team.run(task=tasks.k3s_rotate, base=tmp_path, state=tmp_path / "state", what="token", dry_run=dry)
        assert not results.failed, results["s1"].exception
        assert isinstance(results["s1"].result, Rotation if dry else Report)
        assert "not the first server" in results["s2"].result
        now = shared._shared_by_nornir.get(team)
        assert dry or now is not before, "another host may have begun anew already"
        before = now
    assert asked == [("token", {"whole": True})]


def test_the_task_is_done_by_a_server_that_this_inventory_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(HOSTS, tmp_path)
    monkeypatch.setattr(tasks, "plan_rotation", returns(PLANNED))
    team = nr({name: host for name, host in HOSTS.items() if name != "s1"})
    arguments: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state", "what": "token", "dry_run": True}
    results = team.run(task=tasks.k3s_rotate, **arguments)
    assert not results.failed, results["s2"].exception
    assert results["s2"].result == PLANNED


# What the command asks, shows and writes.


@pytest.fixture
def rotates(ctx: Ctx, monkeypatch: pytest.MonkeyPatch) -> Ctx:
    def work(*_: object, confirm: Callable[[Rotation], bool] | None, **__: object) -> Report:
        if confirm and not confirm(PLANNED):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes")
        return Report(cluster="test", notes=["done"])

    monkeypatch.setattr(command, "rotate", work)
    monkeypatch.setattr(command, "plan_rotation", returns(PLANNED))
    return ctx


COMMAND = ("rotate", "database-password")


def test_a_plan_is_shown_in_its_order_and_written(rotates: Ctx, tmp_path: Path) -> None:
    assert command.run(parsed(*COMMAND, "--plan", "--json", str(tmp_path / "plan"))) == 0
    assert "rotate token of cluster test\n  s1, s2: restart k3s.service\nnote: a note" in rotates.said
    assert Rotation.model_validate_json((tmp_path / "plan").read_text()) == PLANNED


def test_it_asks_once_on_a_terminal_and_needs_yes_elsewhere(rotates: Ctx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert command.run(parsed(*COMMAND)) == 2
    assert "restart k3s.service" in rotates.said
    assert "add --yes" in rotates.said
    answers(rotates, monkeypatch, "n")
    assert command.run(parsed(*COMMAND)) == Declined.exit_code
    answers(rotates, monkeypatch, "y")
    assert command.run(parsed(*COMMAND)) == 0


def test_a_failure_shows_how_far_it_came(rotates: Ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "rotate", fails(Report(cluster="test", notes=["how far"])))
    assert command.run(parsed(*COMMAND, "--yes", "--json", str(tmp_path / "report"))) == 1
    assert Report.model_validate_json((tmp_path / "report").read_text()).notes == ["how far"]
    monkeypatch.setattr(command, "rotate", fails(None))
    assert command.run(parsed(*COMMAND, "--yes")) == 1
