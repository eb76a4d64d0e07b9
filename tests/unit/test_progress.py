from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.inventory import Defaults, Groups, Host, Hosts, Inventory
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task
from rich.console import Console

from nornir_k3s.plugins.progress import Progress
from nornir_k3s.plugins.runner import K3sRunner


def nornir(*names: str, width: int = 20) -> Nornir:
    hosts = Hosts({name: Host(name, defaults=Defaults()) for name in names})
    inventory = Inventory(hosts=hosts, groups=Groups(), defaults=Defaults())
    return Nornir(inventory=inventory, runner=K3sRunner(width), data=GlobalState(dry_run=False))


def work(task: Task) -> Result:
    if task.host.name == "bad":
        raise RuntimeError("oops")
    return Result(host=task.host, changed=task.host.name == "new")


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, color_system="standard", highlight=False)


def shown(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines() -> None:
    out = console(terminal=False)
    nornir("same", "new", "bad").with_processors([Progress(out)]).run(task=work, name="the [phase]")
    *lines, last = shown(out).splitlines()
    assert sorted(line.rsplit(" ", 2)[0] for line in lines) == [
        "  [the [phase]] bad: failed",
        "  [the [phase]] new: changed",
    ]
    assert last.startswith("the [phase]: 3 hosts, 1 changed, 1 failed (")


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_gets_a_table_that_lives(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    out = console(terminal=True)
    progress = Progress(out)
    seen = threading.Event()

    def look(task: Task) -> Result:
        if task.host.name == "new":
            for _ in range(600):
                if "running" in shown(out):
                    seen.set()
                    break
                threading.Event().wait(0.05)
        return work(task)

    nornir("new", "[red]same", "bad", width=1).with_processors([progress]).run(task=look, name="phase")
    assert seen.is_set()
    for words in ("phase", "  new", "2 more", "waiting", "1 changed", "1 failed"):
        assert words in shown(out)
    assert ("\x1b[33m" in shown(out)) is not no_color


def test_a_broken_display_does_not_end_the_run() -> None:
    class Broken(Console):
        def print(self, *_: Any, **__: Any) -> None:
            raise OSError("the terminal is gone")

    results = nornir("same", "new").with_processors([Progress(Broken(file=io.StringIO()))]).run(task=work)
    assert not results.failed


def test_closing_the_connections_is_not_a_phase() -> None:
    out = console(terminal=False)
    nornir("same").with_processors([Progress(out)]).close_connections()
    assert shown(out) == ""


def test_the_table_says_what_each_host_does_and_the_last_line_names_those_that_changed() -> None:
    out = console(terminal=True)
    progress = Progress(out)
    seen = threading.Event()

    def look(task: Task) -> Result:
        progress.host_does(task.host.name, "copies k3s: 34 of 70 MB")
        for _ in range(600):
            if "34 of 70 MB" in shown(out) and "0 of 2 hosts done" in shown(out):
                seen.set()
                break
            threading.Event().wait(0.05)
        return work(task)

    nornir("new", "same").with_processors([progress]).run(task=look, name="stage")
    assert seen.is_set()
    assert "stage: 2 hosts, 1 changed: new changed (" in shown(out)
