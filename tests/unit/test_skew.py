"""status shows versions that are too far apart, and the newest patch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from nornir_k3s.artifacts import channels
from nornir_k3s.checks import skew
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.status import NodeStatus, Status
from nornir_k3s.report import terminal
from nornir_k3s.run import gather, kubectl, paths
from nornir_k3s.workflows import status


@pytest.mark.parametrize(
    ("s1", "s2", "a1", "words"),
    [
        ("v1.34.9+k3s1", "v1.34.3+k3s1", "v1.34.9+k3s1", []),
        ("v1.35.1+k3s1", "v1.34.3+k3s1", "v1.34.9+k3s1", []),
        ("v1.36.1+k3s1", "v1.34.3+k3s1", "v1.34.9+k3s1", ["servers are 2 minor versions apart"]),
        ("v1.35.1+k3s1", "v1.34.3+k3s1", "v1.35.1+k3s1", ["node a1 has 1.35, a server 1.34"]),
        ("v1.36.1+k3s1", "v1.36.1+k3s1", "v1.33.3+k3s1", []),
        ("v1.36.1+k3s1", "v1.36.1+k3s1", "v1.32.3+k3s1", ["node a1 is 4 minor versions older than a server"]),
        ("", "v1.36.1+k3s1", "", []),
    ],
)
def test_how_far_versions_are_apart(
    load: Callable[..., Cluster], s1: str, s2: str, a1: str, *, words: list[str]
) -> None:
    nodes = [NodeState(name, ready=True, version=one) for name, one in (("s1", s1), ("s2", s2), ("a1", a1))]
    found = skew.problems(load(), nodes)
    assert len(found) == len(words)
    assert all(one in text for one, text in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("version", "servers", "told"),
    [
        ("v1.34.2", ["v1.34.9+k3s1", "v1.35.1+k3s1"], False),
        ("v1.33.2", ["v1.34.9+k3s1", "v1.35.1+k3s1"], True),
        ("v1.37.0+k3s1", ["v1.35.1+k3s1"], True),
        ("", ["v1.35.1+k3s1"], False),
        ("v1.30.0", [], False),
    ],
)
def test_kubectl_fits_the_servers(version: str, servers: list[str], *, told: bool) -> None:
    assert bool(skew.kubectl(version, servers)) is told


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("""echo '{"clientVersion": {"gitVersion": "v1.34.2"}}'""", "v1.34.2"),
        ("echo nonsense", ""),
        ("echo '[]'", ""),
        ("exit 1", ""),
        (None, ""),
    ],
)
def test_kubectl_on_this_machine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, version: str
) -> None:
    if script is not None:
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kubectl.version() == version


def test_status_has_the_newest_patch_and_a_kubectl_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., Cluster]
) -> None:
    node = NodeStatus(name="s1", ready=True, version="v1.34.9+k3s1", roles=["control-plane"], schedulable=True)
    shown = Status(cluster="c", version="v1.34.9+k3s1", url="u", nodes=[node])
    monkeypatch.setattr(gather, "prepare", lambda *_, **__: SimpleNamespace(cluster=load()))
    monkeypatch.setattr(status, "read", lambda _: shown)
    monkeypatch.setattr(status, "complete", lambda *_: {})
    monkeypatch.setattr(channels, "newest", lambda _, minor: f"v{minor}.11+k3s1")
    monkeypatch.setattr(kubectl, "version", lambda: "v1.30.1")
    monkeypatch.setattr(paths, "of", lambda *_: SimpleNamespace(base=Path(), state=Path()))
    nr: Any = None
    found = status.status(nr)
    assert (found.newest, found.kubectl) == ("v1.34.11+k3s1", "v1.30.1")
    assert found.notes == ["kubectl on this machine is v1.30.1: it is made for servers within one minor version of it"]
    assert found.problems == []


@pytest.mark.parametrize(("newest", "told"), [("v1.34.11+k3s1", True), ("v1.34.9+k3s1", False), ("", False)])
def test_a_newer_patch_is_shown(newest: str, capsys: Any, *, told: bool) -> None:
    shown = Status(cluster="c", version="v1.34.9+k3s1", url="u", newest=newest)
    terminal.show_status(shown, Console(width=200))
    assert ("the newest patch is v1.34.11+k3s1" in capsys.readouterr().out) is told
