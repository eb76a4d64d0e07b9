from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.inventory import Defaults, Groups, Host, Hosts, Inventory
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task

from nornir_k3s.errors import Interrupted
from nornir_k3s.plugins.runner import K3sRunner


def nornir(count: int, runner: K3sRunner) -> Nornir:
    hosts = Hosts({f"h{i}": Host(f"h{i}", defaults=Defaults()) for i in range(count)})
    inventory = Inventory(hosts=hosts, groups=Groups(), defaults=Defaults())
    return Nornir(inventory=inventory, runner=runner, data=GlobalState(dry_run=False))


def test_every_host_gets_its_own_result() -> None:
    results = nornir(5, K3sRunner(2)).run(task=lambda task: Result(host=task.host, result=task.host.name))
    assert {name: multi[0].result for name, multi in results.items()} == {f"h{i}": f"h{i}" for i in range(5)}


def test_no_more_hosts_run_at_once_than_asked_for() -> None:
    lock, now, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=30)

    def task(task: Task) -> Result:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait()
        with lock:
            now -= 1
        return Result(host=task.host)

    nornir(6, K3sRunner(2)).run(task=task)
    assert most == 2


def test_after_a_stop_no_host_is_started_and_each_says_so() -> None:
    runner = K3sRunner(1)
    started: list[str] = []

    def task(task: Task) -> Result:
        started.append(task.host.name)
        runner.stop.set()
        return Result(host=task.host)

    results = nornir(4, runner).run(task=task)
    assert started == ["h0"]
    assert [multi.failed for multi in results.values()] == [False, True, True, True]
    assert all(isinstance(results[f"h{i}"][0].exception, Interrupted) for i in (1, 2, 3))


def test_ctrl_c_sets_the_stop_event_and_waits_for_what_runs() -> None:
    runner = K3sRunner(1)
    started: list[str] = []

    def task(task: Task) -> Result:
        started.append(task.host.name)
        os.kill(os.getpid(), signal.SIGINT)
        assert runner.stop.wait(30)
        return Result(host=task.host, result="finished")

    results = nornir(3, runner).run(task=task)
    assert started == ["h0"]
    assert results["h0"][0].result == "finished"
    assert isinstance(results["h2"][0].exception, Interrupted)


def test_an_error_in_one_host_s_task_is_that_host_s_alone() -> None:
    def task(task: Task) -> Result:
        if task.host.name == "h1":
            raise RuntimeError("odd")
        return Result(host=task.host)

    results = nornir(3, K3sRunner(3)).run(task=task)
    assert [name for name, multi in results.items() if multi.failed] == ["h1"]


@pytest.mark.parametrize("value", [None, "text"])
def test_odd_results_do_no_harm(value: Any) -> None:
    results = nornir(2, K3sRunner(2)).run(task=lambda task: value)  # noqa: ARG005 - Nornir gives it
    assert not results.failed


def test_a_second_ctrl_c_leaves_what_runs_behind() -> None:
    runner = K3sRunner(2)
    release = threading.Event()

    def task(task: Task) -> Result:
        os.kill(os.getpid(), signal.SIGINT)
        assert runner.stop.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        release.wait(300)  # it does not listen to the stop event
        return Result(host=task.host)

    before = signal.getsignal(signal.SIGINT)  # a shell that starts the tests in the background has it ignored
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        nornir(1, runner).run(task=task)
    assert time.monotonic() - begin < 60
    release.set()
    assert signal.getsignal(signal.SIGINT) is before


def test_python_exits_though_a_host_s_task_still_runs() -> None:
    program = """if True:
        import os, signal, threading
        from nornir_k3s.plugins.runner import K3sRunner
        from tests.unit.test_runner import nornir
        runner = K3sRunner(2)
        def task(task):
            os.kill(os.getpid(), signal.SIGINT)
            runner.stop.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait()
        nornir(1, runner).run(task=task)
    """
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120, check=False
    )
    assert "KeyboardInterrupt" in done.stderr
