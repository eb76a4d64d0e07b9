"""An upgrade over several minor versions: its path, where it stops, and the line of the inventory."""

from __future__ import annotations

import argparse
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import ArtifactError, Declined, HostsFailed, NotReady, UsageError
from nornir_k3s.artifacts import channels, source
from nornir_k3s.checks import upgrade as checks
from nornir_k3s.cli import arguments
from nornir_k3s.cli import upgrade as command
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.plan import NodeUpgrade, Plan
from nornir_k3s.model.report import Report
from nornir_k3s.model.settings import Artifacts
from nornir_k3s.model.upgrade_report import UpgradeReport, UpgradeStep
from nornir_k3s.phases import drain
from nornir_k3s.report import terminal
from nornir_k3s.run import gather
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows import plan as planning
from nornir_k3s.workflows import upgrade

Load = Callable[..., Cluster]
NEWEST = {"1.34": "v1.34.11+k3s1", "1.35": "v1.35.8+k3s1", "1.36": "v1.36.4+k3s1"}


@pytest.fixture
def path(load: Load, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setattr(channels, "newest", lambda _, minor: NEWEST.get(minor, ""))

    def path_(running: str, to: str, *via: str, inventory: str = "v1.34.9+k3s1") -> list[str]:
        run: Any = SimpleNamespace(cluster=load({"version": inventory}))
        return upgrade._path(run, running.split(), to, via)

    return path_


@pytest.mark.parametrize(
    ("running", "to", "via", "steps"),
    [
        ("v1.34.9+k3s1", "v1.36", [], ["v1.35.8+k3s1", "v1.36.4+k3s1"]),
        ("v1.34.9+k3s1", "1.35", [], ["v1.35.8+k3s1"]),
        ("v1.34.9+k3s1", "v1.36.2+k3s1", [], ["v1.35.8+k3s1", "v1.36.2+k3s1"]),
        ("v1.34.9+k3s1", "v1.36", ["v1.35.5+k3s1"], ["v1.35.5+k3s1", "v1.36.4+k3s1"]),
        ("v1.34.9+k3s1", "v1.37", ["v1.37.0+k3s1", "v1.35.5+k3s1"], ["v1.35.5+k3s1", "v1.36.4+k3s1", "v1.37.0+k3s1"]),
        ("v1.34.9+k3s1", "v1.34", [], ["v1.34.11+k3s1"]),
        ("v1.34.9+k3s1", "v1.34.10+k3s1", [], ["v1.34.10+k3s1"]),
        ("v1.34.11+k3s1", "v1.34", [], []),
        ("v1.36.4+k3s1", "v1.36", [], []),
        # An earlier run was stopped in the middle.
        ("v1.35.8+k3s1 v1.34.9+k3s1", "v1.36", [], ["v1.35.8+k3s1", "v1.36.4+k3s1"]),
        ("v1.36.4+k3s1 v1.35.8+k3s1", "v1.36", [], ["v1.36.4+k3s1"]),
    ],
)
def test_the_path(path: Callable[..., list[str]], running: str, to: str, via: list[str], steps: list[str]) -> None:
    assert path(running, to, *via) == steps


def test_the_inventory_s_version_is_a_step_if_nobody_runs_it_yet(path: Callable[..., list[str]]) -> None:
    assert path("v1.34.9+k3s1", "v1.36", inventory="v1.35.6+k3s1") == ["v1.35.6+k3s1", "v1.36.4+k3s1"]
    assert path("v1.34.9+k3s1", "v1.36", "v1.35.7+k3s1", inventory="v1.35.6+k3s1")[0] == "v1.35.7+k3s1"


@pytest.mark.parametrize(
    ("running", "to", "via", "words"),
    [
        ("v1.34.9+k3s1", "v1.37", [], "which patch of 1.37 to take cannot be asked: name it with --via v1.37.…+k3s1"),
        ("v1.34.9+k3s1", "v1.38.1+k3s1", [], "which patch of 1.37 to take"),
        ("v1.34.9+k3s1", "v1.33", [], "nodes run v1.34.9+k3s1: K3s cannot be downgraded to v1.33"),
        ("v1.34.9+k3s1", "v1.34.3+k3s1", [], "cannot be downgraded to v1.34.3+k3s1"),
        ("v1.36.1+k3s1 v1.34.9+k3s1", "v1.35", [], "nodes run v1.36.1+k3s1: K3s cannot be downgraded to v1.35"),
        ("v1.35.8+k3s1 v1.34.9+k3s1", "v1.36", ["v1.35.7+k3s1"], "nodes run v1.35.8+k3s1: K3s cannot be downgraded"),
        ("v1.34.9+k3s1", "v1.36", ["v1.33.1+k3s1"], "--via v1.33.1+k3s1: it is not between"),
        ("v1.34.9+k3s1", "v2.0", [], "cannot be downgraded to v2.0"),
        ("v1.34.9+k3s1", "latest", [], "not all of them are versions of K3s"),
        ("v1.34.9+k3s1", "v1.36", ["v1.35"], "not all of them are versions of K3s"),
    ],
)
def test_no_path(path: Callable[..., list[str]], running: str, to: str, via: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        path(running, to, *via)
    assert words in caught.value.message


class Walk:
    """An upgrade whose deploys only play their part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
        self.fail: dict[str, Exception] = {}
        self.left_out: dict[str, list[str]] = {}
        self.done: list[str] = []
        self.found: list[str] = []
        self.missing = ""
        self.nodes = dict.fromkeys(("s1", "s2", "a1"), "v1.34.9+k3s1")
        cluster = load()
        monkeypatch.setattr(channels, "newest", lambda _, minor: NEWEST.get(minor, ""))
        run = SimpleNamespace(cluster=cluster, facts={}, unread={}, member=cluster.member)
        monkeypatch.setattr(upgrade, "_read", lambda *_: run)
        monkeypatch.setattr(checks, "running", lambda *_: dict(self.nodes))
        monkeypatch.setattr(gather, "prepare", lambda *_, options, **__: SimpleNamespace(version=options["version"]))
        monkeypatch.setattr(gather, "find_artifacts", self.find)
        monkeypatch.setattr(upgrade, "deploy", self.deploy)

    def find(self, run: Any) -> None:
        if run.version == self.missing:
            raise ArtifactError(f"{run.version} is missing")
        self.found.append(run.version)

    def deploy(self, _: Any, *, options: dict[str, Any], choice: Any, **_more: Any) -> Report:
        assert choice.confirm is None
        version = options["version"]
        report = Report(cluster="c", version=version)
        if version in self.fail:
            self.nodes["s1"] = version
            error: Any = self.fail[version]
            error.report = report
            raise error
        self.done.append(version)
        report.skipped = self.left_out.get(version, [])
        report.exit_code = 4 if report.skipped else 0
        self.nodes = {name: one if name in report.skipped else version for name, one in self.nodes.items()}
        return report

    def run(self, to: str = "v1.36", **more: Any) -> UpgradeReport:
        nr: Any = SimpleNamespace(config=SimpleNamespace(user_defined={}, inventory=SimpleNamespace(options={})))
        return upgrade.upgrade(nr, to=to, **more)


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch, load: Load) -> Walk:
    return Walk(monkeypatch, load)


def test_each_step_is_a_deploy_and_all_artefacts_are_there_before_the_first(walk: Walk) -> None:
    told: list[str] = []
    report = walk.run(tell=told.append)
    assert walk.found == walk.done == report.path == ["v1.35.8+k3s1", "v1.36.4+k3s1"]
    assert [step.state for step in report.steps] == ["done", "done"]
    assert set(report.nodes.values()) == {"v1.36.4+k3s1"}
    assert report.ways == dict.fromkeys(("s1", "s2", "a1"), report.path)
    assert report.exit_code == 0
    assert told[0] == "step 1 of 2: v1.35.8+k3s1"


def test_a_missing_artefact_of_the_last_step_stops_it_before_the_first_change(walk: Walk) -> None:
    walk.missing = "v1.36.4+k3s1"
    with pytest.raises(ArtifactError):
        walk.run()
    assert walk.done == []


@pytest.mark.parametrize("several", [False, True])
def test_a_step_that_fails_is_the_last_one_and_it_says_where_the_cluster_stands(walk: Walk, *, several: bool) -> None:
    walk.nodes["a1"] = "v1.34.3+k3s1"
    one = NotReady("s1", "not ready")
    walk.fail = {"v1.35.8+k3s1": HostsFailed([one, NotReady("s2", "no")]) if several else one}
    with pytest.raises((NotReady, HostsFailed)) as caught:
        walk.run()
    words = "the upgrade has stopped at v1.35.8+k3s1, step 1 of 2: 1 node runs v1.34.3+k3s1, 1 node runs v1.34.9+k3s1"
    assert words in str(caught.value)
    report = caught.value.report
    assert isinstance(report, UpgradeReport)
    assert [step.state for step in report.steps] == ["failed", "not begun"]
    assert report.nodes == {"s1": "v1.35.8+k3s1", "s2": "v1.34.9+k3s1", "a1": "v1.34.3+k3s1"}
    assert report.error
    assert report.exit_code == 1
    assert walk.done == []


def test_an_agent_that_was_left_behind_stops_it_after_the_step(walk: Walk) -> None:
    walk.left_out = {"v1.35.8+k3s1": ["a1"]}
    report = walk.run()
    assert walk.done == ["v1.35.8+k3s1"]
    assert [step.state for step in report.steps] == ["failed", "not begun"]
    assert report.exit_code == 4
    assert report.notes == [
        "stopped after v1.35.8+k3s1: 1 node runs v1.34.9+k3s1, 2 nodes run v1.35.8+k3s1; a1 left out"
    ]


def test_it_asks_once_with_the_path(walk: Walk) -> None:
    seen: list[list[str]] = []

    def confirm(report: UpgradeReport) -> bool:
        seen.append(report.path)
        return len(seen) > 1

    with pytest.raises(Declined):
        walk.run(confirm=confirm)
    assert walk.done == []
    walk.run(confirm=confirm)
    assert len(seen) == 2
    assert walk.done == seen[0]


def test_only_an_upgrade_that_can_be_taken_back_is_on_trial(walk: Walk) -> None:
    with pytest.raises(UsageError, match="does not go back over a minor version"):
        walk.run(choice=Choice(trial=300), confirm=lambda _: True)
    assert walk.done == []
    assert walk.run("v1.34", choice=Choice(trial=300)).exit_code == 0
    assert walk.done == ["v1.34.11+k3s1"]
    args = arguments.subcommand("upgrade", Path("c")).parse_args(["--to", "v1.34", "--try", "5m"])
    assert args.trial == 300


def test_a_cluster_that_is_there_already_needs_nothing(walk: Walk) -> None:
    walk.nodes = dict.fromkeys(walk.nodes, "v1.36.4+k3s1")
    assert walk.run(confirm=lambda _: False).steps == []


def test_a_cluster_that_does_not_answer_is_not_upgraded(walk: Walk) -> None:
    walk.nodes = {}
    with pytest.raises(UsageError, match="no server answers"):
        walk.run()


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, str]]]:
    """A channel server on a loopback port."""
    places: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = places.get(self.path)
            self.send_response(302 if place else 404)
            if place:
                self.send_header("Location", place)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}/channels", places
    served.shutdown()
    served.server_close()


def test_a_channel_tells_the_newest_patch(server: tuple[str, dict[str, str]]) -> None:
    url, places = server
    places["/channels/v1.36"] = "https://github.com/k3s-io/k3s/releases/tag/v1.36.3%2Bk3s1"
    places["/channels/v1.35"] = "https://example.org/elsewhere"
    places["/channels/v1.34"] = "https://github.com/k3s-io/k3s/releases/tag/v1.36.3+k3s1"
    found = Artifacts(channels=url)
    assert channels.newest(found, "1.36") == "v1.36.3+k3s1"
    assert [channels.newest(found, one) for one in ("1.37", "1.35", "1.34")] == ["", "", ""]
    assert channels.newest(Artifacts(channels="http://127.0.0.1:1/x"), "1.36") == ""


def test_a_mirror_without_channels_is_not_asked_and_neither_is_anybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(url: str, _: str) -> str:
        asked.append(url)
        return ""

    monkeypatch.setattr(channels, "_asked", ask)
    channels.newest(Artifacts(url="https://mirror.example.org/k3s"), "1.36")
    assert asked == []
    channels.newest(Artifacts(), "1.36")
    assert asked == ["https://update.k3s.io/v1-release/channels/v1.36"]


def test_a_folder_has_one_release_or_a_folder_for_each(tmp_path: Path, load: Load) -> None:
    for name in ("v1.35.7+k3s1", "v1.35.10+k3s1", "v1.36.3+k3s1", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k3s").write_text(f"#!/bin/sh\necho k3s version {name} '(1)'\n")
        (tmp_path / name / "install.sh").write_text("")
    many, one = Artifacts(folder=tmp_path), Artifacts(folder=tmp_path / "v1.35.7+k3s1")
    assert [channels.newest(many, minor) for minor in ("1.34", "1.35", "1.36")] == ["", "v1.35.10+k3s1", "v1.36.3+k3s1"]
    assert [channels.newest(one, minor) for minor in ("1.35", "1.36")] == ["v1.35.7+k3s1", ""]
    assert channels.newest(Artifacts(folder=tmp_path / "none"), "1.35") == ""
    for version in ("v1.35.7+k3s1", "v1.36.3+k3s1"):
        cluster = load({"version": version, "artifacts": {"folder": str(tmp_path)}})
        bundle = source.Source(cluster, tmp_path / "cache").find("x86_64")
        assert bundle.binary.source == tmp_path / version / "k3s"
    with pytest.raises(ArtifactError, match="k3s is missing"):
        source.Source(load({"version": "v1.34.1+k3s1", "artifacts": {"folder": str(tmp_path)}}), tmp_path / "cache")


def report_of(file: Path, line: int, state: Any = "done") -> UpgradeReport:
    return UpgradeReport(
        cluster="c",
        inventory_version="v1.34.9+k3s1",
        inventory_line=f"{file}:{line}",
        nodes={},
        steps=[UpgradeStep(version="v1.35.8+k3s1", state=state)],
    )


def test_the_inventory_s_line_is_named_or_written(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    text = "data:\n  k3s_cluster:\n    version: 'v1.34.9+k3s1'  # ours since May\n    # version: v1.34.9+k3s1\n"
    file.write_text(text)
    file.chmod(0o640)
    report = report_of(file, 3)
    command._inventory(report, write=False)
    assert report.notes[0].startswith(f"write `version: v1.35.8+k3s1` in {file}:3")
    assert file.read_text() == text
    command._inventory(report, write=True)
    assert file.read_text() == text.replace("'v1.34.9", "'v1.35.8")
    assert file.stat().st_mode & 0o777 == 0o640
    with pytest.raises(UsageError, match="does not say"):
        command._inventory(report_of(file, 4 - 3), write=True)
    file.write_text(text)
    there = report_of(file, 3).model_copy(update={"steps": [], "nodes": {"s1": "v1.35.8+k3s1", "a1": "v1.35.8+k3s1"}})
    command._inventory(there, write=True)  # an earlier upgrade has not written it
    assert file.read_text() == text.replace("'v1.34.9", "'v1.35.8")
    stopped = report_of(file, 4, "failed")
    command._inventory(stopped, write=True)
    assert stopped.notes == []


def test_a_path_is_shown_node_by_node(walk: Walk, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 - of this test alone

    found = walk.run(confirm=None)
    found.nodes = {"s1": "v1.35.8+k3s1", "s2": "v1.34.9+k3s1", "a1": "v1.34.9+k3s1"}
    found.ways = {"s1": found.path[1:], "s2": found.path, "a1": found.path}
    ctx: Any = SimpleNamespace(nr=None, arguments={}, report_console=lambda _: Console(width=200))
    monkeypatch.setattr(upgrade, "plan", lambda *_, **__: found)
    asked = argparse.Namespace(to="v1.36", via=(), json=None, trial=0)
    assert command._plan(ctx, asked) == 0
    asked.trial = 300
    with pytest.raises(UsageError, match="does not go back over a minor version"):
        command._plan(ctx, asked)
    assert capsys.readouterr().out.splitlines() == [
        "s1: v1.35.8+k3s1 → v1.36.4+k3s1",
        "s2: v1.34.9+k3s1 → v1.35.8+k3s1 → v1.36.4+k3s1",
        "a1: v1.34.9+k3s1 → v1.35.8+k3s1 → v1.36.4+k3s1",
        "2 upgrades, each verified before the next one",
    ]


def test_a_plan_shows_an_upgrade_node_by_node(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    cluster = load({"version": "v1.35.8+k3s1"})
    versions = {"s1": "v1.34.9+k3s1", "s2": "v1.35.8+k3s1", "a1": "v1.34.9+k3s1"}
    monkeypatch.setattr(checks, "running", lambda *_: versions)
    monkeypatch.setattr(drain, "wanted", lambda _, names: [name for name in names if name == "a1"])
    monkeypatch.setattr(planning, "_batches", lambda _: [["a1"]])
    run: Any = SimpleNamespace(
        cluster=cluster,
        facts={name: SimpleNamespace(ready=name == "s2") for name in versions},
        of=cluster.of,
        chosen=list,
        planned=lambda _: SimpleNamespace(starts_k3s=True),
    )
    both = list(planning._upgrade(run, ["servers", "agents"]))
    assert [(one.host, one.running, one.version, one.drained) for one in both] == [
        ("s1", "v1.34.9+k3s1", "v1.35.8+k3s1", False),
        ("a1", "v1.34.9+k3s1", "v1.35.8+k3s1", True),
    ]
    assert [one.host for one in planning._upgrade(run, ["servers"])] == ["s1"]


def test_the_plan_of_many_nodes_is_cut() -> None:
    def shown(agents: int, size: int) -> list[str]:
        names = [f"a{number}" for number in range(agents)]
        nodes = [NodeUpgrade(host=name, running="v1", version="v2", drained=name != "s1") for name in ("s1", *names)]
        batches = [names[:1], *(names[start : start + size] for start in range(1, agents, size))]
        plan = Plan(cluster="c", version="v2", hosts={}, phases=[], upgrade=nodes, batches=batches)
        return list(terminal._upgrade(plan))

    assert shown(3, 2) == [
        "upgrade of K3s, 4 nodes: v1 → v2",
        "  1. s1: v1 → v2",
        "  2. a0: v1 → v2, drained first",
        "  3. a1, a2: v1 → v2, drained first",
    ]
    assert shown(200, 2)[-1] == "  … and 86 more batches"
    assert len(shown(200, 20)) == 13
