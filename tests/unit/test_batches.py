"""A change that restarts K3s on agents: one first, the others in batches, and what becomes of the run if some fail."""

from __future__ import annotations

import base64
import copy
import io
import shlex
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task
from rich.console import Console

from nornir_k3s.checks import works
from nornir_k3s.errors import (
    HostsFailed,
    HostUnreachable,
    Interrupted,
    InventoryError,
    K3sError,
    NotReady,
    OutsideWindow,
    PreflightFailed,
)
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts, Ledger, UnitState
from nornir_k3s.model.k3s_facts import Api, NodeState
from nornir_k3s.model.plan import Plan
from nornir_k3s.model.report import PhaseReport
from nornir_k3s.model.rolling_update import RollingUpdate
from nornir_k3s.phases import agents, batches, drain, put_back, registration, servers, stage, token, verify, window
from nornir_k3s.phases.phase import Phase
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.report import terminal
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import known_cluster
from nornir_k3s.workflows import deploy as workflow
from nornir_k3s.workflows.chain import carry_out

from .conftest import HOSTS, SETTINGS, inventory

AGENTS = [f"a{number}" for number in range(1, 8)]
Changes = list[list[str]]


class Rolling:
    """A run over seven agents, on which changes only play their part; `asked` has those of each Nornir run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch, self.folder = monkeypatch, folder
        self.asked: Changes = []
        self.fail: dict[str, K3sError] = {}
        self.joining: Collection[str] = ()
        self.quiet: Collection[str] = ()
        self.sick: Collection[str] = ()
        self.replaced: Collection[str] = ()
        self.cordoned: Collection[str] = ()
        self.versions: dict[str, str] = {}
        self.undrainable: Collection[str] = ()
        self.scripts: list[str] = []
        self.deaf: Collection[str] = ()
        self.settings: dict[str, Any] = {}

    def run(self) -> Run:
        """Return the run, before its phase agents."""
        hosts = {name: HOSTS[name] for name in ("db1", "s1", "lb1", "lb2")}
        hosts |= {name: (f"10.0.1.{number}", "agents") for number, name in enumerate(AGENTS, 1)}
        settings = copy.deepcopy(SETTINGS) | {"artifacts": {}, "rolling_update": self.settings}
        nr = Nornir(inventory=inventory(settings, hosts, {}), runner=K3sRunner(), config=Config(), data=GlobalState())
        run = gather.prepare(nr, base=self.folder, state=self.folder / "state", options={})
        run.first = None
        nodes = tuple(
            NodeState(name, name not in self.sick, self.versions.get(name, "v1.34.9+k3s1"), ours=name in self.cordoned)
            for name in AGENTS
        )
        run.facts = {"s1": HostFacts("s1", api=Api(ready=True, nodes=nodes))}
        for name in AGENTS:
            state = UnitState(active="inactive" if name in self.joining else "active")
            run.facts[name] = HostFacts(name, units={"k3s-agent.service": state})
        run.report.phases = [PhaseReport(name="agents")]
        real = Run.phase

        def phase(this: Run, title: str, names: Any, task: Any, **options: Any) -> Any:
            self.asked += [list(names)] if names else []
            return real(this, title, names, task, **options)

        def planned(_: Run, name: str) -> Any:
            return SimpleNamespace(
                by_role={"servers": [], "agents": ["a step"]},
                starts_k3s=name not in self.quiet,
                stage=[],
                desired=name,
                facts=None,
            )

        self.patch.setattr(Run, "phase", phase)
        self.patch.setattr(Run, "planned", planned)
        self.patch.setattr(agents, "change_node", self.change)
        self.patch.setattr(agents, "change_one_of_many", self.change)
        self.patch.setattr(drain, "replaces_binary", lambda name, _: name in self.replaced)
        self.patch.setattr(drain, "session_of", self.session)
        self.patch.setattr(registration, "await_address", lambda *_: None)
        return run

    def session(self, task: Task, _: Run) -> Any:
        """Return where the API answers, or does not."""
        silent = SimpleNamespace(stdout="@unanswered\n@end\n")
        deaf = task.host.name in self.deaf
        return SimpleNamespace(run=(lambda *_, **__: silent) if deaf else self.kubectl)

    def kubectl(self, script: str, **_: Any) -> Any:
        """Answer a script for nodes as the server does, or their hosts for their own notes."""
        if "STEP=cordon" in script:
            return SimpleNamespace(stdout="@end\n")
        call = shlex.split(script.rstrip().splitlines()[-2])
        verb, nodes = call[0], call[2]
        self.scripts.append(f"{verb} {nodes}")
        bad = self.undrainable if verb == "drain_nodes" else ()
        why = base64.b64encode(b"a budget\n").decode()
        lines = (f"@drained\t{node}\t{'failed' if node in bad else 'ok'}\t{why}\n" for node in nodes.split())
        return SimpleNamespace(stdout="".join(lines) + "@end\n")

    def change(self, task: Task, run: Run) -> Result:
        """Fail on the hosts that shall fail."""
        if error := self.fail.get(task.host.name):
            raise error
        run.done.add(task.host.name)
        return Result(host=task.host)

    def error(self, run: Run) -> K3sError:
        with pytest.raises(K3sError) as caught:
            carry_out(run, [agents.PHASE], together=False)
        return batches.failure(run, caught.value)


@pytest.fixture
def rolling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rolling:
    return Rolling(monkeypatch, tmp_path)


def failed(name: str) -> NotReady:
    return NotReady(name, "not ready: service k3s-agent.service is activating")


@pytest.mark.parametrize(
    ("given", "agents", "sizes"),
    [
        ({}, 1, (1, 1)),
        ({}, 9, (1, 1)),
        ({}, 200, (20, 20)),
        ({"max_unavailable": 3}, 2, (3, 3)),
        ({"max_unavailable": "25%"}, 7, (1, 1)),
        ({"max_unavailable": "50%", "max_failed": 0}, 7, (3, 0)),
        ({"max_unavailable": "100%", "max_failed": "10%"}, 30, (30, 3)),
        ({"max_failed": 5}, 200, (20, 5)),
    ],
)
def test_numbers_and_per_cent_are_rounded_down_and_at_least_one(
    given: dict[str, Any], agents: int, sizes: tuple[int, int]
) -> None:
    settings = RollingUpdate.model_validate(given)
    assert (settings.unavailable(agents), settings.failed(agents)) == sizes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_unavailable": 0}, "max_unavailable must be 1 or more"),
        ({"max_unavailable": "0%"}, "a whole number, or per cent such as 10%"),
        ({"max_unavailable": "101%"}, "a whole number, or per cent such as 10%"),
        ({"max_unavailable": "3"}, "a whole number, or per cent such as 10%"),
        ({"max_unavailable": True}, "a whole number, or per cent such as 10%"),
        ({"max_failed": -1}, "max_failed must be 0 or more"),
        ({"max_failed": 1.5}, "a whole number, or per cent such as 10%"),
        ({"max_unavailabel": 1}, "max_unavailable"),
    ],
)
def test_what_is_no_number_of_agents_is_refused(load: Callable[..., Cluster], given: Any, words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"rolling_update": given})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [["a1"], ["a2"], ["a3"], ["a4"], ["a5"], ["a6"], ["a7"]]),
        ({"max_unavailable": 4}, [["a1"], ["a2", "a3", "a4", "a5"], ["a6", "a7"]]),
        ({"max_unavailable": "30%"}, [["a1"], ["a2", "a3"], ["a4", "a5"], ["a6", "a7"]]),
    ],
)
def test_one_agent_restarts_first_and_the_others_in_batches(
    rolling: Rolling, settings: dict[str, Any], asked: Changes
) -> None:
    rolling.settings = settings
    run = rolling.run()
    assert batches.planned(run, AGENTS) == asked, "the plan says the same"
    agents.join(run)
    assert rolling.asked == asked


def test_agents_that_join_and_those_that_need_no_restart_do_not_wait(rolling: Rolling) -> None:
    rolling.joining, rolling.quiet = ("a1", "a5"), ("a2",)
    agents.join(rolling.run())
    assert rolling.asked == [["a1", "a2", "a5", "a3"], ["a4"], ["a6"], ["a7"]]


def test_bare_agents_join_together(rolling: Rolling) -> None:
    rolling.joining = AGENTS
    agents.join(rolling.run())
    assert rolling.asked == [AGENTS]


def test_an_agent_whose_node_is_ready_goes_first(rolling: Rolling) -> None:
    rolling.sick, rolling.settings = ("a1", "a3"), {"max_unavailable": 3}
    agents.join(rolling.run())
    assert rolling.asked == [["a2"], ["a4", "a5", "a6"], ["a7", "a1", "a3"]]


def test_an_agent_that_an_earlier_run_broke_goes_first(rolling: Rolling) -> None:
    """Else each run would break one more."""
    rolling.joining, rolling.fail = ("a3", "a5"), {"a3": failed("a3")}
    rolling.versions = dict.fromkeys(AGENTS, "v1.33.1+k3s1") | {"a5": "v1.34.9+k3s1"}
    assert rolling.error(rolling.run()) is rolling.fail["a3"]
    assert rolling.asked == [["a5", "a3"]]
    rolling.fail, rolling.cordoned, rolling.replaced = {}, ("a3",), ("a3", "a1")
    agents.join(rolling.run())
    # No pod can leave a node that is down.
    assert rolling.scripts == ["release_nodes a3", "drain_nodes a1", "release_nodes a1"]


def test_agents_that_are_away_already_make_batches_smaller(rolling: Rolling) -> None:
    rolling.settings = {"max_unavailable": 3}
    run = rolling.run()
    del run.facts["a2"]
    run.skip("a2", "a2: no SSH connection")
    agents.join(run)
    assert rolling.asked == [["a1"], ["a3", "a4"], ["a5", "a6"], ["a7"]]


def test_a_first_agent_that_fails_ends_the_run_before_the_others(rolling: Rolling) -> None:
    rolling.settings, rolling.fail = {"max_failed": 5}, {"a1": failed("a1")}
    run = rolling.run()
    assert rolling.error(run) is rolling.fail["a1"]
    assert rolling.asked == [["a1"]]
    assert run.report.phase("agents").state == "failed"


def test_the_run_goes_on_when_few_agents_fail_and_says_so(rolling: Rolling) -> None:
    rolling.settings, rolling.fail = {"max_unavailable": 2}, {"a2": failed("a2")}
    run = rolling.run()
    carry_out(run, [agents.PHASE], together=False)
    assert rolling.asked == [["a1"], ["a2", "a3"], ["a4"], ["a5"], ["a6"], ["a7"]], "what has failed counts as away"
    assert any("a2 failed" in note and "goes on" in note for note in run.report.notes)
    assert run.report.phase("agents").state == "failed"
    assert run.report.hosts["a2"].error == rolling.fail["a2"].message
    assert [member.name for member in run.of("agents")] == [name for name in AGENTS if name != "a2"]
    assert "a2" not in run.names
    with pytest.raises(NotReady):
        batches.raise_failed(run)


def test_too_many_agents_that_fail_end_the_run(rolling: Rolling) -> None:
    rolling.settings = {"max_unavailable": 2, "max_failed": 1}
    rolling.fail = {name: failed(name) for name in ("a2", "a3", "a5")}
    error = rolling.error(rolling.run())
    assert rolling.asked == [["a1"], ["a2", "a3"]]
    assert isinstance(error, HostsFailed)
    assert error.exit_code == 1
    assert "a2, a3: not ready" in error.message
    assert "stopped: 2 agents failed, at most 1 may (rolling_update.max_failed)" in error.message
    assert "not touched: a4, a5, a6, a7" in error.message


def test_no_failure_at_all_may_be_asked_for(rolling: Rolling) -> None:
    rolling.settings, rolling.fail = {"max_failed": 0}, {"a2": failed("a2")}
    error = rolling.error(rolling.run())
    assert rolling.asked == [["a1"], ["a2"]]
    assert "1 agent failed, at most 0 may" in error.message


def test_one_that_fails_to_join_holds_up_no_others(rolling: Rolling) -> None:
    rolling.joining, rolling.fail = ("a6", "a7"), {"a7": failed("a7")}
    run = rolling.run()
    agents.join(run)
    assert rolling.asked == [["a6", "a7", "a1"], ["a2"], ["a3"], ["a4"], ["a5"]]
    assert run.failed == [rolling.fail["a7"]]


def test_an_agent_that_dies_in_its_batch_is_unreachable_in_the_end(rolling: Rolling) -> None:
    rolling.fail = {"a3": HostUnreachable("a3", "no SSH connection")}
    run = rolling.run()
    agents.join(run)
    with pytest.raises(HostUnreachable):
        batches.raise_failed(run)


def test_ctrl_c_starts_no_next_batch(rolling: Rolling) -> None:
    rolling.fail = {"a2": Interrupted("stopped")}
    assert isinstance(rolling.error(rolling.run()), Interrupted)
    assert rolling.asked == [["a1"], ["a2"]]


def test_the_phases_after_it_run_and_the_end_is_a_failure(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rolling.fail = {"a2": failed("a2")}
    run, seen = rolling.run(), []
    after = Phase("after", "", lambda run: seen.extend(run.names), reads=True)
    monkeypatch.setattr(workflow, "prepare", lambda *_, **__: run)
    monkeypatch.setattr(token, "is_due", lambda _: False)
    monkeypatch.setattr(workflow, "phases", lambda: (agents.PHASE, after))
    with pytest.raises(NotReady) as caught:
        workflow.deploy(run.nr, base=tmp_path, state=tmp_path / "state")
    assert seen == ["s1", *(name for name in AGENTS if name != "a2")]
    report = caught.value.report
    assert (report.exit_code, report.outcome) == (1, "failed")
    assert [one.state for one in report.phases] == ["failed", "done"]


def test_agents_are_drained_before_k3s_is_replaced_and_get_pods_again(rolling: Rolling) -> None:
    rolling.settings, rolling.replaced = {"max_unavailable": 3}, AGENTS[:4]
    agents.join(rolling.run())
    assert rolling.asked == [
        ["a1"], ["s1"], ["a1"], ["s1"], ["a1"],
        ["a2", "a3", "a4"], ["s1"], ["a2", "a3", "a4"], ["s1"], ["a2", "a3", "a4"],
        ["a5", "a6", "a7"],
    ]  # fmt: skip
    assert rolling.scripts == [
        "drain_nodes a1", "release_nodes a1", "drain_nodes a2 a3 a4", "release_nodes a2 a3 a4",
    ]  # fmt: skip


def version_is(run: Run, version: str) -> None:
    """Have all nodes run another version than the one that is asked for."""
    nodes = tuple(replace(node, version=version) for node in run.facts["s1"].api.nodes or ())
    run.facts["s1"] = replace(run.facts["s1"], api=replace(run.facts["s1"].api, nodes=nodes))


@pytest.mark.parametrize(
    ("drain_settings", "version", "taints", "free", "moves"),
    [
        ({}, "v1.33.1+k3s1", (), True, True),
        ({}, "v1.34.8+k3s1", (), True, False),
        ({}, "v1.33.1+k3s1", ("CriticalAddonsOnly=true:NoExecute",), True, False),
        ({}, "v1.33.1+k3s1", ("a=b:PreferNoSchedule",), True, True),
        ({}, "v1.33.1+k3s1", (), False, False),
        ({"enabled": False}, "v1.33.1+k3s1", (), True, False),
        ({"enabled": True}, "v1.34.8+k3s1", ("a=b:NoSchedule",), False, True),
        ({"servers": {"enabled": True}}, "v1.34.8+k3s1", (), True, True),
        ({"agents": {"enabled": True}}, "v1.34.8+k3s1", (), True, False),
        ({"enabled": False, "servers": {"enabled": True}}, "v1.34.8+k3s1", (), True, True),
        ({"every_restart": True}, "v1.34.9+k3s1", (), True, True),
        ({"every_restart": True, "enabled": False}, "v1.34.9+k3s1", (), True, False),
    ],
)
def test_servers_are_drained_where_they_take_pods_and_another_minor_version_comes(
    rolling: Rolling, drain_settings: dict[str, Any], version: str, taints: tuple[str, ...], *, free: bool, moves: bool
) -> None:
    rolling.settings, rolling.sick = {"drain": drain_settings}, () if free else AGENTS
    rolling.replaced = ["s1"] if version != "v1.34.9+k3s1" else []
    run = rolling.run()
    nodes = (*run.nodes(), NodeState("s1", ready=True, version="", taints=taints))
    run.facts["s1"] = replace(run.facts["s1"], api=Api(ready=True, nodes=nodes))
    version_is(run, version)
    assert bool(drain.wanted(run, ["s1"])) is moves


def test_each_group_has_its_own_options_besides_the_common_ones() -> None:
    common: dict[str, Any] = {"timeout": "5m", "grace_period": 9}
    own = {"servers": {"timeout": 30, "enabled": True}, "agents": {"enabled": False}}
    settings = RollingUpdate.model_validate({"drain": common | own}).drain
    servers, of_agents = settings.of("servers"), settings.of("agents")
    assert (servers.timeout, servers.grace_period, servers.enabled) == (30, 9, True)
    assert (of_agents.timeout, of_agents.grace_period, of_agents.enabled) == (300, 9, False)


def test_a_trial_has_the_name_of_its_option(load: Callable[..., Cluster]) -> None:
    assert load({"rolling_update": {"try": "5m"}}).rolling_update.trial == 300
    for given, words in (({"try": 5}, "rolling_update.try"), ({"tri": "5m"}, "did you mean `try`?")):
        with pytest.raises(InventoryError) as caught:
            load({"rolling_update": given})
        assert words in str(caught.value)


@pytest.mark.parametrize("timeout", ["5", "m", "0s", "25h", 0, 86401, True, 1.5, "-5m"])
def test_what_is_no_time_is_refused(load: Callable[..., Cluster], timeout: Any) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"rolling_update": {"drain": {"agents": {"timeout": timeout}}}})
    assert "rolling_update.drain.agents.timeout" in str(caught.value)
    assert "a number of seconds, or a time such as 90s, 5m or 1h30m" in str(caught.value)


def test_another_server_is_asked_where_the_api_of_one_does_not_answer(rolling: Rolling) -> None:
    run = rolling.run()
    run.facts["db1"] = run.facts["s1"]  # which answers instead
    rolling.patch.setattr(Run, "ready_servers", ["s1", "db1"])
    rolling.replaced, rolling.deaf = ["a1"], ("s1",)
    agents.join(run)
    assert rolling.asked[:5] == [["a1"], ["s1"], ["db1"], ["a1"], ["s1"]]
    assert not run.failed


def test_a_node_that_cannot_be_uncordoned_fails_the_run_in_the_end(rolling: Rolling) -> None:
    rolling.quiet, rolling.cordoned, rolling.deaf = AGENTS, ("a2",), ("s1",)
    run = rolling.run()
    agents.join(run)
    assert run.done == set(AGENTS), "everything else is done"
    with pytest.raises(NotReady) as caught:
        batches.raise_failed(run)
    said = "a2: its node is still cordoned: kubectl uncordon: the API of s1 does not answer\n  next: run deploy"
    assert str(caught.value).startswith(said)


def test_the_note_of_a_host_is_enough_where_its_node_was_not_read(rolling: Rolling) -> None:
    rolling.quiet = AGENTS
    run = rolling.run()
    run.facts["s1"] = HostFacts("s1", api=Api(ready=True))
    run.facts["a4"] = replace(run.facts["a4"], ledger=Ledger(cordoned=True))
    put_back.put_back(run)
    put_back.put_back(run)
    assert rolling.scripts == ["release_nodes a4"]
    run.facts["s1"], run.uncordoned = HostFacts("s1"), set()
    put_back.put_back(run)
    assert run.report.notes[-1].startswith("cordoned by an earlier run, and no server answers: a4; ")


@pytest.mark.parametrize("until", ["", "preflight"])
def test_a_run_that_changes_nothing_puts_back_what_an_earlier_one_has_left(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: str
) -> None:
    """One that fails in the preflight, for instance; but not one that is to do no more than that."""

    def refuse(_: Run) -> None:
        raise PreflightFailed(["a problem"])

    rolling.cordoned = ("a5",)
    run = rolling.run()
    run.limit = frozenset(["a1"])
    monkeypatch.setattr(workflow, "prepare", lambda *_, **__: run)
    chain = (Phase("preflight", "", refuse, reads=True), agents.PHASE)
    monkeypatch.setattr(workflow, "phases", lambda: chain)
    with pytest.raises(PreflightFailed):
        workflow.deploy(run.nr, base=tmp_path, state=tmp_path / "state", choice=Choice(until=until))
    assert rolling.scripts == ([] if until else ["release_nodes a5"])


def test_no_further_batch_begins_when_the_window_has_closed(rolling: Rolling) -> None:
    rolling.patch.setattr(window, "closed", lambda run: "(x), which opens y" if len(run.done) > 1 else "")
    error = rolling.error(rolling.run())
    assert isinstance(error, OutsideWindow)
    assert "K3s restarts on a3, a4, a5, a6, a7 only in the window (x), which opens y" in str(error)
    assert rolling.asked == [["a1"], ["a2"]]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_outside_the_window_changes_nothing_if_k3s_would_restart(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, quiet: bool
) -> None:
    monkeypatch.setattr(window, "closed", lambda _: "(x), which opens y")
    seen = list[str]()
    before = Phase("before", "", lambda run: seen.extend(run.names))
    monkeypatch.setattr(workflow, "phases", lambda: (before, agents.PHASE))
    rolling.quiet = AGENTS if quiet else ()
    run = rolling.run()
    run.facts["s1"] = replace(run.facts["s1"], api=replace(run.facts["s1"].api, ready=True))
    rolling.patch.setattr(servers, "changes_running", lambda _: False)
    only_agents = Run.planned

    def planned(this: Run, name: str) -> Any:
        return SimpleNamespace(**{**vars(only_agents(this, name)), "starts_k3s": name in AGENTS and not quiet})

    monkeypatch.setattr(Run, "planned", planned)
    monkeypatch.setattr(token, "is_due", lambda _: False)
    monkeypatch.setattr(workflow, "prepare", lambda *_, **__: run)
    if quiet:
        workflow.deploy(run.nr, base=tmp_path, state=tmp_path / "state")
        return
    with pytest.raises(OutsideWindow) as caught:
        workflow.deploy(run.nr, base=tmp_path, state=tmp_path / "state")
    report = caught.value.report
    assert (report.outcome, report.exit_code, seen, rolling.asked) == ("postponed", 7, [], [])


def test_agents_need_not_be_drained(rolling: Rolling) -> None:
    rolling.settings, rolling.replaced = {"drain": {"enabled": False}}, AGENTS
    agents.join(rolling.run())
    assert not rolling.scripts


def test_a_first_agent_that_cannot_be_drained_ends_the_run_untouched(rolling: Rolling) -> None:
    rolling.replaced, rolling.undrainable = AGENTS, ["a1"]
    error = rolling.error(rolling.run())
    assert str(error).startswith("a1: not touched, because its node could not be drained\n    a budget\n  next: ")
    assert rolling.asked == [["a1"], ["s1"], ["s1"], ["a1"]], "but for the notes of its cordon"


def test_another_agent_that_cannot_be_drained_is_not_touched(rolling: Rolling) -> None:
    rolling.settings, rolling.replaced, rolling.undrainable = {"max_unavailable": 3}, AGENTS, ["a3"]
    run = rolling.run()
    agents.join(run)
    assert ["a2", "a4"] in rolling.asked
    assert "release_nodes a2 a4" in rolling.scripts
    assert [str(error).splitlines()[0] for error in run.failed] == [
        "a3: not touched, because its node could not be drained"
    ]


@pytest.mark.parametrize("back", [False, True])
def test_an_agent_that_fails_gets_pods_again_only_if_it_works(rolling: Rolling, *, back: bool) -> None:
    rolling.replaced, rolling.fail = AGENTS, {"a2": failed("a2")}
    run = rolling.run()
    run.ready_again |= {"a2"} if back else set()
    agents.join(run)
    assert ("release_nodes a2" in rolling.scripts) is back
    assert "release_nodes a3" in rolling.scripts


def test_ctrl_c_leaves_no_node_cordoned(rolling: Rolling) -> None:
    rolling.replaced, rolling.fail = AGENTS, {"a2": Interrupted("stopped")}
    assert isinstance(rolling.error(rolling.run()), Interrupted)
    assert rolling.scripts[-2:] == ["drain_nodes a2", "release_nodes a2"]


def test_nodes_that_a_killed_run_has_cordoned_get_pods_again(rolling: Rolling) -> None:
    rolling.quiet, rolling.cordoned, rolling.joining = AGENTS, ("a2", "a3"), ("a3",)
    agents.join(rolling.run())
    assert rolling.scripts == ["release_nodes a2", "release_nodes a3"], "that one when it works again"
    rolling.scripts, rolling.quiet, rolling.joining, rolling.replaced = [], (), (), ("a2",)
    agents.join(rolling.run())
    assert rolling.scripts == ["release_nodes a2 a3", "drain_nodes a2", "release_nodes a2"]


@pytest.mark.parametrize("server", [False, True])
def test_artefacts_that_cannot_be_copied_to_an_agent_stop_no_others(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, *, server: bool
) -> None:
    rolling.fail = {"a3": failed("a3"), **({"s1": failed("s1")} if server else {})}
    run = rolling.run()
    monkeypatch.setattr(Run, "planned", lambda *_: SimpleNamespace(stage=["a step"]))
    monkeypatch.setattr(stage, "stage_host", rolling.change)
    if server:
        with pytest.raises(NotReady) as caught:
            stage.stage(run)
        assert str(batches.failure(run, caught.value)).startswith("a3, s1: not ready")
    else:
        stage.stage(run)
        assert (run.failed, "a3" in run.names) == ([rolling.fail["a3"]], False)


def test_a_plan_shows_the_batches_and_cuts_long_ones() -> None:
    def shown(*batches: list[str]) -> str:
        out = io.StringIO()
        plan = Plan(cluster="c", version="v", hosts={}, phases=[], batches=list(batches))
        terminal.show_plan(plan, Console(file=out, width=500, highlight=False))
        return out.getvalue()

    assert shown() == shown(["a1"]) == ""
    assert shown(["a1"], ["a2", "a3"]) == "agents restart in 2 batches: a1; a2, a3\n"
    many = [f"a{number}" for number in range(2, 201)]
    text = shown(["a1"], *(many[start : start + 20] for start in range(0, len(many), 20)))
    assert text.startswith("agents restart in 11 batches: a1; a2, a3, a4, a5, a6, a7, a8, a9 and 12 more; a22, ")
    assert text.endswith(" and 12 more; … (200 agents, at most 20 together)\n")


def test_an_agent_that_dies_in_the_end_keeps_nobody_from_the_kubeconfig(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checked, kept = rolling.run(), list[set[str]](), list[str]()
    rolling.fail = {"a3": HostUnreachable("a3", "no SSH connection")}
    run.report.hosts["a1"].changes = ["a change"]

    def verify_host(task: Task, run: Run) -> Result:
        rolling.change(task, run)
        return Result(host=task.host, result=run.facts[task.host.name])

    def problems(_: Cluster, answers: dict[str, HostFacts], *more: Any) -> list[str]:
        checked.append(set(answers))
        return [] if "a3" in more[-1] else ["node a3 is not Ready"]

    monkeypatch.setattr(verify, "verify_host", verify_host)
    monkeypatch.setattr(works, "problems", problems)
    monkeypatch.setattr(gather, "look_at_address", lambda _: None)
    monkeypatch.setattr(known_cluster, "save_ca", lambda *_: None)
    monkeypatch.setattr(Run, "keep_kubeconfig", lambda _, text: kept.append(text))
    verify.verify(run)
    assert checked[-1] == {"s1", *AGENTS} - {"a3"}
    assert kept
    assert run.failed == [rolling.fail["a3"]]


def test_the_nodes_of_agents_that_were_left_out_are_not_checked(load: Callable[..., Cluster]) -> None:
    cluster = load()
    node = NodeState("s1", ready=True, version=cluster.version, roles=("control-plane",))
    facts = {"s1": HostFacts("s1", api=Api(ready=True, nodes=(node,), through_address=True))}
    assert works.problems(cluster, facts) == ["node s2 is not listed", "node a1 is not listed"]
    assert works.problems(cluster, facts, left_out={"a1"}) == ["node s2 is not listed"]
