"""The Lease of the cluster, and what it does beside the lock on hosts."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from nornir_k3s.apply import hold as holds
from nornir_k3s.apply import lease as leases
from nornir_k3s.checks import at_work
from nornir_k3s.errors import Busy
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.lease import Lease
from nornir_k3s.model.work import Work
from nornir_k3s.phases import cluster_lock
from nornir_k3s.phases import lease as phase
from nornir_k3s.records import RecordError
from nornir_k3s.ssh.session import CommandResult

from .conftest import ANN, BOB, Api_, Controller, with_api


def test_the_lease_names_the_owner_and_is_let_go(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    assert api.lease
    found = Lease(api.lease, time.time())
    assert (found.holder, found.owner) == (ANN.id, ANN)
    assert set(found.hosts) == {"s1", "s2"}
    assert found.age < 10
    assert found.lasts == 30
    assert at_work.owners({"s1": HostFacts("s1", lease=found)}) == [str(ANN)]
    assert not at_work.owners({"s1": HostFacts("s1", lease=replace(found, now=found.now + 60))})
    ann.lock.release()
    assert Lease(api.lease, 0).owner is None
    ann.lock.take(ann.run)
    assert api.lease["spec"]["leaseTransitions"] == 1
    assert api.calls == ["get", "create", "replace", "get", "replace"]


def test_the_lease_of_an_owner_without_a_lock_on_hosts_is_respected_while_it_is_renewed(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann = with_api(controller())
    api.held_by(BOB, hosts="s3")
    ask = api.answer

    def renewing(script: str) -> str:
        api.held_by(BOB, hosts="s3")
        return ask(script)

    monkeypatch.setattr(api, "answer", renewing)
    with pytest.raises(Busy, match="bob@desk makes a backup"):
        ann.lock.take(ann.run)
    assert not ann.sessions["s1"].read().held


@pytest.mark.parametrize(
    "lease",
    [(0, "s1", 30), (301, "s9", 30), (0, "s9", 0.05)],
    ids=["its locks are ours", "older than a clock is wrong", "it has run out while we looked"],
)
def test_the_lease_of_a_dead_owner_is_taken_over(
    controller: Callable[..., Controller],
    api: Api_,
    monkeypatch: pytest.MonkeyPatch,
    lease: tuple[float, str, int],
) -> None:
    (age, hosts, lasts) = lease
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann = with_api(controller())
    api.held_by(BOB, age=age, hosts=hosts, lasts=lasts)
    ann.lock.take(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id


def test_a_lease_that_lasts_long_is_believed(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    api.held_by(replace(BOB, command="deploy"), lasts=3600)
    with pytest.raises(Busy, match="bob@desk deploys"):
        ann.lock.take(ann.run)


def test_of_two_that_reach_no_common_host_the_first_one_works(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann, bob = with_api(controller(ANN, "s1")), with_api(controller(BOB, "s2"))
    ann.lock.take(ann.run)
    ask, count = api.answer, 0

    def renewing(script: str) -> str:
        nonlocal count
        count += 1
        if count > 1:
            api.held_by(ANN, hosts="s1")
        return ask(script)

    monkeypatch.setattr(api, "answer", renewing)
    with pytest.raises(Busy, match="ann@ci-7"):
        bob.lock.take(bob.run)


def test_a_lease_that_another_run_has_and_renews_ends_this_one(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    for age in (5, 4):
        api.held_by(BOB, age=age, hosts="s9")
        ann.lock._renew()
    with pytest.raises(Busy, match="lost the Lease of the cluster: bob@desk"):
        ann.lock.require(ann.run)


def test_a_lease_that_came_back_with_old_data_is_taken_again(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    api.held_by(BOB, hosts="s1,s2")
    ann.lock._renew()
    ann.lock.require(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id
    api.lease = None
    ann.lock._renew()
    ann.lock._renew()
    assert api.lease


def test_without_the_api_the_locks_on_hosts_count(controller: Callable[..., Controller], api: Api_) -> None:
    ann, bob = with_api(controller()), with_api(controller(BOB))
    api.down = True
    ann.lock.take(ann.run)
    with pytest.raises(Busy):
        bob.lock.take(bob.run)
    api.down = False
    ann.lock._renew()
    assert api.lease
    api.down = True
    ann.lock._renew()
    ann.lock.release()


def test_a_run_that_was_suspended_for_long_asks_for_its_lease_before_it_goes_on(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    calls, clock = len(api.calls), holds.now
    monkeypatch.setattr(cluster_lock, "now", lambda: clock() + 60)
    ann.lock.require(ann.run)
    assert api.calls[calls:] == ["replace"]


def test_the_keeper_renews(controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 0.02)
    monkeypatch.setattr(cluster_lock, "RENEW", 0.05)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    begin = time.monotonic()
    while api.calls.count("replace") < 2:
        assert time.monotonic() - begin < 60


def test_what_the_api_says_is_understood() -> None:
    def said(how: str, text: str) -> str:
        return f"@lease\t{how}\t{base64.b64encode(text.encode()).decode()}\t5\n@end\n"

    assert leases.parse(said("failed", "Error from server (Conflict): x")).reason == "Conflict"
    assert leases.parse(said("failed", "error: unknown")) == leases.Answer(None)
    assert leases.parse(said("ok", 'Warning: x\n{"kind": "Lease"}')).lease == Lease({"kind": "Lease"}, 5.0)
    with pytest.raises(RecordError):
        leases.parse(said("ok", "no JSON"))
    odd = Lease({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": "x"}}, 5)
    assert (odd.age, odd.lasts) == (float("inf"), 30)
    assert odd.owner
    assert str(odd.owner) == "somebody@an unknown host works since 1970-01-01 00:00:00 UTC"
    assert Lease({"spec": 1, "metadata": {"annotations": 1}}, 5).hosts == frozenset()


def test_neither_an_api_that_hangs_nor_a_slow_host_costs_another_one_its_lock(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 2)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.2)
    monkeypatch.setattr(cluster_lock, "RENEW", 0.05)
    ann, take, answers = with_api(controller()), holds.Hold.take, threading.Event()
    ann.lock.take(ann.run)
    monkeypatch.setattr(ann.lock._lease, "renew", lambda *_: answers.wait(20) and None)
    begin = holds.now()
    while holds.now() - begin < 2.4:
        assert all(one.read() == Work(True, 1, ANN) for one in ann.sessions.values())

    def slow(hold: holds.Hold) -> holds.Taken:
        time.sleep(2.4)  # what the test is about
        return take(hold)

    monkeypatch.setattr(holds.Hold, "take", slow)
    ann.sessions["s2"].channels[0].close()
    ann.lock.require(ann.run)
    answers.set()
    assert ann.sessions["s2"].read() == Work(True, 3, ANN)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)


def test_a_run_that_has_lost_its_lock_takes_nothing_from_one_that_is_about_to_begin(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = with_api(controller()), controller(BOB)
    ann.lock.take(ann.run)
    for session in ann.sessions.values():
        session.channels[0].close()
    api.held_by(BOB, hosts="s1,s2")
    ann.lock._renew()
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == BOB.id
    other = holds.Hold(cast(Any, bob.sessions["s1"]), BOB)
    assert not other.take().busy
    with pytest.raises(Busy, match="bob@desk makes a backup"):
        ann.lock.require(ann.run)
    other.close()


def test_a_renewal_that_comes_late_takes_no_lease_for_a_run_that_has_ended(
    controller: Callable[..., Controller], api: Api_
) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    ann.lock.release()
    ann.lock._lease.renew(ann.run, frozenset(["s1"]))
    assert api.lease
    assert not api.lease["spec"]["holderIdentity"]
    ann.lock.take(ann.run)
    assert api.lease["spec"]["holderIdentity"] == ANN.id


def test_a_server_whose_kubectl_hangs_keeps_no_run_waiting(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "SLOW", 0.01)
    ann, answers = controller(ANN, "s1", "s2"), threading.Event()
    ann.ready = ["s1", "s2"]
    ann.read()
    monkeypatch.setattr(ann.sessions["s1"], "run", lambda *_, **__: answers.wait(60) and CommandResult("", "", 0, 0.0))
    ann.lock.take(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id
    ann.lock.release()
    assert not api.lease["spec"]["holderIdentity"]
    assert not answers.is_set(), "nobody has waited for s1"
    answers.set()


def test_servers_that_do_not_answer_are_asked_at_the_same_time(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, together = controller(ANN, "s1", "s2", "s3"), threading.Barrier(2, timeout=20)
    monkeypatch.setattr(phase, "SLOW", 0.01)
    ann.ready = ["s1", "s2"]
    ann.read()
    broken: list[bool] = []

    def hangs(*_: object, **__: object) -> CommandResult:
        try:
            together.wait()
        except threading.BrokenBarrierError:
            broken.append(True)
        return CommandResult("", "", 0, 0.0)

    for name in ann.ready:
        monkeypatch.setattr(ann.sessions[name], "run", hangs)
    ann.lock._lease.renew(ann.run, frozenset())
    assert (ann.lock._lease.held, broken) == (False, [])


def test_a_lease_that_is_written_by_a_script_that_came_late_is_ours(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, ask = with_api(controller()), api.answer

    def late(script: str) -> str:
        """Another server has carried out the same script already."""
        if "lease_write" in script.splitlines()[-2]:
            ask(script)
        return ask(script)

    monkeypatch.setattr(api, "answer", late)
    assert ann.lock.take(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id
    assert ann.lock._lease.held
