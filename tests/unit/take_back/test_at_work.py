"""Hosts do not agree while another controller changes a secret: who is at work is said."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nornir.core.task import Task

from nornir_k3s.errors import Busy, HostsDisagree, PreflightFailed
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.work import Owner, Work
from nornir_k3s.phases import preflight
from nornir_k3s.run import gather
from nornir_k3s.run.context import Lock, Run
from nornir_k3s.workflows import drift, plan

from .conftest import Living, known

ANN = Owner("ann@ci-7/1", "ann", "ci-7", "rotate", 1764072000.0)
WHO = "ann@ci-7 rotates since 2025-11-25 12:00:00 UTC"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Hosts:
    """Hosts that answer what they hold, and who has the lock or the Lease."""

    def __init__(self, living: Living) -> None:
        self.living = living
        self.locked: set[str] = set()
        self.leased = False
        self.read = 0  # how often secrets were read, on all hosts
        self.asked: list[str] = []

    def session(self, task: Task, **_: Any) -> Any:
        name = task.host.name
        return SimpleNamespace(run=lambda script, **_: self.answer(name, script), round_trips=1, alive=True)

    def answer(self, name: str, script: str) -> Any:
        if "fact_held" in script:
            self.read += 1
            said = [f"@held\t{path}\t{encoded(text)}" for path, text in self.living.hosts[name].items()]
        else:
            self.asked.append(name)
            said = [f"@work\tyes\t3\t{ANN.word}\t-"] if name in self.locked else []
            renewed = datetime.now(UTC).isoformat()
            data = {
                "spec": {"holderIdentity": ANN.id, "renewTime": renewed, "leaseDurationSeconds": 30},
                "metadata": {"annotations": {"nornir-k3s/owner": ANN.text}},
            }
            said += [f"@lease\t{encoded(json.dumps(data))}\t{time.time():.0f}"] if self.leased and name == "s1" else []
        return SimpleNamespace(stdout="\n".join([*said, "@end", ""]), status=0)


@pytest.fixture
def hosts(living: Living, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts(living)
    monkeypatch.setattr(gather, "session", made.session)
    return made


def rotating(hosts: Hosts) -> Run:
    """Return the run of a new controller, while one server has another password already."""
    hosts.living.set_servers(hosts.living.with_password("new"), "s2")
    return hosts.living.controller("second")


@pytest.mark.parametrize(("locked", "leased"), [({"lb1"}, False), (set(), True)], ids=["on a host", "by the Lease"])
def test_who_rotates_a_secret_is_said_to_a_new_controller(hosts: Hosts, locked: set[str], leased: bool) -> None:
    run = rotating(hosts)
    hosts.locked, hosts.leased = locked, leased
    for _ in range(2):
        with pytest.raises(Busy) as caught:
            run.begin()
        assert caught.value.exit_code == 5
        assert caught.value.message == (
            f"{WHO}; meanwhile hosts of this cluster do not agree: database password: s2 has another one than s1"
        )
    assert run.report.notes == []
    assert run.store.read("token") is None


def test_hosts_that_do_not_agree_while_nobody_is_at_work_are_told(hosts: Hosts) -> None:
    run = rotating(hosts)
    with pytest.raises(HostsDisagree, match="s2 has another one than s1"):
        run.begin()
    run.lock = cast(Lock, SimpleNamespace(owner=ANN))
    hosts.locked = {"s1"}
    with pytest.raises(HostsDisagree):  # the lock is its own
        run.begin()


def test_a_rotation_that_ends_meanwhile_disturbs_nobody(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    run, answer = rotating(hosts), hosts.answer

    def ended(name: str, script: str) -> Any:
        if "fact_held" not in script:
            hosts.living.set_servers(hosts.living.with_password("new"))
        return answer(name, script)

    monkeypatch.setattr(hosts, "answer", ended)
    run.begin()
    assert run.cluster.datastore_password.reveal() == "new"


def test_who_rotates_a_secret_is_said_to_one_that_has_an_older_one(hosts: Hosts) -> None:
    living = hosts.living
    run, new, newer = known(living), living.with_password("new"), living.with_password("newer")
    living.set_servers(new, "s1")
    living.set_servers(newer, "s2")
    living.facts(run, new, newer)
    hosts.locked = {"s1"}
    with pytest.raises(Busy, match=WHO):
        gather.take_over(run)
    hosts.locked = set()
    with pytest.raises(HostsDisagree):
        gather.take_over(run)
    run.facts["s1"] = replace(run.facts["s1"], work=Work(held=True, owner=ANN))  # it has ended since
    with pytest.raises(Busy, match=WHO):
        gather.take_over(run)


def test_the_lease_says_who_is_at_work_where_the_host_with_the_lock_is_down(hosts: Hosts) -> None:
    run = known(hosts.living)
    run.facts["s1"] = replace(run.facts["s1"], api=Api(ready=True))
    hosts.leased = True
    for name in run.present:
        run.facts.setdefault(name, HostFacts(name))
    gather.look_at_lease(run)
    assert hosts.asked == [], "every host was read: their locks say it"
    drift._no_deploy(run)
    del run.facts["lb1"]
    gather.look_at_lease(run)
    assert sorted(hosts.asked) == run.ready_servers
    with pytest.raises(Busy, match=f"^a deploy is in progress: {WHO}"):
        drift._no_deploy(run)


def test_a_plan_says_who_may_be_the_cause_of_what_the_preflight_finds(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = known(living)

    def refuse(_: Run) -> None:
        raise PreflightFailed([cast(Finding, "s1: a finding")])

    monkeypatch.setattr(preflight, "check", refuse)
    with pytest.raises(PreflightFailed) as caught:
        plan._check(run)
    assert WHO not in caught.value.hint
    run.facts["s1"] = replace(run.facts["s1"], work=Work(held=True, owner=ANN))
    with pytest.raises(PreflightFailed) as caught:
        plan._check(run)
    assert WHO in caught.value.hint
