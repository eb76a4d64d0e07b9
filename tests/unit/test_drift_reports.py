"""The forms of a drift check's report: data, terminal, metrics, page; and what is kept of each run."""

from __future__ import annotations

import io
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nornir_k3s import DriftReport, Finding
from nornir_k3s.cli.timer_units import Schedule
from nornir_k3s.model.drift_report import CertificateExpiry, HostState
from nornir_k3s.model.finding import Severity
from nornir_k3s.report import drift_terminal
from nornir_k3s.report.history import History
from nornir_k3s.report.html import page
from nornir_k3s.report.prometheus import metrics

EVIL = "<script>alert(1)</script>"


def difference(host: str = "s1", subject: str = "/etc/x", **more: Any) -> Finding:
    fields = {"kind": "file", "found": "the content differs", "expected": "it", "remedy": "deploy writes it", **more}
    return Finding(host=host, subject=subject, **fields)


def report(*found: Finding, unreachable: tuple[str, ...] = (), **more: Any) -> DriftReport:
    hosts = {
        name: HostState(role=role, address=f"10.0.0.{n}", node=name, reached=name not in unreachable, error="no route")
        for n, (name, role) in enumerate([("s1", "servers"), ("a1", "agents"), ("lb1", "lb"), ("db1", "datastore")])
    }
    return DriftReport(cluster="test", url="https://10.0.0.100:6443", hosts=hosts, differences=list(found), **more)


def said(it: DriftReport, **how: Any) -> str:
    out = io.StringIO()
    drift_terminal.show(it, Console(file=out, width=80, highlight=False), **how)
    return out.getvalue()


@pytest.mark.parametrize(
    ("it", "code"),
    [
        (report(), 0),
        (report(difference(severity="note")), 0),
        (report(difference(accepted="planned")), 0),
        (report(difference()), 3),
        (report(unreachable=("a1",)), 4),
        (report(difference(), unreachable=("a1",)), 4),
    ],
)
def test_exit_codes(it: DriftReport, code: int) -> None:
    assert it.exit_code == code


def test_words_for_people() -> None:
    text = said(report(difference(severity="error", since=datetime.now(UTC) - timedelta(hours=3), diff="-a\n+b\n")))
    for words in (
        "error: s1: the content differs",
        "file /etc/x",
        "expected: it",
        "3 hours ago",
        "next: deploy writes it",
        "+b",
    ):
        assert words in text
    assert "no drift" in said(report())


def test_only_new_says_nothing_where_nothing_is_new(tmp_path: Path) -> None:
    history = History(tmp_path / "drift")
    for expected in ("(new)", ""):
        it = report(difference())
        history.compare(it)
        history.add(it)
        assert (expected in said(it, only_new=True)) if expected else said(it, only_new=True) == ""


def test_a_host_that_stays_away_is_news_once(tmp_path: Path) -> None:
    history = History(tmp_path / "drift")
    for number, expected in enumerate((["a1"], [], [])):
        it = report(unreachable=("a1",), started=datetime.now(UTC) + timedelta(seconds=number))
        history.compare(it)
        history.add(it)
        assert it.lost == expected
        assert ("unreachable" in said(it, only_new=True)) is bool(expected)


def test_what_is_new_what_stayed_and_what_is_gone(tmp_path: Path) -> None:
    history = History(tmp_path / "drift")
    first = report(difference(subject="a"), difference(subject="b"))
    history.compare(first)
    history.add(first)
    second = report(difference(subject="b"), difference(subject="c"))
    history.compare(second)
    assert {one.subject: one.age for one in second.differences} == {"b": "stayed", "c": "new"}
    assert [one.subject for one in second.gone] == ["a"]
    assert second.previous == first.started


def second(tmp_path: Path, before: DriftReport, now: DriftReport) -> DriftReport:
    """Return the report of a second run, compared with that of the first."""
    history = History(tmp_path / "drift")
    history.compare(before)
    history.add(before)
    history.compare(now)
    return now


BOUND = "K3s runs with x {}; {} of 3 servers have it"


def of(kind: str, found: str, severity: Severity = "warning", **more: Any) -> Finding:
    return difference(kind=kind, found=found, severity=severity, **more)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (difference(), difference(found="the file is missing", severity="error")),
        (difference(), difference(severity="error")),
        (difference(severity="note"), difference()),
        (difference(accepted="ticket 1"), difference(found="the content differs (accepted until 2027-01-01)")),
        (difference(diff="-a\n+b\n"), difference(diff="-evil\n+b\n")),
        (of("file", "mode and owner are 640 root:root"), of("file", "mode and owner are 666 root:root")),
        (of("setting", BOUND.format(1, 1)), of("setting", BOUND.format(2, 1))),
        (of("certificate", "expires in 8 days"), of("certificate", "expires in 6 days", "error")),
        (of("unit", "the unit is stopped"), of("unit", "the unit has failed")),
        (of("node", "node s1 is cordoned"), of("node", "node s1 is not Ready", "error")),
    ],
)
def test_what_got_worse_or_is_something_else_is_new(tmp_path: Path, before: Finding, now: Finding) -> None:
    it = second(tmp_path, report(before), report(now))
    assert [(one.age, one.before) for one in it.differences] == [("new", f"{before.level}: {before.found}")]
    assert it.gone == []
    text = said(it, only_new=True)
    assert now.found in text
    assert f"(new; before: {before.level}: {before.found})" in text


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (difference(severity="error"), difference(severity="warning")),
        (difference(expected="a"), difference(expected="b", remedy="another")),
        (
            of("certificate", "ends in 29 days, on 2027-01-09"),
            of("certificate", "ends in 28 days, on 2027-01-09"),
        ),
        (of("disk", "900 MiB are free"), of("disk", "880 MiB are free")),
        (of("latency", "a round trip takes 21.4 ms"), of("latency", "a round trip takes 31.0 ms")),
        (
            of("unit", "the unit is restarted, 4 times"),
            of("unit", "the unit is restarted, 712 times"),
        ),
        (of("backend", "HAProxy reports s1 as DOWN"), of("backend", "HAProxy reports s1 as DOWN 1/2")),
        (of("setting", BOUND.format(1, 1)), of("setting", BOUND.format(1, 2))),
        (of("check", "it is +5.1 s off", subject="clock"), of("check", "it is -5.4 s off", subject="clock")),
    ],
)
def test_numbers_that_move_and_what_got_better_are_not_new(tmp_path: Path, before: Finding, now: Finding) -> None:
    it = second(tmp_path, report(before), report(now))
    assert [one.age for one in it.differences] == ["stayed"]
    assert said(it, only_new=True) == ""


def test_several_findings_of_one_id_are_compared_one_by_one(tmp_path: Path) -> None:
    away, cordoned = (of("node", f"node s1 is {state}", subject="s1") for state in ("not Ready", "cordoned"))
    it = second(tmp_path, report(cordoned), report(away, cordoned))
    assert [one.age for one in it.differences] == ["new", "stayed"]
    it = second(tmp_path / "2", report(away, cordoned), report(cordoned))
    assert [one.age for one in it.differences] == ["stayed"]
    assert [one.found for one in it.gone] == ["node s1 is not Ready"]


def test_a_host_that_cannot_be_read_for_another_reason_is_news(tmp_path: Path) -> None:
    before, now = report(unreachable=("a1",)), report(unreachable=("a1",))
    now.hosts["a1"].error = "its host key has changed"
    assert "unreachable: a1: its host key has changed" in said(second(tmp_path, before, now), only_new=True)


def test_a_run_that_an_older_release_saved_is_compared(tmp_path: Path) -> None:
    first = report(difference(), unreachable=("a1",))
    History(tmp_path / "drift").add(first)
    (path,) = (tmp_path / "drift").iterdir()
    path.write_text(re.sub(r'"errors":\{[^}]*\},|,"before":""', "", path.read_text()))
    it = report(difference(), unreachable=("a1",))
    History(tmp_path / "drift").compare(it)
    assert [one.age for one in it.differences] == ["stayed"]
    assert it.lost == []


def test_a_host_that_is_away_neither_loses_its_findings_nor_gets_them_anew(tmp_path: Path) -> None:
    history = History(tmp_path / "drift")
    for number, it in enumerate([report(difference("a1")), report(unreachable=("a1",)), report(difference("a1"))]):
        it.started += timedelta(seconds=number)
        history.compare(it)
        history.add(it)
        if number == 1:
            assert it.gone == []
        if number == 2:
            assert [one.age for one in it.differences] == ["stayed"]


def test_so_many_runs_are_kept_0600_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path / "drift", keep=3)
    begin = datetime(2027, 1, 1, tzinfo=UTC)
    for number in range(5):
        history.add(report(started=begin + timedelta(minutes=number)))
    files = sorted((tmp_path / "drift").iterdir())
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    files[-1].write_text("{")
    (tmp_path / "drift" / "mine.txt").write_text("not ours")
    assert [run.started.minute for run in history.runs()] == [3, 2]
    history.add(report(started=begin + timedelta(minutes=9)))
    assert (tmp_path / "drift" / "mine.txt").exists()


def test_metrics_are_what_prometheus_reads() -> None:
    ends = datetime.now(UTC) + timedelta(days=9, hours=1)
    it = report(
        difference(severity="error"),
        unreachable=("a1",),
        certificates=[CertificateExpiry(host="s1", path="p", ends=ends, authority=False)],
    )
    it.cluster = 'te"st\\'
    lines = metrics(it).splitlines()
    sample = re.compile(r'^[a-z_0-9]+\{([a-z]+="(\\.|[^"\\])*",?)+\} -?[0-9.]+$')
    assert all(line.startswith("# ") or sample.match(line) for line in lines), lines
    name = r'cluster="te\"st\\"'
    assert f'nornir_k3s_drift_findings{{{name},severity="error"}} 1' in lines
    assert f'nornir_k3s_drift_host_up{{{name},host="a1",role="agents"}} 0' in lines
    assert f'nornir_k3s_drift_certificate_days{{{name},host="s1"}} 9' in lines
    assert f"nornir_k3s_drift_exit_code{{{name}}} 4" in lines
    assert "vip_holders" not in metrics(it), "there are no load balancers"
    it.hosts["lb1"] = HostState(role="lb", roles=["lb"], address="10.0.0.15", reached=False)
    assert f"nornir_k3s_drift_vip_holders{{{name}}} 0" in metrics(it).splitlines()


class Links(HTMLParser):
    """Collects everything that could leave the page, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_says_nothing_that_a_host_could_have_made_up() -> None:
    it = report(
        difference(found=EVIL, subject=EVIL, diff=f"+{EVIL}"), difference("cluster"), unreachable=("a1",), notes=[EVIL]
    )
    text = page(it)
    assert EVIL not in text
    links = Links()
    links.feed(text)
    assert links.links == ["data:,"]
    assert links.open == []
    assert "url(" not in text
    assert "@import" not in text


def schedule(**more: Any) -> Schedule:
    return Schedule(
        name="drift", command=["/opt/my venv/python", "/opt/100%/drift.py"], writes=[Path("/srv/state")], **more
    )


def test_units_for_the_system_and_for_a_user() -> None:
    service = schedule(user="ops", on_failure="mail@%n.service").units()["drift.service"]
    for line in (
        'ExecStart="/opt/my venv/python" /opt/100%%/drift.py',
        "SuccessExitStatus=3 5",
        "OnFailure=mail@%n.service",
        "User=ops",
        "ProtectSystem=strict",
        "ReadWritePaths=-/srv/state",
    ):
        assert line in service.splitlines()
    mine = schedule(system=False, user="ops").units()["drift.service"]
    assert "User=" not in mine
    assert "ProtectSystem" not in mine
    assert "RandomizedDelaySec=300" in schedule().units()["drift.timer"]


@pytest.mark.skipif(not os.access("/usr/bin/systemd-analyze", os.X_OK), reason="no systemd-analyze on this machine")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    it = Schedule(name="drift", command=["/bin/true"], writes=[tmp_path], deadline=5, jitter=1, calendar="*:0/15")
    for name, text in it.units().items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "drift.service"), str(tmp_path / "drift.timer")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert not [line for line in done.stderr.splitlines() if "drift." in line], done.stderr
