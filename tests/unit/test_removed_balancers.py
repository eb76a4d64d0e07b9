"""Load balancers leave the cluster; hosts of the datastore that have left the inventory are forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.checks import removal as checks
from nornir_k3s.errors import HostUnreachable
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.host_facts import HostFacts, Made, UnitState
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.phases import host_tasks, load_balancers, removal
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import remove

from .test_left import prepared
from .test_removal import THREE, seen
from .test_reset_on_hosts import Link

Load = Callable[..., Cluster]


def serving(*, lb1: str = "active") -> dict[str, HostFacts]:
    """Return the facts of load balancers that serve."""
    units = {name: UnitState(active="active") for name in ("haproxy.service", "keepalived.service")}
    stopped = {**units, "haproxy.service": UnitState(active=lb1)}
    found = seen()
    return found | {
        "lb1": replace(found["lb1"], units=stopped, made=Made(state=True, packages=("haproxy", "keepalived"))),
        "lb2": replace(found["lb2"], units=units),
    }


def test_a_load_balancer_leaves_while_another_one_serves(load: Load) -> None:
    cluster = load(hosts=THREE)
    lb1, lb2 = cluster.member("lb1"), cluster.member("lb2")
    assert checks.find(cluster, seen(), "lb1") == lb1
    assert list(checks.refusals(cluster, serving(), [lb1], lost=False)) == []
    assert list(checks.refusals(cluster, serving(), [lb1, cluster.member("a1")], lost=False)) == []
    (told,) = checks.refusals(cluster, serving(), [lb1, lb2], lost=False)
    assert told == "lb1, lb2: no load balancer would be left"
    (told,) = checks.refusals(cluster, serving(lb1="failed"), [lb2], lost=False)
    assert told == "HAProxy or keepalived is down on lb1: bring them back first"
    silent = {name: replace(one, api=Api()) for name, one in serving().items()}
    (told,) = checks.refusals(cluster, silent, [lb1], lost=False)
    assert told.startswith("no server is ready")
    gone = replace(cluster, left_others=(Member("db0", "datastore", "10.0.0.10", "db0"),))
    found = checks.find(gone, seen(), "db0")
    assert found
    (told,) = checks.refusals(gone, serving(), [found], lost=False)
    assert told == "db0 was a host of the datastore: what is there is yours to stop; --lost forgets it"
    assert list(checks.refusals(gone, serving(), [found], lost=True)) == []


def test_it_gives_the_vip_away_before_the_others_forget_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(THREE, tmp_path)
    run.facts = serving()
    leaving = [run.cluster.member("lb1")]
    planned = remove.planned(run, leaving, lost=False)
    assert planned.changes["lb1"][:2] == ["stop keepalived.service", "stop haproxy.service"]
    assert any("keepalived.conf" in one for one in planned.changes["lb2"]), "it has a peer less"
    assert "cluster" not in planned.changes
    assert "lb1" not in remove.planned(run, leaving, lost=True).changes
    done: list[str] = []

    def phase(self: Run, title: str, names: Any, *_: object, **__: object) -> dict[str, Any]:
        done.extend(f"{title}: {name}" for name in names)
        return {}

    def converge(later: Run) -> None:
        done.append(f"converge: {', '.join(member.name for member in later.cluster.of('lb'))}")

    monkeypatch.setattr(Run, "phase", phase)
    monkeypatch.setattr(load_balancers, "converge", converge)
    for one in removal.phases(leaving, lost=False):
        one.work(run)
    assert done == ["uninstall: lb1", "converge: lb2"]
    done.clear()
    for one in removal.phases(leaving, lost=True):
        one.work(run)
    assert done == ["converge: lb2"]


def test_one_that_left_the_inventory_is_read_at_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared({**THREE, "lb3": ("10.0.0.17", "lb")}, tmp_path)
    run, asked = prepared(THREE, tmp_path), list[str]()

    def observe(title: str, names: Any, *_: object, **__: object) -> None:
        asked.extend(names)
        run.facts |= serving()

    monkeypatch.setattr(run, "phase", observe)
    (member,) = remove.read(run, ["lb3"], lost=False)
    assert (member.role, run.cluster.left_others) == ("lb", ())
    assert asked == ["lb1", "lb2", "db1", "s1", "s2", "s3", "lb3", "lb3"]
    assert run.nr.inventory.hosts["lb3"].hostname == "10.0.0.17"


def test_one_that_is_dead_leaves_while_it_is_in_the_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = prepared(THREE, tmp_path), list[str]()

    def observe(title: str, names: Any, *_: object, **__: object) -> None:
        asked.extend(names)
        if "lb2" in names:
            raise HostUnreachable("lb2", "no answer", hint="see whether it runs")
        run.facts |= {name: facts for name, facts in serving().items() if name != "lb2"}

    monkeypatch.setattr(run, "phase", observe)
    with pytest.raises(HostUnreachable) as caught:
        remove.read(run, ["lb2"], lost=False)
    assert caught.value.hint == "see whether it runs; if the host is gone for good: --lost"
    asked.clear()
    (member,) = remove.read(run, ["lb2"], lost=True)
    assert member.name == "lb2"
    assert "lb2" not in asked
    with pytest.raises(HostUnreachable) as caught:
        remove.read(run, ["s3"], lost=False)
    assert caught.value.hint == "see whether it runs", "that one is not to leave"


def test_what_this_tool_has_put_there_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(THREE, tmp_path)
    run.facts = serving()
    scripts: dict[str, list[str]] = {}
    monkeypatch.setattr(host_tasks, "session_of", lambda task, _run: Link(task.host.name, scripts))
    monkeypatch.setattr(load_balancers, "converge", lambda _: None)
    phase = next(one for one in removal.phases([run.cluster.member("lb1")], lost=False) if one.name == "load-balancers")
    phase.work(run)
    assert list(scripts) == ["lb1"]
    assert "purge apt haproxy keepalived" in scripts["lb1"][-1]
