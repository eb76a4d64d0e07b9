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
CLOSED = 'level=fatal msg="Error: creating storage endpoint: dial tcp 10.0.0.5:3306: connect: connection refused"'
PEER = 'level=error msg="Remotedialer proxy error" error="dial tcp 10.0.0.6:6443: connect: connection refused"'
WRONG = 'level=fatal msg="Error: preparing server: Error 1045 (28000): Access denied"'
UNKNOWN = 'level=info msg="Shutdown request received: kubelet exited: invalid eviction signal nonsense"'
AGENT = 'level=error msg="Waiting to retrieve agent configuration; server is not ready: Node password rejected"'
FLAG = 'level=fatal msg="Error: flag provided but not defined: -no-such-key"'
HARMLESS = 'level=info msg="cgroup v1 support is in maintenance mode, please migrate to cgroup v2"'
STARVED = 'level=fatal msg="leaderelection lost for k3s"'


def wait(
    folder: Path,
    script: str,
    *,
    journal: list[str],
    died: int,
    this: bool = True,
    before: int = 0,
    state: str = "auto-restart",
) -> readiness.Answer:
    """Run it where each look at the clock is a second later, and the unit never becomes active.

    Arguments:
        died: How often the unit has ended since the wait began.
        this: Whether the process that runs wrote the journal.
        before: How often it had ended before the wait began.
        state: The unit's state; the process that runs is 100 seconds old.
    """
    ended = [f"k3s.service: Scheduled restart job, restart counter is at {before + n + 1}." for n in range(died)]
    (folder / "journal").write_text("".join(line + "\n" for line in journal + ended))
    (folder / "seconds").write_text("1000")
    programs = {
        "date": f'[ "$1" = -d ] && {{ echo 900; exit; }}\n'
        f"n=$(($(cat {folder}/seconds) + 1)); echo $n >{folder}/seconds; echo $n",
        "sleep": ":",
        "journalctl": f"case $* in *_SYSTEMD_INVOCATION_ID=*) {'cat' if this else ':'} {folder}/journal;;"
        f" *--since*@1*) cat {folder}/journal;; esac",
        "systemctl": f"case $1$3 in showInvocationID) echo this;; showNRestarts) echo {died + before};;"
        f" showSubState) echo {state};; show*) echo then;; is-active*)"
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
        ([CLOSED] * 5, 5, False),
        ([STARVED] * 5, 5, False),
        ([UNKNOWN, PEER] * 3, 3, True),  # whatever it is
        ([UNKNOWN] * 2, 2, False),
        ([PEER] * 9, 3, True),  # it says nothing at all
    ],
)
def test_waiting_ends_early_for_a_cause_that_waiting_cannot_cure(
    tmp_path: Path, journal: list[str], died: int, hopeless: bool
) -> None:
    script = readiness.server("s1", readiness.Wait(datastore=(("10.0.0.5", 3306),)))
    answer = wait(tmp_path, script, journal=journal, died=died, this=not died)
    assert not answer.ready
    assert answer.hopeless is hopeless
    assert "service k3s.service is activating" in answer.missing
    assert answer.died == (died if died >= 2 else 0)


@pytest.mark.parametrize(
    ("journal", "died", "hopeless"),
    [
        ([AGENT] * 3, 0, True),  # it names its cause every five seconds, without dying
        ([AGENT], 0, False),  # once may be by chance
        ([FLAG], 2, True),
        ([FLAG], 1, False),
        ([HARMLESS] * 9, 2, False),
        ([UNKNOWN], 3, True),
    ],
)
def test_waiting_for_an_agent_ends_early_for_a_cause_that_comes_again(
    tmp_path: Path, journal: list[str], died: int, hopeless: bool
) -> None:
    assert wait(tmp_path, readiness.agent(), journal=journal, died=died).hopeless is hopeless


@pytest.mark.parametrize("script", [readiness.server("s1"), readiness.agent()], ids=["server", "agent"])
def test_what_was_before_the_wait_does_not_count(tmp_path: Path, script: str) -> None:
    assert not wait(tmp_path, script, journal=[WRONG] * 9, died=0, this=False, before=9).hopeless


def test_a_process_that_lives_has_come_further_than_those_before(tmp_path: Path) -> None:
    assert not wait(tmp_path, readiness.server("s1"), journal=[WRONG] * 9, died=3, this=False, state="start").hopeless


def test_the_cause_is_kept_although_it_stands_far_above(tmp_path: Path) -> None:
    noise = [f"{HARMLESS} {n}" for n in range(900)]
    answer = wait(tmp_path, readiness.server("s1"), journal=[UNKNOWN, *noise, UNKNOWN, *noise], died=3)
    assert answer.journal.count(UNKNOWN) == 1, "the same is shown once"
    assert "Scheduled restart job" in answer.journal
    assert len(answer.journal.splitlines()) < 1000


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
        return SimpleNamespace(stdout="@waited\tyes\t\t0\n")

    monkeypatch.setattr(host_tasks, "session_of", lambda *_: SimpleNamespace(run=run, stop=threading.Event()))
    known: Any = SimpleNamespace(
        deadlines={"agent": deadline}, cluster=load(), member=load().member, tell=lambda *_: None
    )
    host_tasks.wait_for_agent(SimpleNamespace(host=SimpleNamespace(name="a1")), known)  # type: ignore[arg-type]
    assert f"wait_until_ready k3s-agent.service {seconds} 0 " in scripts[0]
