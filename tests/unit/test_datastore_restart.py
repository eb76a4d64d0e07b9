"""A datastore that restarts under a running cluster: what is said before, and that servers are waited for after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.errors import CommandFailed
from nornir_k3s.model.step import Action, Step
from nornir_k3s.phases import datastore


@dataclass
class Cluster:
    """A run whose hosts only note what was done with them."""

    hosts: Sequence[str] = ("db1",)
    action: Action = "restart"
    ready_servers: Sequence[str] = ("s1", "s2")
    fails: str = ""
    orders: list[str] = field(default_factory=list)
    report: Any = field(default_factory=lambda: SimpleNamespace(notes=[]))

    def of(self, role: str) -> Sequence[Any]:
        return [SimpleNamespace(name=name) for name in self.hosts if role == "datastore"]

    def chosen(self, names: Sequence[str]) -> list[str]:
        return list(names)

    def planned(self, name: str) -> Any:  # noqa: ARG002 - all are alike
        step = Step("unit", "mariadb.service", "x", payload=None, action=self.action)
        return SimpleNamespace(by_role={"datastore": (step,)})

    def phase(self, title: str, names: Sequence[str], task: Any) -> None:
        self.orders.append(f"{title} {' '.join(names)}")
        assert (task is datastore._wait_until_ready) == (title == "servers")
        if self.fails in names:
            raise CommandFailed(self.fails, "the script", status=1, stderr="")


def test_servers_are_waited_for_after_each_host_that_restarts() -> None:
    run: Any = Cluster(("db1", "db2", "db3"))
    datastore.prepare(run)
    assert run.orders == [line for name in ("db1", "db2", "db3") for line in (f"datastore {name}", "servers s1 s2")]
    assert run.report.notes[0].startswith("db1: mariadb.service has restarted; all servers were ready again ")


def test_no_second_member_restarts_where_the_first_has_failed() -> None:
    run: Any = Cluster(("db1", "db2", "db3"), fails="db1")
    with pytest.raises(CommandFailed):
        datastore.prepare(run)
    assert run.orders == ["datastore db1"]


def test_what_does_not_restart_is_not_waited_for() -> None:
    run: Any = Cluster(action="reload")
    datastore.prepare(run)
    assert run.orders == ["datastore db1"]
    assert list(datastore.announced(run)) == run.report.notes == []


def test_members_of_a_new_etcd_start_together() -> None:
    run: Any = Cluster(("db1", "db2", "db3"), ready_servers=(), action="start")
    datastore.prepare(run)
    assert run.orders == ["datastore db1 db2 db3"]
    assert list(datastore.announced(run)) == []


def test_a_restart_is_announced_with_what_k3s_survives() -> None:
    (one,) = datastore.announced(Cluster())  # type: ignore[arg-type]  # all it uses
    assert one.startswith("db1: mariadb.service would restart: the API does not answer")
    assert "K3s survives about 5 s without its datastore, but not 10 s" in one
    three = list(datastore.announced(Cluster(("db1", "db2", "db3"))))  # type: ignore[arg-type]  # all it uses
    assert len(three) == 3
    assert "one member at a time" in three[0]
