"""The scope of a run: its parts share its lock, and so do Nornir tasks on many hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from nornir_k3s.errors import Busy
from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.task_lock import Together
from nornir_k3s.run.context import Run

from .conftest import Controller


def test_a_run_that_is_part_of_another_shares_its_lock(controller: Callable[..., Controller]) -> None:
    ann = controller()
    inner = cast(Run, SimpleNamespace(**vars(ann.run)))
    with changing(ann.run, "rotate") as outer:
        with changing(inner, "deploy") as lock:
            assert lock is outer is inner.lock
        assert lock.owner.command == "rotate"
        caught: list[BaseException] = []

        def other_thread() -> None:
            try:
                with changing(inner, "deploy"):
                    pass
            except Busy as error:
                caught.append(error)

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert f"another deploy of lab is in progress: {lock.owner}" in str(caught[0])
    assert ann.run.lock is None


def test_tasks_on_many_hosts_share_one_lock(controller: Callable[..., Controller]) -> None:
    ann, together = controller(), Together()
    with together.changing(ann.run) as first:
        with together.changing(ann.run) as second:
            second.require(ann.run)
        assert first is second is ann.run.lock
        assert ann.sessions["s1"].read().held
    assert ann.run.lock is None
    assert not ann.sessions["s1"].read().held
    with together.changing(ann.run) as third:
        assert third is not first
        third.require(ann.run)


def test_the_thread_that_ends_last_lets_the_lock_go(controller: Callable[..., Controller]) -> None:
    ann, together = controller(), Together()
    began, end = threading.Event(), threading.Event()

    def work() -> None:
        with together.changing(ann.run):
            began.set()
            end.wait(20)

    thread = threading.Thread(target=work)
    with together.changing(ann.run):
        thread.start()
        began.wait(20)
    end.set()
    thread.join()
    with changing(ann.run, "deploy"):
        pass
