"""What holds for several hosts is shown once, with their names: plans, failures, findings."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from rich.console import Console

from nornir_k3s import (
    CommandFailed,
    DriftReport,
    Finding,
    HostsFailed,
    HostUnreachable,
    K3sError,
    Plan,
    PreflightFailed,
)
from nornir_k3s.model.drift_report import HostState
from nornir_k3s.model.finding import problem
from nornir_k3s.model.plan import Change, HostPlan
from nornir_k3s.model.together import together
from nornir_k3s.report import drift_terminal, terminal

DIFF = "--- /x\n+++ /x\n-a\n+b\n"


def said(show: Callable[[Console], None]) -> list[str]:
    out = io.StringIO()
    show(Console(file=out, width=200, highlight=False))
    return out.getvalue().splitlines()


def change(host: str, summary: str, diff: str = "", phase: str = "servers") -> Change:
    return Change(id=f"{host}/x", phase=phase, kind="file", target="/x", summary=summary, diff=diff)


def test_a_plan_shows_a_diff_once_with_its_hosts() -> None:
    hosts = {
        "s1": HostPlan(role="servers", changes=[change("s1", "change /x", DIFF), change("s1", "restart k3s")]),
        "s2": HostPlan(role="servers", changes=[change("s2", "change /x", DIFF), change("s2", "restart k3s")]),
        "s3": HostPlan(role="servers", changes=[change("s3", "change /x", "-c\n+b\n"), change("s3", "restart k3s")]),
        "a1": HostPlan(role="agents", changes=[change("a1", "change /x", DIFF, "agents")]),
        "lb1": HostPlan(role="lb", changes=[]),
    }
    plan = Plan(cluster="test", version="v", hosts=hosts, phases=["servers", "agents"])
    assert said(lambda console: terminal.show_plan(plan, console)) == [
        "servers: s1, s2, s3 (servers)",
        "  s1, s2: change /x", "    --- /x", "    +++ /x", "    -a", "    +b",
        "  restart k3s",
        "  s3: change /x", "    -c", "    +b",
        "agents: a1 (agents)",
        "  change /x", "    --- /x", "    +++ /x", "    -a", "    +b",
        "nothing to change on lb1",
    ]  # fmt: skip


def test_errors_of_several_hosts_are_told_once_with_the_hint() -> None:
    failed = [HostUnreachable(name, "no route to the gateway", hint="check the jump host") for name in ("s1", "s2")]
    other = HostUnreachable("a1", "no answer from 10.0.0.14:22", hint="check the jump host")
    command = CommandFailed("a2", "apt", status=100, hint="run apt update")
    error = HostsFailed([*failed, HostsFailed([command, other]), K3sError("the VIP is on no host")])
    assert str(error).splitlines() == [
        "s1, s2: no route to the gateway",
        "a1: no answer from 10.0.0.14:22",
        "  next: check the jump host",
        "a2: apt failed with status 100",
        "  next: run apt update",
        "the VIP is on no host",
    ]
    assert (error.exit_code, len(error.errors)) == (4, 5)


def findings() -> list[Finding]:
    return [
        problem(name, "disk", "900 MiB are free", "at least 1 GiB", "free disk space") for name in ("s1", "s2", "a1")
    ]


def test_findings_of_the_preflight_are_told_once_with_their_hosts() -> None:
    line = "s1, s2, a1: 900 MiB are free; expected: at least 1 GiB -> free disk space [disk]"
    assert said(lambda console: terminal.show_findings(findings(), console)) == [f"error: {line}"]


def test_a_failed_preflight_counts_every_finding() -> None:
    error = PreflightFailed(findings(), together(findings()))
    assert str(error).count("free disk space") == 1
    assert len(error.problems) == 3
    assert "found 3 problem(s)" in str(error)


def test_drift_is_told_once_with_its_hosts_and_the_first_time() -> None:
    first = datetime.now(UTC) - timedelta(hours=3)
    same = [
        Finding(
            host=name, kind="file", subject="/x", found="the content differs", expected="b", remedy="deploy writes it",
            diff=DIFF, since=first + timedelta(hours=number),
        )
        for number, name in enumerate(("s1", "s2"))
    ]  # fmt: skip
    own = same[0].model_copy(update={"host": "s3", "diff": "-c\n+b\n"})
    hosts = {name: HostState(role="servers", address="10.0.0.1", reached=name[0] == "s") for name in ("s1", "a1", "a2")}
    hosts["a1"].error, hosts["a2"].error = "a1: timed out", "a2: timed out"
    report = DriftReport(cluster="test", hosts=hosts, differences=[*same, own])
    lines = said(lambda console: drift_terminal.show(report, console))
    assert lines[0] == "unreachable: a1, a2: timed out"
    assert lines[1] == "warning: s1, s2: the content differs"
    assert "3 hours ago" in lines[2]
    assert lines.count("    -a") == 1
    assert "warning: s3: the content differs" in lines
    assert "3 warnings" in lines[-1]
