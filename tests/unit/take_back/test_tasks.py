"""Nornir tasks of single steps on a controller that lacks the secrets of a cluster."""

from __future__ import annotations

import base64
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s.errors import HostUnreachable, K3sError
from nornir_k3s.facts import held
from nornir_k3s.run import gather, shared, take_back
from nornir_k3s.run.context import Run

from ..conftest import HOSTS
from ..test_left import nr
from .conftest import Living

Work = Callable[[Task, Run], object]


@pytest.fixture
def answering(living: Living, monkeypatch: pytest.MonkeyPatch) -> Living:
    """The cluster, whose hosts answer what they hold, but for those that are down."""

    def session(task: Task, **_: Any) -> Any:
        name = task.host.name
        if name in living.down:
            raise HostUnreachable(name, "no route")
        texts = ((path, base64.b64encode(text.encode()).decode()) for path, text in living.hosts[name].items())
        said = [f"@held\t{path}\t{word}\n" for path, word in texts]
        if living.data and name == "db1":
            said.append(f"@database\tbootstrap\t/bootstrap/{living.data}\t9\n")
        answer = SimpleNamespace(stdout="".join([*said, "@end\n"]), status=0)
        return SimpleNamespace(run=lambda *_, **__: answer, round_trips=1, alive=True)

    monkeypatch.setattr(gather, "session", session)
    return living


def do(living: Living, team: Nornir, work: Work = lambda *_: None) -> list[BaseException]:
    """Run a task as those of single steps do; return the errors of its hosts."""

    def step(task: Task) -> Result:
        one = shared.of(task, living.folder / "second", living.folder / "second" / "state", {"whole": True})
        one.begin()
        return Result(host=task.host, result=work(task, one.run))

    results = team.run(task=step, raise_on_error=False)
    team.data.reset_failed_hosts()
    return [one.exception for one in results.values() if one.exception]


def token(living: Living) -> str:
    path = living.folder / "second" / "state" / "test" / "token"
    return path.read_text().strip() if path.exists() else ""


def change(*names: str) -> Work:
    """Return what changes these hosts, as `apply_steps` begins."""

    def work(task: Task, run: Run) -> None:
        if task.host.name in names:
            take_back.require_settled(run)

    return work


def test_what_they_take_back_is_saved(answering: Living) -> None:
    assert do(answering, nr(HOSTS)) == []
    assert token(answering) == answering.cluster.token.reveal()


def test_what_they_generate_is_saved_if_all_have_answered(answering: Living) -> None:
    answering.hosts, answering.down, team = {name: {} for name in HOSTS}, {"s2"}, nr(HOSTS)
    assert do(answering, team) == []
    assert token(answering) == ""
    answering.down = set()
    assert do(answering, nr(HOSTS)) == []
    assert token(answering)


def test_nothing_is_made_for_data_whose_token_no_host_has(answering: Living) -> None:
    answering.hosts = {name: {} for name in HOSTS}
    answering.data = "0123456789ab"
    errors = do(answering, nr(HOSTS), change("s1", "lb1"))
    assert len(errors) == 2
    assert all("the data of a cluster whose token no host has" in str(one) for one in errors)
    assert token(answering) == ""


@pytest.mark.parametrize("reached", [True, False], ids=["it was reached", "it was asked a while ago"])
def test_a_host_that_is_back_is_asked_again(answering: Living, monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    answering.hosts.update(s1={}, db1={})
    answering.down, team = {"s2"}, nr(HOSTS)
    (error,) = do(answering, team, change("db1"))
    assert "s2: not asked for the cluster's token" in str(error)
    answering.down = set()
    if reached:
        do(answering, team, gather.session_of)  # as what reads its facts does
    else:
        monkeypatch.setattr(shared, "AGAIN", 0)
    assert do(answering, team, change("db1")) == []
    assert token(answering) == answering.cluster.token.reveal()


def test_hosts_that_do_not_agree_stop_every_task(answering: Living) -> None:
    answering.hosts["s2"][held.TOKEN] = "K10::server:other\n"
    errors = do(answering, nr(HOSTS), change(*HOSTS))
    assert len(errors) == len(HOSTS)
    assert all(isinstance(one, K3sError) and "do not agree" in one.message for one in errors)
    assert token(answering) == ""
