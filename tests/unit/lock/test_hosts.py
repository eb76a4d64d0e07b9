"""The lock of the cluster on hosts, by real processes on this machine."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from nornir_k3s.apply import hold as holds
from nornir_k3s.checks import at_work
from nornir_k3s.errors import Busy, CommandFailed, HostUnreachable, OutcomeUnknown
from nornir_k3s.model import work
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.work import Work
from nornir_k3s.phases import cluster_lock
from nornir_k3s.shell import source

from .conftest import ANN, BOB, Channel, Controller, Session


def test_the_first_run_works_and_the_second_one_is_told_who(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    assert ann.lock.take(ann.run)
    with pytest.raises(Busy, match="ann@ci-7 deploys since 2025-11-25 12:00:00 UTC") as raised:
        bob.lock.take(bob.run)
    assert "within 30 seconds" in raised.value.hint
    assert {name: one.read() for name, one in bob.sessions.items()} == dict.fromkeys(
        ("lb1", "s2", "s1"), Work(True, 1, ANN)
    )
    assert at_work.owners({"s1": HostFacts("s1", work=bob.sessions["s1"].read())}) == [str(ANN)]
    ann.lock.release()
    assert bob.sessions["s1"].read() == Work(False, 2, None)


def test_what_was_read_before_another_run_changed_something_is_out_of_date(
    controller: Callable[..., Controller],
) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    bob.read()  # while ann is at work
    ann.lock.release()
    assert not bob.lock.take(bob.run)
    bob.lock.release()
    with pytest.raises(Busy, match="another run has changed the cluster since this one has read it"):
        bob.lock.require(bob.run)
    bob.lock.owner = replace(BOB, command="tasks")  # they share what they have read
    with pytest.raises(Busy) as raised:
        bob.lock.require(bob.run)
    assert raised.value.hint == "run k3s_facts on all hosts, then it again"
    bob.read()
    bob.lock.require(bob.run)
    bob.lock.require(bob.run)


def test_a_run_that_changed_the_hosts_itself_need_not_read_them_again(controller: Callable[..., Controller]) -> None:
    ann = controller()
    ann.lock.require(ann.run)
    ann.lock.release()
    ann.lock.require(ann.run)


def test_a_refused_run_makes_nothing_out_of_date(controller: Callable[..., Controller]) -> None:
    ann, bob, third = controller(), controller(BOB), controller(replace(BOB, id="third"))
    ann.lock.take(ann.run)
    with pytest.raises(Busy):
        bob.lock.take(bob.run)
    ann.lock.release()
    numbers = {session.read().number for session in ann.sessions.values()}
    assert numbers == {2}
    third.read()
    assert third.lock.take(third.run)


def test_the_lock_ends_with_its_owner(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    for session in ann.sessions.values():  # kill -9: the kernel closes the connections
        assert session.channels[0].process.stdin
        session.channels[0].process.stdin.close()
    for session in ann.sessions.values():
        session.channels[0].process.wait(60)
    bob.read()
    assert bob.lock.take(bob.run)


def test_an_owner_that_does_not_beat_loses_it(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 2)
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = controller(ANN, "s1"), controller(BOB, "s1")
    ann.lock.take(ann.run)
    ann.sessions["s1"].channels[0].process.wait(60)
    monkeypatch.setattr(holds, "LASTS", 30)
    bob.read()
    assert bob.lock.take(bob.run)
    with pytest.raises(Busy, match="this run has lost its lock on s1: bob@desk makes a backup"):
        ann.lock.require(ann.run)


def test_beats_keep_it(controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "LASTS", 2)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.2)
    ann = controller()
    ann.lock.take(ann.run)
    begin = holds.now()
    while holds.now() - begin < 2.4:
        assert all(one.read().held for one in ann.sessions.values())
    ann.lock.require(ann.run)


def test_a_connection_that_was_lost_and_is_back_takes_the_lock_again(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    session = ann.sessions["s2"]
    session.channels[0].close()
    assert not session.read().held
    session.alive = False
    ann.lock.require(ann.run)  # the host is down: the others hold
    session.alive = True
    ann.lock.require(ann.run)
    assert session.read() == Work(True, 3, ANN)
    with pytest.raises(Busy, match="ann@ci-7"):
        bob.lock.take(bob.run)
    ann.lock.require(ann.run)


def test_a_host_that_is_reached_later_is_locked_too(controller: Callable[..., Controller], tmp_path: Path) -> None:
    ann, bob = controller(ANN, "s1"), controller(BOB, "s2")
    ann.lock.take(ann.run)
    ann.sessions["a1"] = Session("a1", tmp_path, ann.sessions["s1"].api)
    ann.lock.require(ann.run)
    assert ann.sessions["a1"].read().owner == ANN
    assert bob.lock.take(bob.run)
    ann.sessions["s2"] = Session("s2", tmp_path, ann.sessions["s1"].api)
    with pytest.raises(Busy, match="bob@desk"):
        ann.lock.require(ann.run)


def test_a_host_that_is_down_stops_nobody_and_one_that_cannot_hold_it_does(
    controller: Callable[..., Controller], tmp_path: Path
) -> None:
    ann = controller()
    ann.sessions["lb1"].open = _unreachable  # type: ignore[method-assign]  # the host dies here
    assert ann.lock.take(ann.run)
    ann.lock.release()
    bob = controller(BOB, "a1")
    (tmp_path / "a1").touch()
    with pytest.raises(CommandFailed, match="a1: taking the lock"):
        bob.lock.take(bob.run)


def test_a_host_that_dies_before_the_first_change_is_told(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = controller(ANN, "s1")
    monkeypatch.setattr(holds.Hold, "begin", lambda hold: hold.close())
    with pytest.raises(OutcomeUnknown, match="s1: it has lost the lock of the cluster before the first change"):
        ann.lock.take(ann.run)
    assert not ann.sessions["s1"].read().held


def test_a_slow_host_costs_no_other_one_its_lock(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 2)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.2)
    ann, take = controller(ANN, "s1", "s2"), holds.Hold.take

    def slow(hold: holds.Hold) -> holds.Taken:
        if hold.session.host == "s2":
            time.sleep(2.4)  # what the test is about
        return take(hold)

    monkeypatch.setattr(holds.Hold, "take", slow)
    assert ann.lock.take(ann.run)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)


def _unreachable(*_: object, **__: object) -> Channel:
    raise HostUnreachable("lb1", "gone")


def test_a_host_that_does_not_answer_is_told(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ANSWER", 0.1)
    ann = controller(ANN, "s1")
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    silent = Channel(process)
    ann.sessions["s1"].open = lambda *_, **__: silent  # type: ignore[method-assign]  # this server never answers
    with pytest.raises(OutcomeUnknown, match="did not end in time"):
        ann.lock.take(ann.run)


def test_of_many_that_begin_together_one_works(controller: Callable[..., Controller]) -> None:
    every = [controller(replace(BOB, id=f"run {number}", user=f"u{number}")) for number in range(4)]
    outcomes: list[str] = []

    def begin(one: Controller) -> None:
        try:
            one.lock.take(one.run)
            outcomes.append("works")
        except Busy:
            outcomes.append("busy")

    threads = [threading.Thread(target=begin, args=(one,)) for one in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy", "busy", "busy", "works"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", ANN.text.replace("1764072000.0", "1e99")])
def test_what_names_nobody_is_nobody(text: str) -> None:
    assert work.owner(text) is None


def test_an_owner_of_today_is_told_with_the_time() -> None:
    today = replace(ANN, since=datetime.now(UTC).timestamp(), command="tasks")
    assert str(today).startswith("ann@ci-7 runs Nornir tasks that change hosts since ")
    assert work.owner(today.text) == today
    assert work.owner(replace(today, user="a\x1b[31mb").text) == replace(today, user="a[31mb")


def test_hosts_that_other_threads_reach_or_leave_out_meanwhile_harm_nothing(
    controller: Callable[..., Controller],
) -> None:
    ann = controller()

    class Reached(SimpleNamespace):
        @property
        def alive(self) -> bool:
            ann.sessions["a1"] = ann.sessions["s1"]
            return False

    class Facts(dict[str, HostFacts]):
        def __contains__(self, name: object) -> bool:
            return self.pop(str(name), None) is not None

    ann.sessions["a2"] = cast(Session, Reached(channels=()))
    ann.run.facts = Facts(ann.run.facts)
    assert ann.lock.take(ann.run)


@pytest.mark.parametrize(("login", "error"), [("printf hello", ""), ("flock() { return 127; }", "taking the lock")])
def test_output_of_a_login_is_left_out_and_a_host_that_cannot_lock_is_no_busy_one(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch, login: str, error: str
) -> None:
    ann = controller(ANN, "s1")
    monkeypatch.setattr("nornir_k3s.shell.source", lambda name: f"{login}\n{source(name)}")
    if error:
        with pytest.raises(CommandFailed, match=error):
            ann.lock.take(ann.run)
    else:
        monkeypatch.setattr(holds, "ANSWER", 5)
        assert ann.lock.take(ann.run)


@pytest.mark.parametrize("text", ["", "x y\n", "-1 -\n"])
def test_a_note_of_the_lock_that_is_damaged_needs_nobody(
    controller: Callable[..., Controller], tmp_path: Path, text: str
) -> None:
    ann = controller(ANN, "s1")
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "owner").write_text(text)
    ann.read()
    assert ann.lock.take(ann.run)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)


def reboot(one: Controller, name: str) -> None:
    """Empty the folder of the lock, as the boot of a host does, and end what it ran."""
    session = one.sessions[name]
    for channel in session.channels:
        channel.close()
    shutil.rmtree(session.folder)


def test_an_owner_whose_host_rebooted_and_was_changed_by_another_run_since_stops(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = controller(ANN, "s1"), controller(BOB, "s1")
    for _ in range(2):  # its number is higher than that of the next boot will be
        ann.lock.require(ann.run)
        ann.lock.release()
    ann.lock.require(ann.run)
    assert ann.sessions["s1"].read().number == 5
    reboot(ann, "s1")
    bob.read()
    bob.lock.require(bob.run)
    bob.lock.release()
    assert bob.sessions["s1"].read().number == 2
    with pytest.raises(Busy, match="this run has lost its lock on s1 to another run"):
        ann.lock.require(ann.run)


def test_an_owner_whose_host_rebooted_takes_the_lock_there_again(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = controller(), controller(BOB)
    ann.lock.require(ann.run)
    for _ in range(2):
        reboot(ann, "s2")
        ann.lock.require(ann.run)
        assert ann.sessions["s2"].read() == Work(True, 1, ANN)
    with pytest.raises(Busy, match="ann@ci-7"):
        bob.lock.require(bob.run)


def test_what_was_read_before_a_reboot_holds_unless_another_run_has_begun_since(
    controller: Callable[..., Controller],
) -> None:
    ann, bob = controller(ANN, "s1"), controller(BOB, "s1")
    ann.lock.require(ann.run)
    ann.lock.release()
    ann.read()
    bob.read()
    reboot(ann, "s1")
    assert ann.lock.take(ann.run)
    ann.lock.release()
    assert not bob.lock.take(bob.run), "the number is the same as before the reboot"
