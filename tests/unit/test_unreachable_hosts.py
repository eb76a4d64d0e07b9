"""Hosts that are down, and releases that cannot be had, hide no finding; a run may go on without some hosts."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState

from nornir_k3s import Choice, K3sError, deploy
from nornir_k3s.artifacts.source import Source
from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    HostError,
    HostKeyError,
    HostUnreachable,
    OutcomeUnknown,
)
from nornir_k3s.model.report import Report
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather, take_back

from .conftest import HOSTS, SETTINGS, inventory

SYSTEM = ("x86_64", "6.1", "NAME", "id-NAME", "Debian", "systemd", "apt", "cgroup2fs", "8192", "9999999", "99999999")
ROUTE = "@default_routes\tdefault via 10.0.0.1\n"
BARE = "@now\t1795608000.5\n" + "\t".join(["@system", *SYSTEM]) + f"\n{ROUTE}@addresses\teth0\tADDRESS/24\n"
VIP = "@addresses\teth0\t10.0.0.100/32\n"
KEEPALIVED = "@units\tId=keepalived.service\n@units\tActiveState=active\n@units\t\n"
PREFLIGHT = {"until": "preflight"}
Down = dict[str, type[HostError]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Report]:
    """Run a deploy on hosts that answer with facts, as far as they are not down."""

    def run_(
        down: Down,
        answers: dict[str, str] | None = None,
        *,
        release: bool = True,
        dies: dict[str, type[HostError]] | None = None,
        **choice: Any,
    ) -> Report:
        def session(task: Any, **_: Any) -> Any:
            name = task.host.name
            if name in down:
                raise down[name](name, "no SSH connection: timeout")
            text = (
                BARE.replace("NAME", name).replace("ADDRESS", HOSTS[name][0]) + (answers or {}).get(name, "") + "@end\n"
            )

            def answer(script: str, **_: Any) -> Any:
                if "fact_containerd_templates()" in script and name in (dies or {}):  # the second look
                    raise (dies or {})[name](name, "the connection was lost")
                return SimpleNamespace(stdout=text, status=0)

            return SimpleNamespace(run=answer, round_trips=1)

        def find(*_: Any, **__: Any) -> None:
            if not release:
                raise ArtifactError("no release")

        monkeypatch.setattr(gather, "session", session)
        monkeypatch.setattr(Source, "find", find)
        settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
        nr = Nornir(inventory=inventory(settings, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())
        try:
            return deploy(nr, base=tmp_path, state=tmp_path / "state", choice=Choice(**{**PREFLIGHT, **choice}))
        except K3sError as error:
            return cast(Report, error.report)

    return run_


def failed(report: Report) -> set[tuple[str, str]]:
    return {(one.host, one.subject) for one in report.findings if one.severity == "error"}


BAD = {"s1": "@addresses\teth0\t10.0.0.100/32\n"}  # a server that has the VIP


def test_a_host_that_is_down_hides_no_finding_of_the_others(run: Callable[..., Report]) -> None:
    report = run({"a1": HostUnreachable, "db1": HostUnreachable}, BAD)
    assert failed(report) == {("s1", "vip")}
    assert (report.exit_code, report.outcome) == (4, "failed")
    assert report.error
    for words in ("db1, a1: no SSH", "preflight found 1 problem", "this host has the VIP"):
        assert words in report.error.message
    report = run({"db1": HostUnreachable})
    assert (report.exit_code, report.error.kind if report.error else "") == (4, "HostUnreachable")


@pytest.mark.parametrize("how", [HostUnreachable, OutcomeUnknown], ids=["down", "hangs"])
def test_an_agent_that_is_down_stops_nothing_else(run: Callable[..., Report], how: type[HostError]) -> None:
    report = run({"a1": how})
    assert (report.skipped, report.exit_code, report.outcome) == (["a1"], 4, "ok")
    assert report.phase("preflight").state == "done"
    assert any(note.startswith("a1: no SSH connection: timeout; left out") for note in report.notes)
    report = run({"a1": HostUnreachable}, BAD)
    assert failed(report) == {("s1", "vip")}, "and hides no finding"
    assert (report.exit_code, report.outcome) == (1, "failed")


def test_an_agent_that_is_down_does_not_keep_secrets_of_others_from_being_taken_over(
    run: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def renew(run: Any, _: object) -> bool:
        asked.append(sorted(run.facts))
        return False

    monkeypatch.setattr(take_back, "renew", renew)
    assert run({"a1": HostUnreachable}).skipped == ["a1"]
    assert asked == [["db1", "lb1", "lb2", "s1", "s2"]]


def test_a_run_on_agents_that_are_down_has_nothing_to_do(run: Callable[..., Report]) -> None:
    report = run({"a1": HostUnreachable}, limit=("a1",))
    assert (report.exit_code, report.outcome, report.skipped) == (4, "failed", [])
    assert report.error
    assert report.error.kind == "HostUnreachable"


@pytest.mark.parametrize("down", ["s1", "db1", "lb1"])
def test_other_hosts_that_are_down_end_the_run_before_its_first_change(run: Callable[..., Report], down: str) -> None:
    report = run({"a1": HostUnreachable, down: HostUnreachable})
    assert (report.exit_code, report.outcome, report.skipped) == (4, "failed", [])
    assert report.error
    assert "a1" in report.error.message
    assert down in report.error.message


@pytest.mark.parametrize("refused", [AuthenticationFailed, HostKeyError])
def test_an_agent_that_refuses_the_login_ends_the_run_before_its_first_change(
    run: Callable[..., Report], refused: type[HostUnreachable]
) -> None:
    report = run({"a1": refused})
    assert (report.exit_code, report.outcome, report.skipped) == (4, "failed", [])


def test_a_release_that_cannot_be_had_hides_no_finding(run: Callable[..., Report]) -> None:
    report = run({}, BAD, release=False, until="stage")
    assert (failed(report), report.exit_code) == ({("s1", "vip")}, 2)
    assert report.error
    assert "no release" in report.error.message
    assert "this host has the VIP" in report.error.message


def test_the_preflight_alone_needs_no_release(run: Callable[..., Report]) -> None:
    report = run({}, release=False)
    assert (report.exit_code, report.outcome) == (0, "ok")
    assert [one.name for one in report.phases] == ["observe", "preflight"]


@pytest.mark.parametrize(
    ("down", "answers"),
    [
        (["a1"], {}),
        (["lb2"], {}),  # nothing is set up yet
        (["lb2", "a1"], {"lb1": VIP + KEEPALIVED}),
    ],
)
def test_a_run_goes_on_without_what_is_not_needed(
    run: Callable[..., Report], down: list[str], answers: dict[str, str]
) -> None:
    report = run(dict.fromkeys(down, HostUnreachable), answers, skip_unreachable=True)
    assert (sorted(report.skipped), report.exit_code, report.outcome) == (sorted(down), 4, "ok")
    for name in down:
        assert report.hosts[name].failed
        assert any(note.startswith(f"{name}: no SSH connection") and "left out" in note for note in report.notes)
    assert report.phase("preflight").state == "done"


@pytest.mark.parametrize(
    ("down", "answers", "words"),
    [
        ({"s2": HostUnreachable}, {}, "agents and load balancers only, not s2"),
        ({"db1": HostUnreachable, "a1": HostUnreachable}, {}, "agents and load balancers only, not db1"),
        ({"a1": AuthenticationFailed}, {}, "not those that refuse the login"),
        ({"lb1": HostUnreachable, "lb2": HostUnreachable}, {}, "needs a load balancer that answers"),
        ({"lb1": HostUnreachable}, {"lb2": KEEPALIVED}, "not leave out lb1, which may hold the VIP 10.0.0.100"),
    ],
)
def test_a_run_does_not_go_on_without_what_it_needs(
    run: Callable[..., Report], down: Down, answers: dict[str, str], words: str
) -> None:
    report = run(down, answers, skip_unreachable=True)
    assert (report.exit_code, report.outcome, report.skipped) == (4, "failed", [])
    assert any(words in note for note in report.notes), report.notes


def upgrade(version: str = "v1.33.9+k3s1") -> dict[str, str]:
    """A ready server whose nodes run an earlier version, so that they are looked at once more."""
    nodes = [
        {"metadata": {"name": name}, "status": {"nodeInfo": {"kubeletVersion": version}}} for name in ("s1", "s2", "a1")
    ]
    listed = base64.b64encode(json.dumps({"items": nodes}).encode()).decode()
    server = f"@api\tready\tok\n@api\tthrough-address\t{listed}\n"
    return {"s1": server, "db1": "@packages\tmariadb-server\t1:10.11.6\n"}


@pytest.mark.parametrize("how", [HostUnreachable, OutcomeUnknown], ids=["down", "hangs"])
def test_an_agent_that_dies_after_the_first_look_stops_nothing_else(
    run: Callable[..., Report], how: type[HostError]
) -> None:
    report = run({}, upgrade(), dies={"a1": how})
    assert (report.skipped, report.exit_code, report.outcome) == (["a1"], 4, "ok")
    assert any(note.startswith("a1: the connection was lost; left out") for note in report.notes)


def test_an_agent_out_of_the_limit_that_dies_is_a_note(run: Callable[..., Report]) -> None:
    report = run({}, upgrade(), dies={"a1": HostUnreachable}, limit=("servers",))
    assert (report.skipped, report.exit_code, report.outcome) == ([], 0, "ok")
    assert any(note.startswith("a1: the connection was lost; the run continues") for note in report.notes)


def test_a_server_that_dies_after_the_first_look_ends_the_run(run: Callable[..., Report]) -> None:
    report = run({}, upgrade(), dies={"s2": HostUnreachable})
    assert (report.skipped, report.exit_code, report.outcome) == ([], 4, "failed")
    assert report.error
    assert "s2: the connection was lost" in report.error.message
