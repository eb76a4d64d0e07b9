"""How a reset reads hosts and applies its steps, and the Nornir tasks of removals and resets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir

from nornir_k3s import UsageError, k3s_remove, k3s_reset, reset
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.removal import Removal
from nornir_k3s.phases import host_tasks
from nornir_k3s.phases import reset as phases
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import remove
from nornir_k3s.workflows import reset as workflow

from .conftest import HOSTS
from .test_left import nr, prepared

NODE = "@made\tstate\t/var/lib/nornir-k3s\t\n@made\tk3s\t\t\n@made\tfile\t/etc/rancher/k3s/config.yaml\t\n"
DATABASE = "@made\tstate\t/var/lib/nornir-k3s\t\n@made\tpackage\tmariadb-server\t\n@database\talive\tyes\t\n"


class Link:
    """A session that answers what hosts print, and keeps the scripts."""

    def __init__(self, name: str, scripts: dict[str, list[str]]) -> None:
        self.name, self.scripts = name, scripts.setdefault(name, [])

    def run(self, script: str, *, what: str, **_: object) -> SimpleNamespace:
        self.scripts.append(script)
        if what == "applying":
            return SimpleNamespace(status=0, stdout="@did\tremove:k3s\tchanged\n@stays\tcurl\n@end\n", stderr="")
        made = DATABASE if self.name == "db1" else NODE
        work = "@work\tno\t6\t-\t-\n" if "fact_work /run" in script else ""
        return SimpleNamespace(stdout=work + (made if "fact_made" in script else "@distribution\tdebian\n") + "@end\n")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    prepared(HOSTS, tmp_path)
    found: dict[str, list[str]] = {}
    for module in (phases, host_tasks):
        monkeypatch.setattr(module, "session_of", lambda task, _run: Link(task.host.name, found))
    return found


def applied(scripts: dict[str, list[str]]) -> list[str]:
    return [name for name, sent in scripts.items() if any("flock -w" in one for one in sent)]


def test_hosts_are_read_whatever_works_there_and_each_gets_its_steps(
    scripts: dict[str, list[str]], tmp_path: Path
) -> None:
    report = reset(nr(HOSTS), base=tmp_path, state=tmp_path / "state")
    assert set(applied(scripts)) == set(HOSTS) - {"db1"}
    assert {"reset_k3s", "give_back_file", "forget_all"} <= set(scripts["s1"][-1].replace("(", " ").split())
    assert report.hosts["s1"].changes == ["remove:k3s"]
    assert "s1: curl was not removed: other packages need it" in report.notes
    scripts.clear()
    reset(nr(HOSTS), datastore=True, base=tmp_path, state=tmp_path / "state")
    assert "purge apt mariadb-server" in scripts["db1"][-1]
    assert "fact_others /nowhere" in scripts["db1"][1]


@pytest.mark.usefixtures("scripts")
def test_the_number_of_the_lock_is_read_so_that_runs_of_before_refuse_no_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, int] = {}

    def note(run: Run, *_: object, **__: object) -> None:
        read.update({name: facts.work.number for name, facts in run.facts.items()})

    monkeypatch.setattr(workflow, "_carry_out", note)
    reset(nr(HOSTS), base=tmp_path, state=tmp_path / "state")
    assert read == dict.fromkeys(HOSTS, 6)


def run_task(inventory: Nornir, name: str, task: Any, folder: Path, **more: Any) -> Any:
    return inventory.filter(name=name).run(task=task, base=folder, state=folder / "state", **more)[name][0]


def test_the_task_resets_one_host_and_leaves_a_datastore(scripts: dict[str, list[str]], tmp_path: Path) -> None:
    planned = run_task(nr(HOSTS), "a1", k3s_reset, tmp_path, dry_run=True)
    assert planned.changed
    assert planned.result[0] == "uninstall K3s with its own script, and remove what that leaves"
    assert applied(scripts) == []
    assert run_task(nr(HOSTS), "a1", k3s_reset, tmp_path).result == planned.result
    assert applied(scripts) == ["a1"]
    left = run_task(nr(HOSTS), "db1", k3s_reset, tmp_path)
    assert (left.changed, left.result) == (False, [])


@pytest.fixture
def removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], bool]]:
    """The hosts that the task took out, and whether they were lost."""
    prepared(HOSTS, tmp_path)
    done: list[tuple[list[str], bool]] = []

    def read(run: Run, names: Any, *, lost: bool) -> list[Member]:
        assert run.facts == {}, "what is shared may be out of date"
        if names == ["lb1"]:
            raise UsageError("lb1 is neither a server nor an agent")
        return [run.member(name) for name in names]

    def planned(run: Run, leaving: list[Member], *, lost: bool) -> Removal:
        names = [member.name for member in leaving]
        return Removal(
            cluster=run.cluster.name, hosts=names, changes={names[0]: ["uninstall K3s"], "cluster": ["delete"]}
        )

    def carry_out(_: Run, leaving: list[Member], *, lost: bool) -> None:
        done.append(([member.name for member in leaving], lost))

    for name, stand_in in (("read", read), ("planned", planned), ("carry_out_removal", carry_out)):
        monkeypatch.setattr(remove, name, stand_in)
    return done


def test_the_task_takes_one_host_out(removed: list[tuple[list[str], bool]], tmp_path: Path) -> None:
    planned = run_task(nr(HOSTS), "a1", k3s_remove, tmp_path, dry_run=True)
    assert (planned.changed, planned.result) == (True, ["a1: uninstall K3s", "cluster: delete"])
    assert removed == []
    assert run_task(nr(HOSTS), "a1", k3s_remove, tmp_path).result == planned.result
    assert run_task(nr(HOSTS), "s2", k3s_remove, tmp_path, lost=True).changed
    assert removed == [(["a1"], False), (["s2"], True)]
    refused = run_task(nr(HOSTS), "lb1", k3s_remove, tmp_path)
    assert refused.failed
    assert "neither a server nor an agent" in refused.result
