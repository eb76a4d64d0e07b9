"""A drift check reads a host again before it reports what may be passing; no host is contacted."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task

from nornir_k3s import drift
from nornir_k3s.artifacts.source import Source
from nornir_k3s.compare import passing
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding, Severity
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.machine_facts import Address, Unreachable
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import drift as workflow

from .conftest import HOSTS, SETTINGS, inventory

RUNNING = {"keepalived.service": UnitState("loaded", "active", "running", "enabled", 0, 100, 100)}
VIP = (Address("eth0", "10.0.0.100/32"),)
NONE: tuple[Address, ...] = ()


@pytest.fixture
def nr() -> Nornir:
    settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
    return Nornir(inventory=inventory(settings, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


@pytest.mark.parametrize(
    ("lb1", "lb2", "looks", "found"),
    [
        ((VIP, VIP), (NONE, NONE), 1, []),
        ((NONE, NONE), (NONE, VIP), 2, []),  # lb1 was read before, lb2 after the VIP had moved away
        ((VIP, NONE), (VIP, VIP), 2, []),
        ((VIP, VIP), (VIP, VIP), 2, ["cluster/vip:10.0.0.100"]),
    ],
    ids=["on one", "on none for a moment", "on both for a moment", "on both"],
)
def test_a_vip_that_moves_is_read_again(
    nr: Nornir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lb1: Any, lb2: Any, looks: int, found: list[str]
) -> None:
    seen: Counter[str] = Counter()

    def gather_host(task: Task, run: Run) -> Result:
        name = task.host.name
        addresses = {"lb1": lb1, "lb2": lb2}.get(name, (NONE, NONE))[seen[name]]
        seen[name] += 1
        run.facts[name] = HostFacts(name, addresses=addresses, units=RUNNING if name.startswith("lb") else {})
        return Result(host=task.host)

    monkeypatch.setattr(gather, "gather_host", gather_host)
    monkeypatch.setattr(Source, "find", lambda *_, **__: None)
    monkeypatch.setattr(workflow, "SETTLE", 0)
    report = drift(nr, base=tmp_path, state=tmp_path / "state")
    assert [one.id for one in report.differences if one.kind == "vip"] == found
    assert {name: seen[name] for name in HOSTS} == {name: looks if name.startswith("lb") else 1 for name in HOSTS}


@pytest.mark.parametrize("stays", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(
    ("host", "broken", "subject"),
    [
        ("a1", {"registration": "connection reset by peer"}, "api:address"),
        ("s1", {"api": Api()}, "api:readyz"),
        ("db1", {"unreachable": (Unreachable("10.0.0.9:3306", "timed out"),)}, "check:datastore"),
    ],
    ids=["an agent and the registration address", "a server's API", "the datastore"],
)
def test_a_lost_connection_is_tried_again(
    nr: Nornir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    host: str,
    broken: dict[str, Any],
    subject: str,
    stays: bool,
) -> None:
    seen: Counter[str] = Counter()

    def gather_host(task: Task, run: Run) -> Result:
        name = task.host.name
        fails = name == host and (stays or not seen[name])
        seen[name] += 1
        well: dict[str, Any] = {
            "units": {"k3s.service": RUNNING["keepalived.service"]},
            "api": Api(ready=True, through_address=True),
        }
        run.facts[name] = HostFacts(name, **(well | broken if fails else well))
        return Result(host=task.host)

    monkeypatch.setattr(gather, "gather_host", gather_host)
    monkeypatch.setattr(Source, "find", lambda *_, **__: None)
    monkeypatch.setattr(workflow, "SETTLE", 0)
    report = drift(nr, base=tmp_path, state=tmp_path / "state")
    assert (f"{host}/{subject}" in {one.id for one in report.differences}) == stays
    assert seen == {name: 2 if name == host else 1 for name in HOSTS}


def test_a_note_is_no_reason_to_look_again(load: Callable[..., Cluster]) -> None:
    def finding(severity: Severity) -> Finding:
        return Finding(host="s1", kind="api", subject="address", found="x", expected="x", remedy="x", severity=severity)

    cluster, facts = load(), {"s1": HostFacts("s1")}
    assert passing.hosts(cluster, facts, [finding("note")]) == set()
    assert passing.hosts(cluster, facts, [finding("error")]) == {"s1"}
