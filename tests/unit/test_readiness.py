"""When waiting for a unit ends early: the waiting script in a real shell, with a clock that runs fast."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.apply import readiness
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.phases import host_tasks

REFUSED = 'level=error msg="Failed to ping database connection: FATAL: password authentication failed (SQLSTATE 28P01)"'
AWAY = 'level=error msg="Failed to ping database connection: connector tcp 10.0.0.5:5432: connect: connection refused"'
WRONG = 'level=fatal msg="Error: preparing server: Error 1045 (28000): Access denied"'
AGENT = 'level=error msg="Node password rejected, duplicate hostname"'
FLAG = "flag provided but not defined: -no-such-key"
HARMLESS = 'level=info msg="cgroup v1 support is in maintenance mode, please migrate to cgroup v2"'


def wait(folder: Path, script: str, *, journal: list[str], died: int, process: str = "this") -> readiness.Answer:
    """Run it where each look at the clock is a second later, and the unit never becomes active.

    Arguments:
        process: Which process of the unit wrote the journal: the one that runs is `this`.
    """
    (folder / "journal").write_text("".join(line + "\n" for line in journal))
    (folder / "seconds").write_text("1000")
    programs = {
        "date": f"n=$(($(cat {folder}/seconds) + 1)); echo $n >{folder}/seconds; echo $n",
        "sleep": ":",
        "journalctl": f"case $1-{process} in *=this-earlier) ;; *) cat {folder}/journal;; esac",
        "systemctl": f"case $1$3 in showInvocationID) echo this;; show*) echo {died};; is-active*)"
        ' [ "$2" = -q ] || echo activating; exit 3;; esac',
    }
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["sh"], input=script, env=environ, capture_output=True, text=True, check=False)
    return readiness.parse(done.stdout)


@pytest.mark.parametrize(
    ("journal", "died", "hopeless"),
    [
        ([WRONG, WRONG], 2, True),
        ([WRONG], 1, False),  # once may be by chance
        ([REFUSED] * 12, 0, True),  # PostgreSQL: 300 tries within one start
        ([REFUSED] * 3, 0, False),
        ([AWAY] * 12, 0, False),  # it may come
        ([], 5, False),
    ],
)
def test_waiting_ends_early_for_a_cause_that_waiting_cannot_cure(
    tmp_path: Path, journal: list[str], died: int, hopeless: bool
) -> None:
    answer = wait(tmp_path, readiness.server("s1"), journal=journal, died=died)
    assert not answer.ready
    assert answer.hopeless is hopeless
    assert "service k3s.service is activating" in answer.missing


@pytest.mark.parametrize(
    ("journal", "died", "hopeless"),
    [
        ([AGENT] * 3, 0, True),  # it names its cause every five seconds, without dying
        ([AGENT], 0, False),  # once may be by chance
        ([FLAG], 2, True),
        ([FLAG], 1, False),
        ([HARMLESS] * 9, 5, False),
    ],
)
def test_waiting_for_an_agent_ends_early_for_a_cause_that_comes_again(
    tmp_path: Path, journal: list[str], died: int, hopeless: bool
) -> None:
    assert wait(tmp_path, readiness.agent(), journal=journal, died=died).hopeless is hopeless


@pytest.mark.parametrize("script", [readiness.server("s1"), readiness.agent()], ids=["server", "agent"])
def test_what_an_earlier_process_wrote_does_not_count(tmp_path: Path, script: str) -> None:
    assert not wait(tmp_path, script, journal=[WRONG] * 9, died=9, process="earlier").hopeless


LACKS = "2026-11-25T19:00:00Z False container runtime network not ready: cni plugin not initialized"


@pytest.mark.parametrize(
    ("said", "node", "ready"),
    [
        (LACKS, "a1", True),
        (LACKS, "", False),  # flannel is on: it has failed
        ("2026-11-25T19:00:00Z False [container runtime is down, container runtime network not ready: x]", "a1", False),
        ("2026-11-25T19:00:00Z Unknown Kubelet stopped posting node status.", "a1", False),
        ("", "a1", False),  # it is not registered yet
    ],
)
def test_an_agent_that_waits_for_nothing_but_the_user_s_cni_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, node: str, ready: bool
) -> None:
    binary = tmp_path / "k3s"
    binary.write_text(f"#!/bin/sh\necho '{said}'\n")
    binary.chmod(0o755)
    monkeypatch.setattr(k3s, "BINARY", str(binary))
    answer = wait(tmp_path, readiness.agent(lacks_cni=node), journal=[], died=0)
    assert answer.ready is ready


@pytest.mark.parametrize(("deadline", "seconds"), [(1, 1), (7.5, 8), (600, readiness.CHUNK)])
def test_a_host_waits_no_longer_than_the_deadline(
    load: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, deadline: float, seconds: int
) -> None:
    scripts: list[str] = []

    def run(script: str, **_: Any) -> Any:
        scripts.append(script)
        return SimpleNamespace(stdout="@waited\tyes\t\n")

    monkeypatch.setattr(host_tasks, "session_of", lambda *_: SimpleNamespace(run=run, stop=threading.Event()))
    known: Any = SimpleNamespace(
        deadlines={"agent": deadline}, cluster=load(), member=load().member, tell=lambda *_: None
    )
    host_tasks.wait_for_agent(SimpleNamespace(host=SimpleNamespace(name="a1")), known)  # type: ignore[arg-type]
    assert f"wait_until_ready k3s-agent.service {seconds} " in scripts[0]
