"""What becomes of a server or agent that a change was made on: the orders that are given, and what is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.apply import script as apply
from nornir_k3s.errors import CommandFailed, HostError, HostUnreachable, Interrupted, NotReady, OutcomeUnknown
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import ArtifactState, HostFacts, UnitState
from nornir_k3s.model.host_spec import Artifact, HostSpec, Install, Unit
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.model.report import HostReport
from nornir_k3s.phases import host_tasks, rolling
from nornir_k3s.run import gather

UNIT, AGENT = "k3s.service", "k3s-agent.service"
FAILED = NotReady("s1", "not ready: service is activating", journal="oh no", hint="check the password")


def ready(*, installed: str = "a" * 64, is_ready: bool = True, **values: Any) -> HostFacts:
    running = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)
    artifacts = {"/usr/local/bin/k3s": ArtifactState(installed, 0o755, 100)}
    return HostFacts("s1", units={UNIT: running}, artifacts=artifacts, api=Api(ready=is_ready), **values)


def joined(active: str = "active") -> HostFacts:
    units = {AGENT: UnitState("loaded", active, "running", "enabled", 0, 200, 200)}
    return HostFacts("a1", units=units, artifacts=ready().artifacts)


@dataclass
class Stage:
    """A server on which the steps only play their part; `orders` are the scripts it got."""

    cluster: Cluster
    change: Exception | None = FAILED
    restore: Exception | None = None
    back: Exception | None = None
    seen: HostFacts = field(default_factory=ready)
    orders: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    name: str = "s1"
    returns: bool = False
    trial: int = 0
    starts: bool = True
    notes: list[str] = field(default_factory=list)
    closed: int = 0
    confirmed: Exception | None = None

    def close(self) -> None:
        self.closed += 1

    def run(self, script: str, **_: Any) -> Any:
        restoring = "\nrestore " in script
        confirming = "\nstill_on_trial\n" in script.rpartition("STEP=")[2]
        self.orders.append("restore" if restoring else "confirm" if confirming else "forget")
        if confirming and self.confirmed:
            raise self.confirmed
        self.units += re.findall(r"k3s(?:-agent)?\.service", script.rpartition("STEP=")[2])
        if restoring and self.restore:
            raise self.restore
        return SimpleNamespace(
            stdout="@did\trestored:/etc/rancher/k3s/config.yaml\tchanged\n@end\n" if restoring else ""
        )

    def play(self, monkeypatch: pytest.MonkeyPatch) -> HostReport:
        def converge(*_: Any) -> Any:
            self.orders.append("change")
            if self.change:
                raise self.change

        def wait(*_: Any) -> str:
            self.orders.append("wait")
            if self.back:
                raise self.back
            return ""

        role = "server" if self.name == "s1" else "agent"
        monkeypatch.setattr(host_tasks, f"converge_{role}", converge)
        monkeypatch.setattr(host_tasks, f"wait_for_{role}", wait)
        monkeypatch.setattr(host_tasks, "require_same_cluster", lambda *_: None)
        monkeypatch.setattr(gather, "session_of", lambda *_: self)
        artifact = Artifact(SimpleNamespace(name="k3s"), "/usr/local/bin/k3s", "a" * 64)  # type: ignore[arg-type]  # all it uses
        spec = HostSpec(artifacts=(artifact,), install=Install("server", "/i.sh", UNIT), units=(Unit(UNIT),))
        report = HostReport(role=f"{role}s")
        run: Any = SimpleNamespace(
            planned=lambda _: SimpleNamespace(
                desired=spec, facts=self.seen, returns=self.returns, starts_k3s=self.starts
            ),
            deadlines={"apply": 1},
            cluster=self.cluster,
            member=self.cluster.member,
            report=SimpleNamespace(hosts={self.name: report}, notes=self.notes),
            ready_again=set(),
            begun={},
            trial=self.trial,
        )
        rolling.change_node(SimpleNamespace(host=SimpleNamespace(name=self.name)), run)  # type: ignore[arg-type]  # all it uses
        return report

    def fail(self, monkeypatch: pytest.MonkeyPatch) -> HostError:
        with pytest.raises(HostError) as caught:
            self.play(monkeypatch)
        return caught.value


@pytest.fixture
def stage(load: Callable[..., Cluster]) -> Stage:
    return Stage(load())


def test_what_worked_needs_no_way_back_any_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.change = None
    stage.play(monkeypatch)
    assert stage.orders == ["change", "forget"]
    stage.orders, stage.seen = [], ready(is_ready=False)
    stage.play(monkeypatch)
    assert stage.orders == ["change"], "a server that joins has none"


@pytest.mark.parametrize(
    "seen", [ready(), ready(is_ready=False, present=frozenset([PREVIOUS]))], ids=["ready", "not seen ready since"]
)
def test_a_server_that_does_not_come_back_is_restored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, seen: HostFacts
) -> None:
    stage.seen = seen
    error = stage.fail(monkeypatch)
    assert stage.orders == ["change", "restore", "wait", "forget"]
    assert error.exit_code == 1
    assert error.message.startswith("s1: not ready: service is activating\n  last journal lines:\n    oh no\n")
    assert "were restored (/etc/rancher/k3s/config.yaml), and it is ready again; the run stops here" in error.message
    assert error.hint.startswith("check the password; fix the cause")


def test_a_change_that_fails_half_way_is_taken_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.change = CommandFailed("s1", "file:/etc/rancher/k3s/config.yaml", status=1, stderr="no space left")
    error = stage.fail(monkeypatch)
    assert stage.orders == ["change", "restore", "wait", "forget"]
    assert "no space left" in error.message
    assert "it is ready again" in error.message


def test_one_that_is_not_ready_so_either_is_told_with_both_reasons(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.back = NotReady("s1", "not ready: /readyz is not ok", journal="another cause", hint="look there")
    error = stage.fail(monkeypatch)
    assert stage.orders == ["change", "restore", "wait"], "the files stay until it is ready"
    assert "oh no" in error.message
    assert "but it is still not ready: /readyz is not ok" in error.message
    assert "another cause" in error.message
    assert error.hint == "look there"


def test_a_restore_that_fails_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.restore = OutcomeUnknown("s1", "the connection was lost")
    error = stage.fail(monkeypatch)
    assert stage.orders == ["change", "restore"]
    assert "its previous files could not be restored: the connection was lost" in error.message
    assert PREVIOUS in error.hint


@pytest.mark.parametrize(
    ("seen", "change", "words"),
    [
        (ready(installed="b" * 64), FAILED, "K3s is of another minor version"),
        (ready(is_ready=False), FAILED, "not ready: service is activating"),
        (ready(), CommandFailed("s1", "start", status=apply.BUSY), "start failed"),
        (ready(), OutcomeUnknown("s1", "the connection was lost"), "connection"),
    ],
    ids=["another K3s", "was not ready", "another run is in progress", "not known"],
)
def test_what_is_not_taken_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, seen: HostFacts, change: Exception, words: str
) -> None:
    stage.seen, stage.change = seen, change
    assert words in stage.fail(monkeypatch).message
    assert stage.orders == ["change"]


def test_another_k3s_of_the_same_minor_version_is_taken_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.seen, stage.returns = ready(installed="b" * 64), True
    assert "it is ready again; the run stops here" in stage.fail(monkeypatch).message
    assert stage.orders == ["change", "restore", "wait", "forget"]


def test_an_operator_who_stops_the_run_gets_no_restore(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.change = Interrupted("stopped")
    with pytest.raises(Interrupted):
        stage.play(monkeypatch)
    assert stage.orders == ["change"]


def test_an_agent_that_worked_is_restored_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.name, stage.seen = "a1", joined()
    assert "it is ready again; the run stops here" in stage.fail(monkeypatch).message
    assert stage.orders == ["change", "restore", "wait", "forget"]
    assert set(stage.units) == {AGENT}
    stage.orders, stage.seen = [], joined("activating")
    stage.fail(monkeypatch)
    assert stage.orders == ["change"], "one that joins has nothing to go back to"


def test_one_of_many_agents_that_fails_stops_no_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "change_node", rolling.change_one_of_many)
    stage.name, stage.seen = "a1", joined()
    error = stage.fail(monkeypatch)
    assert error.message.endswith("were restored (/etc/rancher/k3s/config.yaml), and it is ready again")


def test_a_change_for_good_is_never_taken_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "change_node", rolling.change_for_good)
    error = stage.fail(monkeypatch)
    assert error.message.startswith("s1: not ready: service is activating\n")
    assert "restored" not in error.message
    assert stage.orders == ["change", "forget"], "no later run restores them either"
    stage.orders, stage.change = [], None
    stage.play(monkeypatch)
    assert stage.orders == ["change", "forget"]


def test_a_change_on_trial_is_confirmed_by_a_new_login_that_sees_it_ready(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.change, stage.trial = None, 300
    stage.play(monkeypatch)
    assert stage.orders == ["change", "wait", "confirm"]
    assert stage.closed == 1
    stage.orders, stage.starts = [], False
    stage.play(monkeypatch)
    assert stage.orders == ["change", "forget"], "nothing has restarted"


@pytest.mark.parametrize("how", ["no login", "taken back"])
def test_a_change_on_trial_that_cannot_be_confirmed_is_left_to_the_host(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    stage.change, stage.trial = None, 300
    if how == "no login":
        stage.back = HostUnreachable("s1", "no SSH connection")
    else:
        stage.confirmed = CommandFailed("s1", "removing the previous files", status=1, stderr="it was not confirmed")
    error = stage.fail(monkeypatch)
    assert "restore" not in stage.orders
    assert "s1: the change was not confirmed, and the host rolls it back 300 s after it began: " in error.message
    assert ("no SSH connection" if how == "no login" else "it was not confirmed") in error.message


def test_a_change_on_trial_that_fails_is_taken_back_at_once_where_that_is_possible(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.trial = 300
    assert "it is ready again" in stage.fail(monkeypatch).message
    assert stage.orders == ["change", "restore", "wait", "forget"]
    stage.orders, stage.change = [], HostUnreachable("s1", "no SSH connection")
    stage.fail(monkeypatch)
    assert stage.orders == ["change"]
    assert stage.notes == ["s1: it rolls the change back by itself 300 s after it began"]


def test_another_minor_version_is_not_tried(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.trial, stage.seen = 300, ready(installed="b" * 64)
    assert "not touched: a change to another minor version cannot be rolled back" in stage.fail(monkeypatch).message
    assert stage.orders == []
