"""Servers and agents that a team's own workflow changes one by one: `k3s_converge` restarts K3s as a deploy does."""

from __future__ import annotations

import base64
import copy
import logging
import shlex
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import AggregatedResult, Result, Task

from nornir_k3s import K3sError, NotReady, k3s_converge, k3s_facts
from nornir_k3s.artifacts.source import Source
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.k3s_facts import Api, NodeState
from nornir_k3s.phases import alone, drain, rolling, rotation, stage, window
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

from .conftest import HOSTS, SETTINGS, inventory
from .hosts import changed

AGENTS = [f"a{number}" for number in range(1, 6)]
ACTIVE = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)


class Hosts:
    """Hosts that only play their part; `order` has what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        hosts = {name: HOSTS[name] for name in ("db1", "s1", "s2", "lb1", "lb2")}
        hosts |= {name: (f"10.0.1.{number}", "agents") for number, name in enumerate(AGENTS, 1)}
        self.settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}, "rolling_update": {}}
        found = inventory(self.settings, hosts, {})
        self.nr = Nornir(inventory=found, runner=K3sRunner(), config=Config(), data=GlobalState())
        self.folder = folder
        self.order: list[str] = []
        self.bad: Collection[str] = ()
        self.replaced: Collection[str] = ()
        self.undrainable: Collection[str] = ()
        self.away: Collection[str] = ()
        self.together = self.most = 0
        self._counting = threading.Lock()

        def planned(run: Run, name: str) -> Any:
            return self.planned(run, name)

        monkeypatch.setattr(gather, "gather_host", self.gathered)
        monkeypatch.setattr(Source, "find", lambda *_: None)
        monkeypatch.setattr(Run, "planned", planned)
        monkeypatch.setattr(stage, "stage_host", lambda task, _: Result(host=task.host, result=[]))
        monkeypatch.setattr(rolling, "change_one_of_many", self.change)
        monkeypatch.setattr(rolling, "change_node", self.change)
        monkeypatch.setattr(rotation, "read_facts", lambda task, *_: self.facts(task.host.name))
        for module in (drain, alone):
            monkeypatch.setattr(module, "replaces_binary", lambda name, _: name in self.replaced)
        for module in (drain, rotation):
            monkeypatch.setattr(module, "session_of", self.session)

    def facts(self, name: str) -> HostFacts:
        nodes = tuple(NodeState(one, True, "v1.34.9+k3s1") for one in AGENTS)
        api = Api(ready=name.startswith("s") and name not in self.away, nodes=nodes)
        unit = {"s": "k3s.service", "a": "k3s-agent.service", "l": "haproxy.service"}.get(name[0], "mariadb.service")
        return changed(HostFacts(name, units={unit: ACTIVE}, api=api), server={"ca_prefix": "K10" + "a" * 64})

    def gathered(self, task: Task, run: Run) -> Result:
        run.facts[task.host.name] = self.facts(task.host.name)
        return Result(host=task.host)

    def planned(self, run: Run, name: str) -> Any:
        member, facts = run.cluster.member(name), run.facts[name]
        roles = {"servers": ("a step",), "agents": ("a step",), "lb": (), "datastore": ()}
        starts = member.role in ("servers", "agents")
        return SimpleNamespace(by_role=roles, starts_k3s=starts, desired=name, facts=facts, member=member, steps=())

    def session(self, task: Task, _: Run) -> Any:
        name = task.host.name

        def run(script: str, **_: Any) -> Any:
            if name.startswith("lb"):
                call = script.rpartition("STEP=")[2]
                self.order.append(f"{name}: {'leave' if 'leave ' in call else 'back'}")
                return SimpleNamespace(stdout="@rotation\tx\tup\t0\n@end\n")
            if "STEP=cordon" in script:
                self.order.append(f"{name}: {'forget' if 'rm -f' in script.rpartition('STEP=')[2] else 'note'}")
                return SimpleNamespace(stdout="@end\n")
            words = shlex.split(script.rstrip().splitlines()[-2])
            verb, node = words[0], words[2]
            self.order.append(f"{verb} {node}")
            bad = verb == "drain_nodes" and node in self.undrainable
            why = base64.b64encode(b"a budget\n").decode()
            return SimpleNamespace(stdout=f"@drained\t{node}\t{'failed' if bad else 'ok'}\t{why}\n@end\n")

        return SimpleNamespace(run=run)

    def change(self, task: Task, _: Run) -> Result:
        with self._counting:
            self.together += 1
            self.most = max(self.most, self.together)
            self.order.append(task.host.name)
        threading.Event().wait(0.02)
        with self._counting:
            self.together -= 1
        if task.host.name in self.bad:
            raise NotReady(task.host.name, "not ready: broken")
        return Result(host=task.host, changed=True, result=["a change"])

    def converge(self, chosen: Callable[[Any], bool], nr: Nornir | None = None) -> AggregatedResult:
        some = (nr or self.nr).filter(filter_func=chosen)
        return some.run(task=k3s_converge, base=self.folder, state=self.folder / "state")

    def read(self) -> None:
        self.nr.run(task=k3s_facts, base=self.folder, state=self.folder / "state")


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    return Hosts(monkeypatch, tmp_path)


def named(*names: str) -> Callable[[Any], bool]:
    return lambda host: host.name in names


def errors(answer: AggregatedResult) -> dict[str, str]:
    return {name: str(one[0].result) for name, one in answer.items() if one.failed}


def test_a_server_leaves_the_rotation_of_load_balancers_that_a_filter_left_out(hosts: Hosts) -> None:
    hosts.read()
    assert not errors(hosts.converge(named("s1", "s2")))
    both = ["lb1: leave", "lb2: leave", "lb1: back", "lb2: back"]
    for start in (0, 5):
        part = hosts.order[start : start + 5]
        assert sorted(part[:2]) == both[:2]
        assert part[2] in ("s1", "s2")
        assert sorted(part[3:]) == sorted(both[2:])


def test_a_server_that_cannot_leave_it_says_so(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    gather.prepare(hosts.nr, base=hosts.folder, state=hosts.folder / "state", options={})  # an earlier deploy
    with caplog.at_level(logging.WARNING):
        assert not errors(hosts.converge(named("s1", "s2")))
    assert hosts.order in (["s1", "s2"], ["s2", "s1"])
    assert "restarts without leaving the rotation of lb1, lb2, which this inventory does not have" in caplog.text


def test_no_server_restarts_while_another_is_away(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "OTHERS", 0.1)
    hosts.read()
    hosts.away = ["s2"]
    said = errors(hosts.converge(named("s1")))
    assert "not restarted, because s2 is not ready: two servers are never away" in said["s1"]
    assert hosts.order == []


def test_one_agent_is_first_and_the_others_follow_as_many_as_may(hosts: Hosts) -> None:
    hosts.settings["rolling_update"] = {"max_unavailable": 2}
    hosts.read()
    assert not errors(hosts.converge(named(*AGENTS)))
    assert sorted(hosts.order) == AGENTS
    assert hosts.most == 2
    hosts.most = 0
    hosts.settings["rolling_update"] = {}
    assert not errors(hosts.converge(named(*AGENTS)))
    assert hosts.most == 1, "10 % of five"


@pytest.mark.parametrize("workers", [1, 20])
def test_a_first_agent_that_fails_leaves_the_others_untouched(hosts: Hosts, workers: int) -> None:
    hosts.settings["rolling_update"] = {"max_unavailable": 3}
    hosts.read()
    hosts.bad = AGENTS
    nr = hosts.nr.with_runner(K3sRunner(workers))
    said = errors(hosts.converge(named(*AGENTS), nr))
    assert len(hosts.order) == 1
    first = hosts.order[0]
    assert sum(f"not touched, because {first} failed" in text for text in said.values()) == len(AGENTS) - 1
    hosts.nr.data.reset_failed_hosts()
    hosts.bad, hosts.order = (), []
    hosts.read()
    assert not errors(hosts.converge(named(*AGENTS), nr))
    assert sorted(hosts.order) == AGENTS


def test_nothing_restarts_outside_the_window(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "closed", lambda _: "(x), which opens y")
    hosts.read()
    said = errors(hosts.converge(named("s1", "a1", "a2")))
    assert set(said) == {"s1", "a1", "a2"}
    assert all("only in the window (x), which opens y" in text for text in said.values())
    assert hosts.order == []


def test_agents_are_drained_before_k3s_is_replaced(hosts: Hosts) -> None:
    hosts.read()
    hosts.replaced = ["a1"]
    assert not errors(hosts.converge(named("a1", "a2")))
    index = hosts.order.index("a1: note")
    whole = ["a1: note", "drain_nodes a1", "a1", "release_nodes a1", "a1: forget"]
    assert hosts.order[index : index + 5] == whole


def test_an_agent_that_cannot_be_drained_is_not_touched(hosts: Hosts) -> None:
    hosts.read()
    hosts.replaced = hosts.undrainable = ["a1"]
    said = errors(hosts.converge(named("a1")))
    assert "a1: not touched, because its node could not be drained\n    a budget" in said["a1"]
    assert hosts.order == ["a1: note", "drain_nodes a1", "release_nodes a1", "a1: forget"]


def test_an_agent_that_does_not_work_gets_no_pods(hosts: Hosts) -> None:
    hosts.read()
    hosts.replaced = hosts.bad = ["a1"]
    assert set(errors(hosts.converge(named("a1")))) == {"a1"}
    assert hosts.order == ["a1: note", "drain_nodes a1", "a1"]


def test_no_agent_becomes_newer_than_a_server(hosts: Hosts) -> None:
    hosts.read()
    hosts.replaced = ["a1", "s2"]
    answer = hosts.converge(named("a1"))
    assert "not touched: s2 must get v1.34.9+k3s1 first, because agents are never newer" in errors(answer)["a1"]
    assert isinstance(answer["a1"][0].exception, K3sError)
    assert hosts.order == []
