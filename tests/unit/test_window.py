"""Maintenance windows: when they are open, when they open next, and what a run does outside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.errors import InventoryError, OutsideWindow
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.window import Window
from nornir_k3s.phases import put_back, servers, token
from nornir_k3s.phases import window as phase
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows import deploy

BERLIN = "Europe/Berlin"
NIGHT = {"days": ["sat"], "start": "22:00", "end": "04:00", "timezone": BERLIN}


def window(**given: Any) -> Window:
    return Window.model_validate(given)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "time", "is_open"),
    [
        ({}, "2026-11-26 11:00", True),
        ({"start": "09:00", "end": "17:00"}, "2026-11-26 08:59", False),
        ({"start": "09:00", "end": "17:00"}, "2026-11-26 09:00", True),
        ({"start": "09:00", "end": "17:00"}, "2026-11-26 17:00", False),
        ({"days": ["Thursday"]}, "2026-11-26 23:59", True),
        ({"days": ["th"], "timezone": BERLIN}, "2026-11-26 23:30", False),
        ({"days": ["fri"], "timezone": BERLIN}, "2026-11-26 23:30", True),
        (NIGHT, "2026-11-28 20:59", False),
        (NIGHT, "2026-11-28 21:00", True),
        (NIGHT, "2026-11-29 02:59", True),
        (NIGHT, "2026-11-29 03:00", False),
        (NIGHT, "2026-11-28 02:00", False),
        ({"start": "22:00", "end": "24:00"}, "2026-11-28 23:59", True),
        # The clocks go from 02:00 to 03:00, and from 03:00 to 02:00.
        ({"start": "02:30", "end": "03:30", "timezone": BERLIN}, "2026-03-29 00:59", False),
        ({"start": "02:30", "end": "03:30", "timezone": BERLIN}, "2026-03-29 01:00", True),
        ({"start": "02:00", "end": "03:00", "timezone": BERLIN}, "2026-10-25 00:30", True),
        ({"start": "02:00", "end": "03:00", "timezone": BERLIN}, "2026-10-25 01:30", True),
    ],
)
def test_a_window_is_open_when_the_clocks_there_say_so(given: dict[str, Any], time: str, is_open: bool) -> None:
    assert window(**given).is_open(at(time)) is is_open


@pytest.mark.parametrize(
    ("given", "time", "opens"),
    [
        ({"start": "09:00", "end": "17:00"}, "2026-11-26 18:00:30", "2026-11-27 09:00 UTC"),
        ({"start": "09:00", "end": "17:00"}, "2026-11-26 10:10", "2026-11-26 10:10 UTC"),
        (NIGHT, "2026-11-26 11:00", "2026-11-28 22:00 CET"),
        (NIGHT, "2026-11-29 03:00", "2026-12-05 22:00 CET"),
        ({"days": ["wed"]}, "2026-11-26 00:00", "2026-12-02 00:00 UTC"),
        ({"start": "02:30", "end": "03:30", "timezone": BERLIN}, "2026-03-28 12:00", "2026-03-29 03:00 CEST"),
        ({"start": "02:00", "end": "03:00", "timezone": BERLIN}, "2026-03-28 12:00", "2026-03-30 02:00 CEST"),
        (
            {"days": ["sun"], "start": "02:00", "end": "03:00", "timezone": BERLIN},
            "2026-03-28 12:00",
            "2026-04-05 02:00 CEST",
        ),
    ],
)
def test_it_says_when_it_opens_next(given: dict[str, Any], time: str, opens: str) -> None:
    assert f"{window(**given).opens(at(time)):%Y-%m-%d %H:%M %Z}" == opens


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"days": ["caturday"]}, "there is no day 'caturday'; did you mean saturday?"),
        ({"days": "sat"}, "it must be a list of days, such as [sat, sun]"),
        ({"days": []}, "window.days"),
        ({"start": "25:00"}, "window.start"),
        ({"start": "9"}, "window.start"),
        ({"start": "24:00"}, "the window never opens"),
        ({"start": "10:00", "end": "10:00"}, "the window never opens"),
        ({"timezone": "Europe/Berln"}, "there is no time zone 'Europe/Berln'; did you mean Europe/Berlin?"),
        ({"timezone": "../../etc/passwd"}, "there is no time zone"),
        ({"timezone": ""}, "there is no time zone ''"),
        ({"timeZone": BERLIN}, "did you mean `timezone`?"),
    ],
)
def test_what_is_no_window_is_refused(load: Callable[..., Cluster], given: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"rolling_update": {"window": given}})
    assert words in str(caught.value)


def test_times_need_no_quotes(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("{days: [sat], start: 22:00, end: 04:00, timezone: Europe/Berlin}\n")
    assert window(**read(file).data) == window(**NIGHT)
    assert str(window(**NIGHT)) == "sat 22:00-04:00 Europe/Berlin"
    assert str(window()) == "00:00-24:00 UTC"


def run(*, is_open: bool, ignored: bool = False, changed: bool = False) -> Any:
    today, hour = datetime.now(UTC), datetime.now(UTC).hour
    other = f"{(hour + 12) % 24:02}:00"
    given = window() if is_open else window(start=other, end=f"{(hour + 13) % 24:02}:00".replace("00:00", "24:00"))
    assert given.is_open(today) is is_open
    active = {"k3s-agent.service": UnitState(active="active")}
    facts = {
        "s1": HostFacts("s1", api=Api(ready=True)),
        "s2": HostFacts("s2"),
        "a1": HostFacts("a1", units=active),
        "a2": HostFacts("a2", units=active),
    }
    return SimpleNamespace(
        cluster=SimpleNamespace(rolling_update=SimpleNamespace(window=given)),
        ignore_window=ignored,
        report=SimpleNamespace(changed=changed),
        names=list(facts),
        done=set(),
        facts=facts,
        member=lambda name: SimpleNamespace(role="servers" if name.startswith("s") else "agents"),
        planned=lambda name: SimpleNamespace(starts_k3s=name != "a2"),
    )


def test_what_restarts_on_nodes_that_run_waits_for_the_window() -> None:
    assert phase.restarting(run(is_open=False)) == ["s1", "a1"], "s2 is down: it may be put right at any time"
    assert phase.restarting(run(is_open=False), ["load-balancers", "servers"]) == ["s1"]


@pytest.mark.parametrize("changed", [False, True])
def test_outside_the_window_the_run_ends_and_says_when_it_goes_on(*, changed: bool) -> None:
    with pytest.raises(OutsideWindow) as caught:
        phase.require_open(run(is_open=False, changed=changed), ["s1", "a1"])
    assert caught.value.exit_code == 7
    assert "K3s restarts on s1, a1 only in the window (" in caught.value.message
    assert "), which opens " in caught.value.message
    assert caught.value.message.startswith("nothing was changed: ") is not changed


@pytest.mark.parametrize(("due", "done"), [(False, []), (True, ["stage", "token"])])
def test_a_rotated_token_is_written_outside_the_window(
    monkeypatch: pytest.MonkeyPatch, *, due: bool, done: list[str]
) -> None:
    """A server that restarts by itself before the window opens would not start without it."""

    def refused(*_: object) -> None:
        raise OutsideWindow("closed")

    monkeypatch.setattr(phase, "require_open", refused)
    monkeypatch.setattr(phase, "restarting", lambda *_: ["s1"])
    monkeypatch.setattr(token, "is_due", lambda _: due)
    monkeypatch.setattr(put_back, "put_back", lambda _: None)
    monkeypatch.setattr(servers, "changes_running", lambda _: True)
    worked: list[str] = []
    chain = [Phase(name, "", partial(_note, name, worked)) for name in ("stage", "token")]
    chain.append(Phase("servers", "", refused))
    report = Report(cluster="test", phases=[PhaseReport(name=one.name) for one in chain])
    run: Any = SimpleNamespace(report=report, thread=SimpleNamespace(), ready_servers=[], facts={})
    with pytest.raises(OutsideWindow):
        deploy._carry_out(run, Choice(), chain)
    assert worked == done


def _note(name: str, worked: list[str], _: object) -> None:
    worked.append(name)


def test_nothing_waits_that_need_not() -> None:
    phase.require_open(run(is_open=True), ["s1"])
    phase.require_open(run(is_open=False, ignored=True), ["s1"])
    phase.require_open(run(is_open=False), [])
