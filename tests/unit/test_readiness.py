"""When waiting for a unit ends early: the waiting script in a real shell, with a clock that runs fast."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import k3s, shell
from nornir_k3s.apply import readiness
from nornir_k3s.k3s_journal import diagnose
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.report import HostReport
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
    active: bool = False,
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
        "date": f'case $1$2 in -d@*) echo "${{2#@}}"; exit;; -d*) echo 900; exit;; esac\n'
        f"n=$(($(cat {folder}/seconds) + 1)); echo $n >{folder}/seconds; echo $n",
        "sleep": ":",
        "journalctl": f"case $* in *_SYSTEMD_INVOCATION_ID=*) {'cat' if this else ':'} {folder}/journal;;"
        f" *--since*@1*) cat {folder}/journal;; esac",
        "systemctl": f"case $1$3 in showInvocationID) echo this;; showNRestarts) echo {died + before};;"
        f" showSubState|showActiveState) echo {state};; show*) echo then;; is-active*)"
        f' [ "$2" = -q ] || echo activating; exit {0 if active else 3};; esac',
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
        ([AGENT] * 3, 0, True),  # its own agent tries again and again, without dying
        ([AGENT] * 2, 0, False),
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


def test_a_unit_that_systemd_has_given_up_is_not_waited_for(tmp_path: Path) -> None:
    assert wait(tmp_path, readiness.agent(), journal=[], died=0, state="failed").hopeless


def test_keys_of_secrets_in_the_journal_are_not_shown(tmp_path: Path) -> None:
    said = [
        'level=info msg="Adding secrets-encryption key:  [{aescbckey-2026-11-25T08:35:03Z c2VjcmV0}]"',
        'level=info msg="Removing aescbc key:  {aescbckey c2VjcmV0}"',
    ]
    answer = wait(tmp_path, readiness.server("s1"), journal=[*said, WRONG], died=3)
    assert "Removing aescbc key: (not shown)" in answer.journal
    assert "c2VjcmV0" not in answer.journal
    (tmp_path / "lines").write_text("\n".join(said))
    text = f"say() {{ printf '%s' \"$2\" | base64 -d; }}\njournalctl() {{ cat {tmp_path}/lines; }}\n"
    script = f"{text}{shell.source('apply/steps.sh')}journal k3s.service\n"
    shown = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True).stdout
    assert shown.count("(not shown)") == 2
    assert "c2VjcmV0" not in shown


def test_the_cause_is_kept_although_it_stands_far_above(tmp_path: Path) -> None:
    noise = [f"{HARMLESS} {n}" for n in range(900)]
    answer = wait(tmp_path, readiness.server("s1"), journal=[UNKNOWN, *noise, UNKNOWN, *noise], died=3)
    assert answer.journal.count(UNKNOWN) == 1, "the same is shown once"
    assert "Scheduled restart job" in answer.journal
    assert len(answer.journal.splitlines()) < 1000


VERSION = "v1.34.3+k3s1"
LACKS = "False container runtime network not ready: cni plugin not initialized"
POSTING = "True kubelet is posting ready status"
SINCE, BEFORE = 2000, 800  # the process of the unit was started at 900


def posts(folder: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[str, int] | None) -> None:
    """Let kubectl say this of a node that was last reported then; the API works."""
    line = f"@{said[1]} {VERSION} {said[0]}" if said else ""
    binary = folder / "k3s"
    binary.write_text(f"#!/bin/sh\ncase $* in *--raw*) echo ok;; *) echo '{line}';; esac\n")
    binary.chmod(0o755)
    monkeypatch.setattr(k3s, "BINARY", str(binary))


ENDED = 'level=info msg="Shutdown request received: containerd exited: exit status 1"'


@pytest.mark.parametrize(("last", "died", "hopeless"), [(ENDED, 2, False), (ENDED, 3, True), (STARVED, 3, True)])
@pytest.mark.parametrize("kind", ["server", "agent"])
def test_a_containerd_that_ends_three_times_is_shown_with_its_own_last_lines(
    tmp_path: Path, *, kind: str, last: str, died: int, hopeless: bool
) -> None:
    """Also where K3s says something else last, because all of it ends."""
    log = tmp_path / "containerd.log"
    log.write_text("".join(f"line {number}\n" for number in range(9)) + 'key "imports" is already defined\n')
    script = readiness.server("s1") if kind == "server" else readiness.agent()
    script = script.replace("/var/lib/rancher/k3s/agent/containerd/containerd.log", str(log))
    answer = wait(tmp_path, script, journal=[ENDED, last] * died, died=died)
    assert answer.hopeless is hopeless
    assert "containerd exited: exit status 1" in answer.journal
    assert answer.journal.endswith('containerd.log: line 8\ncontainerd.log: key "imports" is already defined\n')
    cause = diagnose(answer.journal)
    assert cause
    assert cause.text == "containerd has ended, and K3s with it"
    assert "containerd.log" not in wait(tmp_path, script, journal=[UNKNOWN], died=1).journal


@pytest.mark.parametrize(
    ("said", "awaits_cni", "ready", "missing"),
    [
        ((LACKS, SINCE), True, True, ""),
        ((LACKS, BEFORE), True, False, "service k3s-agent.service is activating"),
        ((LACKS, SINCE), False, False, "service k3s-agent.service is activating"),  # flannel is on: it has failed
        (("False [container runtime is down, container runtime network not ready: x]", SINCE), True, False, ""),
        (("Unknown Kubelet stopped posting node status.", SINCE), True, False, ""),
        (None, True, False, ""),  # it is not registered yet
        ((POSTING, SINCE), False, True, "until its network policies are enforced"),
        ((POSTING, BEFORE), False, False, "service k3s-agent.service is activating"),
    ],
)
def test_an_agent_whose_node_was_reported_since_its_start_is_ready_before_systemd_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    said: tuple[str, int] | None,
    awaits_cni: bool,
    ready: bool,
    missing: str,
) -> None:
    posts(tmp_path, monkeypatch, said)
    script = readiness.agent(node="a1", url="https://v:6443", awaits_cni=awaits_cni)
    answer = wait(tmp_path, script, journal=[], died=0, state="start")
    assert answer.ready is ready
    assert missing in answer.missing
    assert not wait(tmp_path, readiness.agent(), journal=[], died=0, state="start").ready, "only active counts"


@pytest.mark.parametrize(
    ("said", "version", "missing"),
    [
        ((POSTING, SINCE), VERSION, ""),
        ((POSTING, SINCE), "", ""),
        ((POSTING, SINCE), "v1.34.4+k3s1", f"node a1 runs {VERSION}, expected v1.34.4+k3s1"),
        ((POSTING, BEFORE), VERSION, "node a1 has not been reported since k3s-agent.service was started"),
        ((LACKS, SINCE), VERSION, "node a1 is NotReady"),
        (None, "", "node a1 is not listed"),
    ],
)
def test_an_agent_that_was_ready_is_back_when_its_node_is_so_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, said: tuple[str, int] | None, version: str, missing: str
) -> None:
    posts(tmp_path, monkeypatch, said)
    script = readiness.agent(node="a1", url="https://v:6443", was_ready=True, version=version)
    answer = wait(tmp_path, script, journal=[], died=0, active=True)
    assert answer.ready is (not missing)
    assert answer.missing == missing
    script = readiness.agent(node="a1", url="https://v:6443")
    assert wait(tmp_path, script, journal=[], died=0, active=True).ready, "phase verify checks it"


@pytest.mark.parametrize(
    ("said", "own_cni", "missing"),
    [
        ((POSTING, SINCE), False, ""),
        ((POSTING, BEFORE), False, "node s1 has not been reported since k3s.service was started"),
        ((LACKS, SINCE), False, "node s1 is NotReady"),
        ((LACKS, SINCE), True, ""),
        ((LACKS, BEFORE), True, "node s1 has not been reported since k3s.service was started"),
        (None, False, "node s1 is not listed"),
    ],
)
def test_what_a_server_s_node_said_before_its_start_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, said: tuple[str, int] | None, own_cni: bool, missing: str
) -> None:
    posts(tmp_path, monkeypatch, said)
    script = readiness.server("s1", own_cni=own_cni, version=VERSION)
    answer = wait(tmp_path, script, journal=[], died=0, active=True)
    assert answer.ready is (not missing)
    assert answer.missing == missing
    other = wait(tmp_path, readiness.server("s1", own_cni=own_cni, version="v9"), journal=[], died=0, active=True)
    assert not other.ready
    assert other.missing == (missing if SINCE not in (said or ()) else f"node s1 runs {VERSION}, expected v9")


@pytest.mark.parametrize(
    ("limits", "begun", "seconds"),
    [
        ((1, None), 0, 1),
        ((7.5, None), 0, 8),
        ((600, None), 0, readiness.CHUNK),
        ((600, "10s"), 4.5, 6),
        ((600, 10), 60, 1),
        ((5, "1h"), 4.5, 5),
        ((600, "10s"), None, readiness.CHUNK),
    ],
)
def test_a_host_waits_no_longer_than_the_deadline(
    load: Callable[..., Cluster],
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[float, int | str | None],
    begun: float | None,
    seconds: int,
) -> None:
    deadline, of_node = limits
    scripts: list[str] = []

    def run(script: str, **_: Any) -> Any:
        scripts.append(script)
        return SimpleNamespace(stdout="@waited\tyes\t\t0\n")

    monkeypatch.setattr(host_tasks, "session_of", lambda *_: SimpleNamespace(run=run, stop=threading.Event()))
    known: Any = SimpleNamespace(
        deadlines={"agent": deadline},
        trial=0,
        begun={} if begun is None else {"a1": time.monotonic() - begun},
        cluster=load({"rolling_update": {"deadline": of_node}}),
        member=load().member,
        tell=lambda *_: None,
        is_node_ready=lambda _: False,
    )
    host_tasks.wait_for_agent(SimpleNamespace(host=SimpleNamespace(name="a1")), known)  # type: ignore[arg-type]  # all it uses
    assert f"wait_until_ready k3s-agent.service {seconds} 0 " in scripts[0]


@pytest.mark.parametrize(("waited", "orders"), [(0, ["wait"]), (host_tasks.SETTLED, ["wait", "restart", "wait"])])
def test_an_agent_whose_policies_do_not_start_is_restarted_once_after_a_minute(
    load: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, waited: float, orders: list[str]
) -> None:
    done: list[str] = []

    def run(script: str, **_: Any) -> Any:
        done.append("restart" if "act k3s-agent.service restart" in script else "wait")
        active = not waited or "restart" in done
        return SimpleNamespace(stdout=f"@waited\t{'yes' if active else 'never'}\t\t0\n")

    monkeypatch.setattr(host_tasks, "session_of", lambda *_: SimpleNamespace(run=run, stop=threading.Event()))
    cluster = load()
    report = HostReport(role="agents")
    known: Any = SimpleNamespace(
        deadlines={"agent": 9, "apply": 9},
        trial=0,
        begun={},
        cluster=cluster,
        member=cluster.member,
        tell=lambda *_: None,
        awaited={"a1": time.monotonic() - waited},
        report=SimpleNamespace(hosts={"a1": report}),
    )
    host_tasks.settle_agent(SimpleNamespace(host=SimpleNamespace(name="a1")), known)  # type: ignore[arg-type]  # all it uses
    assert done == orders
    assert report.restarts == ["k3s-agent.service"] * orders.count("restart")
    assert not known.awaited
