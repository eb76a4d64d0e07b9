"""A host's desired state, facts and steps are computed once an observation, however many ask for them."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState

from nornir_k3s import drift, planner
from nornir_k3s.artifacts.source import Source
from nornir_k3s.model.k3s_facts import ServerFiles
from nornir_k3s.phases import preflight
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.roles import desired
from nornir_k3s.run import gather, observation
from nornir_k3s.state import known_cluster
from nornir_k3s.workflows import plan

from .conftest import HOSTS, SETTINGS, inventory

SYSTEM = ("x86_64", "6.1", "NAME", "id-NAME", "Debian", "systemd", "apt", "cgroup2fs", "8192", "9", "9")
BARE = "\n".join(["@now\t1795608000.5", "\t".join(["@system", *SYSTEM]), "@end", ""])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count by host how often its plan and its desired state are computed; hosts are bare and answer at once."""
    found: Counter[tuple[str, str]] = Counter()

    def counting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(cluster: Any, member: Any, *more: Any) -> Any:
            found[name, member.name] += 1
            return work(cluster, member, *more)

        return call

    monkeypatch.setattr(observation, "plan_host", counting("plan", planner.plan_host))
    monkeypatch.setattr(planner, "desired_by_role", counting("desired", desired.desired_by_role))
    monkeypatch.setattr(observation, "desired", counting("desired", desired.desired))
    monkeypatch.setattr(Source, "find", lambda *_, **__: None)

    def session(task: Any, **_: Any) -> Any:
        answer = SimpleNamespace(stdout=BARE.replace("NAME", task.host.name), status=0)
        return SimpleNamespace(run=lambda *_, **__: answer, round_trips=1)

    monkeypatch.setattr(gather, "session", session)
    return found


@pytest.fixture
def nr() -> Nornir:
    settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
    return Nornir(inventory=inventory(settings, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


def test_a_drift_check_plans_each_host_once(nr: Nornir, counted: Counter[tuple[str, str]], tmp_path: Path) -> None:
    report = drift(nr, base=tmp_path, state=tmp_path / "state")
    assert {one.host for one in report.differences} > set(HOSTS)
    assert {name: counted["plan", name] for name in HOSTS} == dict.fromkeys(HOSTS, 1)
    # Once to know what to ask the host, once for the plan. A datastore's files may be named after a package's version.
    assert {name: counted["desired", name] for name in HOSTS if name != "db1"} == dict.fromkeys(set(HOSTS) - {"db1"}, 2)


def test_a_plan_and_its_preflight_plan_each_host_once(
    nr: Nornir, counted: Counter[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check", lambda _: None)
    assert plan.plan(nr, base=tmp_path, state=tmp_path / "state").changes
    assert {name: counted["plan", name] for name in HOSTS} == dict.fromkeys(HOSTS, 1)


def test_what_is_read_again_or_becomes_known_is_planned_again(
    nr: Nornir, counted: Counter[tuple[str, str]], tmp_path: Path
) -> None:
    run = gather.prepare(nr, base=tmp_path, state=tmp_path / "state", options={})
    run.first = None
    gather.gather_facts(run)
    before = run.planned("a1")
    assert run.planned("a1") is before
    run.facts["s1"] = replace(run.facts["s1"], server=ServerFiles("K10" + "a" * 64, "", "PEM"))
    after = run.planned("a1")
    assert after is not before
    assert ("K10" + "a" * 64) in after.desired.files[0].text.reveal()
    run.facts["a1"] = replace(run.facts["a1"])
    assert run.planned("a1") is not after


def test_a_host_of_another_family_is_asked_again_about_its_own_paths(
    nr: Nornir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rocky = BARE.replace("\tapt\t", "\tdnf\t").replace("@end", "@distribution\trocky\n@distribution\trhel\n@end")
    asked: dict[str, list[str]] = {}

    def session(task: Any, **_: Any) -> Any:
        def run(script: str, **_: Any) -> Any:
            if "fact_held" not in script:  # the look for secrets, which come first
                asked.setdefault(task.host.name, []).append(script)
            return SimpleNamespace(stdout=rocky.replace("NAME", task.host.name), status=0)

        return SimpleNamespace(run=run, round_trips=1)

    monkeypatch.setattr(Source, "find", lambda *_, **__: None)
    monkeypatch.setattr(gather, "session", session)
    monkeypatch.setattr(preflight, "check", lambda _: None)
    planned = plan.plan(nr, base=tmp_path, state=tmp_path / "state")
    changes = {one.id for host in planned.hosts.values() for one in host.changes}
    assert [len(asked[name]) for name in ("db1", "lb1", "lb2")] == [2, 2, 2]
    assert "\nfact_packages dnf haproxy " in asked["lb1"][1]
    assert "\nfact_files /etc/my.cnf.d/zz-nornir-k3s.cnf " in asked["db1"][1]
    assert "lb1/packages:haproxy perl-interpreter perl-IO perl-Socket perl-Time-HiRes keepalived" in changes
    assert "db1/file:/etc/my.cnf.d/zz-nornir-k3s.cnf" in changes
    assert not [one for one in changes if "/etc/mysql" in one]
    asked.clear()
    run = gather.prepare(nr, base=tmp_path, state=tmp_path / "state", options={})
    run.first = None
    known_cluster.save_managers(run.store, {"lb1": "dnf", "lb2": "apt"})
    assert known_cluster.managers(run.store) == {"lb1": "dnf"}
    gather.gather_facts(run)
    assert [len(asked[name]) for name in ("lb1", "lb2")] == [1, 2], "its family is known from the last deploy"
    assert "\nfact_packages dnf haproxy " in asked["lb1"][0]


def test_a_clock_is_known_as_well_as_its_answer_was_fast(
    nr: Nornir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def session(task: Any, **_: Any) -> Any:
        def run(*_: Any, on_line: Callable[[str], None], **__: Any) -> Any:
            time.sleep(0.2)
            on_line("@now\t1795608000.5")
            return SimpleNamespace(stdout=BARE.replace("NAME", task.host.name), status=0)

        return SimpleNamespace(run=run, round_trips=1)

    monkeypatch.setattr(gather, "session", session)
    run = gather.prepare(nr, base=tmp_path, state=tmp_path / "state", options={})
    run.first = None
    before = time.time()
    gather.gather_facts(run)
    for facts in run.facts.values():
        assert facts.skew_error >= 0.1
        read = 1795608000.5 - facts.skew  # the controller's clock, in the middle
        assert before <= read - facts.skew_error <= read + facts.skew_error <= time.time()
