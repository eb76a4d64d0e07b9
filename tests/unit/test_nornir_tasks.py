"""A Nornir that was filtered, and what its state folder remembers; no host is contacted."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task

from nornir_k3s import (
    Choice,
    HostError,
    HostsFailed,
    HostUnreachable,
    K3sError,
    UsageError,
    deploy,
    drift,
    k3s,
    k3s_preflight,
    plan,
    status,
)
from nornir_k3s.artifacts.source import Source
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.phases import servers
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.ssh import hostkeys
from nornir_k3s.state import known_cluster
from nornir_k3s.tasks import k3s_facts, k3s_plan

from .conftest import HOSTS, SETTINGS, inventory
from .hosts import changed


@pytest.fixture
def nr() -> Nornir:
    settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
    return Nornir(inventory=inventory(settings, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


def prepared(nr: Nornir, folder: Path, **options: Any) -> Run:
    return gather.prepare(nr, base=folder, state=folder / "state", options=options)


def test_hosts_that_were_filtered_away_are_still_members_and_left_alone(nr: Nornir, tmp_path: Path) -> None:
    whole = prepared(nr, tmp_path)
    assert whole.limit is None
    run = prepared(nr.filter(filter_func=lambda host: host.name in ("lb1", "a1")), tmp_path)
    assert run.cluster.members == whole.cluster.members, "the load balancers know every server"
    assert run.limit == frozenset({"lb1", "a1"})
    assert run.present == ["a1", "lb1"]
    assert set(run.report.hosts) == {"lb1", "a1"}
    assert "left out: db1, s1, s2, lb2" in run.report.notes[0]


def test_a_filtered_run_does_not_make_the_others_forgotten(nr: Nornir, tmp_path: Path) -> None:
    whole = prepared(nr, tmp_path)
    prepared(nr.filter(name="a1"), tmp_path)
    assert prepared(nr.filter(name="s1"), tmp_path).cluster.members == whole.cluster.members


def test_who_has_left_the_inventory_is_gone_when_the_caller_says_that_this_is_all(nr: Nornir, tmp_path: Path) -> None:
    prepared(nr, tmp_path)
    smaller = nr.filter(filter_func=lambda host: host.name != "s2")
    assert "s2" in [m.name for m in prepared(smaller, tmp_path).cluster.members]
    assert "s2" not in [m.name for m in prepared(smaller, tmp_path, whole=True).cluster.members]
    assert "s2" not in [m.name for m in prepared(smaller, tmp_path).cluster.members]


def test_no_second_first_server_because_the_real_one_was_filtered_away(nr: Nornir, tmp_path: Path) -> None:
    prepared(nr, tmp_path)
    run = prepared(nr.filter(filter_func=lambda host: host.name in ("db1", "s2")), tmp_path)
    run.facts = {"db1": HostFacts("db1"), "s2": HostFacts("s2")}
    with pytest.raises(UsageError, match="s1 cannot be read"):
        servers.start_first(run)
    key = k3s.bootstrap_key(run.cluster.token)
    run.facts["db1"] = HostFacts("db1", database=Database(bootstrap={key: 0}))
    with pytest.raises(UsageError):
        servers.require_all_servers(run)
    run.facts["db1"] = HostFacts("db1", database=Database(bootstrap={key: 9000}))
    servers.require_all_servers(run)


def test_what_the_last_deploy_knew_of_the_ca_serves_where_no_server_is_shown(nr: Nornir, tmp_path: Path) -> None:
    run = prepared(nr, tmp_path)
    known_cluster.save_ca(run.store, "K10" + "a" * 64, "PEM")
    agents = prepared(nr.filter(name="a1"), tmp_path)
    assert (agents.ca_prefix, agents.ca_certificate) == ("K10" + "a" * 64, "PEM")
    run.facts = {"s1": HostFacts("s1")}
    assert run.ca_prefix == "", "a server that was read and has none counts more"


def test_a_host_without_a_role_is_left_alone(nr: Nornir, tmp_path: Path) -> None:
    nr.inventory.hosts["switch"] = copy.copy(nr.inventory.hosts["a1"])
    nr.inventory.hosts["switch"].name = "switch"
    nr.inventory.hosts["switch"].groups = type(nr.inventory.hosts["a1"].groups)()
    result = nr.filter(name="switch")
    whole = nr.run(task=only("switch", k3s_facts), base=tmp_path, state=tmp_path / "state")
    assert result.inventory.hosts
    assert whole["switch"].result == "no role in this cluster"
    assert not whole["switch"].changed


def only(name: str, task: Any) -> Any:
    def run_on(task_: Task, **arguments: Any) -> Result:
        return task(task_, **arguments) if task_.host.name == name else Result(host=task_.host)

    return run_on


def test_an_expected_error_is_a_failed_result_in_words(tmp_path: Path) -> None:
    broken = inventory({"name": "test"}, HOSTS, {})
    nr = Nornir(inventory=broken, runner=K3sRunner(), config=Config(), data=GlobalState())
    result = nr.run(task=k3s_plan, base=tmp_path, state=tmp_path / "state")
    assert result.failed
    one = result["s1"][0]
    assert isinstance(one.exception, UsageError)
    assert "the inventory has" in str(one.result)
    assert "Traceback" not in str(one.result)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deadline": {}}, "there is no `deadline`; did you mean `deadlines`?"),
        ({"deadlines": {"agents": 5}}, "deadlines: there is no `agents`; did you mean `agent`?"),
        ({"deadlines": {"agent": "5"}}, "`agent` is a number of seconds above 0, not '5'"),
        ({"deadlines": {"agent": 0}}, "`agent` is a number of seconds above 0, not 0"),
        ({"deadlines": 5}, "`deadlines` is a mapping"),
        ({"widths": {"agents": True}}, "`agents` is a number of hosts above 0, not True"),
        ({"limits": {"clok": 1}}, "limits: clok: "),
    ],
)
def test_a_wrong_option_is_refused(nr: Nornir, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    for call in (lambda: prepared(nr, tmp_path, **options), lambda: drift(nr, base=tmp_path, options=options)):
        with pytest.raises(UsageError) as caught:
            call()
        assert words in str(caught.value)


def test_all_wrong_options_are_told_at_once(nr: Nornir, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepared(nr, tmp_path, deadlines={"x": 1}, widths={"y": 1}, z=1)
    assert all(f"there is no `{name}`" in str(caught.value) for name in "xyz")


def test_a_text_is_no_limit() -> None:
    with pytest.raises(UsageError, match="is a text"):
        Choice(limit="a1")  # type: ignore[arg-type]  # what is tested


def facts(name: str, **more: Any) -> HostFacts:
    return changed(HostFacts(name), **more)


def test_facts_that_were_taken_on_a_nornir_are_known_to_its_copies(
    nr: Nornir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def gathered(task: Task, run: Run) -> None:
        taken.append(task.host.name)
        run.facts[task.host.name] = facts(task.host.name, server={"ca_prefix": "K10" + "a" * 64})

    monkeypatch.setattr(gather, "gather_host", gathered)
    monkeypatch.setattr(Source, "find", lambda *_: None)
    monkeypatch.setattr(Source, "known", lambda *_: None)
    where: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    prepared(nr, tmp_path)
    first = nr.filter(name="s1").run(task=k3s_facts, **where)
    assert not first.failed, first["s1"][0].exception
    nr.run(task=k3s_facts, **where)
    taken.clear()
    for copy_ in (nr.filter(name="lb1"), nr.with_runner(K3sRunner(1)).filter(name="a1"), nr):
        answer = copy_.run(task=k3s_preflight, **where)
        assert not [one for one in answer.values() if isinstance(one[0].exception, K3sError)]
    assert taken == [], "nothing is read twice"
    other = Nornir(inventory=inventory(SETTINGS | {"artifacts": {}}, HOSTS, {}), runner=K3sRunner(), data=GlobalState())
    other.filter(name="s1").run(task=k3s_preflight, base=tmp_path, state=tmp_path / "state")
    assert taken == ["s1"], "another inventory has facts of its own"


def node(name: str, ready: bool) -> NodeState:
    return NodeState(name, ready, "v1.34.9+k3s1")


@pytest.mark.parametrize(
    "case",
    [
        ("a1", "active", None, True),
        ("a1", "activating", None, False),
        ("a1", "active", True, True),
        ("a1", "active", False, False),
        ("lb1", "active", None, True),
        ("lb1", "failed", None, False),
        ("db1", "active", None, True),
    ],
)
def test_facts_say_whether_a_host_of_any_role_is_ready(
    nr: Nornir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, bool | None, bool]
) -> None:
    name, unit, listed, ready = case

    def gathered(task: Task, run: Run) -> None:
        run.facts[task.host.name] = facts(
            task.host.name, units={"x.service": UnitState(active=unit)}, database={"alive": unit == "active"}
        )
        if listed is not None:
            run.facts["s1"] = facts("s1", api={"ready": True, "nodes": (node("a1", listed),)})

    monkeypatch.setattr(gather, "gather_host", gathered)
    monkeypatch.setattr(Source, "find", lambda *_: None)
    prepared(nr, tmp_path)
    result = nr.filter(name=name).run(task=k3s_facts, base=tmp_path, state=tmp_path / "state")
    assert result[name].result.ready is ready


def refuses(task: Task, deadline: float) -> None:
    raise HostUnreachable(task.host.name, f"no route within {deadline} s", hint="check it")


def no_key(host: str, *_more: object) -> None:
    raise HostUnreachable(host, "no route", hint="check it")


def test_an_expected_error_is_no_traceback_in_nornir_s_log(
    nr: Nornir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gather, "session", refuses)
    for call in (deploy, plan):
        with pytest.raises(HostsFailed) as caught:
            call(nr, base=tmp_path, state=tmp_path / "state")
        assert {type(one) for one in caught.value.errors} == {HostUnreachable}
        assert nr.data.failed_hosts == set(HOSTS)
        nr.data.reset_failed_hosts()
    assert status(nr, base=tmp_path, state=tmp_path / "state").unreachable == list(HOSTS)
    assert drift(nr, base=tmp_path, state=tmp_path / "state").exit_code == 4
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    monkeypatch.setattr(hostkeys, "_key_statuses", no_key)
    nr.data.failed_hosts.add("s1")
    assert set(hostkeys.collect(nr).unreachable) == set(HOSTS)
    assert nr.data.failed_hosts == {"s1"}, "the mark of another task"
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_hosts_that_failed_in_an_earlier_task_are_named_with_what_helps(
    nr: Nornir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_gathered", lambda task, *_: HostFacts(task.host.name))
    monkeypatch.setattr(gather, "read_facts", lambda task, *_, timeout=60: HostFacts(task.host.name, now=timeout))
    nr.data.failed_hosts.update({"s1", "a1"})
    for call in (deploy, plan):
        with pytest.raises(HostsFailed) as caught:
            call(nr, base=tmp_path, state=tmp_path / "state")
        assert [one.host for one in caught.value.errors if isinstance(one, HostError)] == ["s1", "a1"]
        assert "s1, a1: left out of 'observe': it failed in an earlier task" in str(caught.value)
        assert "nr.data.reset_failed_hosts()" in str(caught.value)
        assert "run again" not in str(caught.value)
    assert status(nr, base=tmp_path, state=tmp_path / "state").unreachable == ["s1", "a1"]
    assert nr.data.failed_hosts == {"s1", "a1"}, "the marks of another task stay"


def test_the_settings_of_config_yaml_are_used_as_by_the_commands(nr: Nornir, tmp_path: Path) -> None:
    drift_options = {"limits": {"certificate_days": 7}, "keep_runs": 3}
    nr.config.user_defined["k3s"] = {
        "state": str(tmp_path / "elsewhere"),
        "cache": str(tmp_path / "cache"),
        "widths": {"stage": 3, "agents": 2},
        "deadlines": {"connect": 5, "server": 77},
        "drift": drift_options,
    }
    folders = paths.of(nr, tmp_path, None)
    assert folders.state == tmp_path / "elsewhere"
    assert paths.of(nr, tmp_path, tmp_path / "given").state == tmp_path / "given"
    run = gather.prepare(nr, base=folders.base, state=folders.state, options={"deadlines": {"connect": 9}})
    assert (run.deadlines["connect"], run.deadlines["server"], run.widths["stage"]) == (9, 77, 3)
    assert run.store.folder == tmp_path / "elsewhere" / "test"
    found = complete(nr, {"keep_runs": 4})
    assert (found["limits"].certificate_days, found["keep_runs"], found["cache"]) == (7, 4, tmp_path / "cache")


@pytest.mark.parametrize("workflow", [deploy, plan, drift, status])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sate": "x"}, "user_defined.k3s.sate: unknown key `sate`; did you mean `state`?"),
        (
            {"deadlines": {"conect": 5}},
            "user_defined.k3s.deadlines.conect: unknown key `conect`; did you mean `connect`?",
        ),
        ({"widths": {"stage": "3"}}, "user_defined.k3s.widths.stage: it must be a number, without quotes"),
        ({"drift": {"limits": {"latency": 5}}}, "user_defined.k3s.drift.limits.latency"),
        ("state", "user_defined.k3s: it must be a mapping"),
    ],
)
def test_wrong_settings_of_config_yaml_are_refused(
    nr: Nornir, tmp_path: Path, workflow: Any, given: Any, words: str
) -> None:
    nr.config.user_defined["k3s"] = given
    with pytest.raises(UsageError) as caught:
        workflow(nr, base=tmp_path, state=tmp_path / "state")
    assert words in str(caught.value)
