"""A Nornir processor that shows the progress: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from nornir.core.inventory import Host
from nornir.core.task import AggregatedResult, MultiResult, Task
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, TaskID, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

_NAMED = 8  # hosts in the line of a finished phase
_CLOSING = "close_connections_task"
_STYLES = {"ok": "green", "changed": "yellow", "failed": "red"}

log = logging.getLogger(__name__)


def _quiet(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a display error from ending the run: Nornir does not catch what a processor raises."""

    @wraps(hook)
    def safe(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the hook's own
        try:
            hook(*args, **kwargs)
        except Exception:
            log.debug("showing progress failed", exc_info=True)

    return safe


@dataclass
class _Phase:
    """A Nornir run in progress."""

    hosts: int
    begin: float = field(default_factory=time.monotonic)
    running: dict[str, float] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    doing: dict[str, str] = field(default_factory=dict)


def _names(done: dict[str, str]) -> str:
    """Return the hosts with something to tell, the failed ones first; of many the first ones."""
    names = [f"{name} {state}" for state in ("failed", "changed") for name, was in done.items() if was == state]
    return ", ".join(names[:_NAMED]) + (f", {len(names) - _NAMED} more" if len(names) > _NAMED else "")


class Progress:
    """Live progress of every phase; some run in parallel.

    Arguments:
        console: A terminal gets a live table, anything else one line per host and phase.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._live: Live | None = None
        self._bar: Bar | None = None
        self._files: dict[str, TaskID] = {}

    @_quiet
    def task_started(self, task: Task) -> None:
        """Begin a phase."""
        if task.name == _CLOSING:
            return
        with self._lock:
            self._phases[task.name] = _Phase(len(task.nornir.inventory.hosts.keys() - task.nornir.data.failed_hosts))
            first = len(self._phases) == 1
        if first and self.console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()

    @_quiet
    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """End a phase with one line."""
        if task.name == _CLOSING:
            return
        with self._lock:
            phase = self._phases[task.name]
            live, self._live = (self._live, None) if len(self._phases) == 1 else (None, self._live)
        if live:
            live.stop()
        with self._lock:
            del self._phases[task.name]
        failed = sum(multi.failed for multi in result.values())
        changed = sum(multi.changed for multi in result.values())
        words = [f"{len(result)} host{'s' if len(result) != 1 else ''}"] + ([f"{changed} changed"] if changed else [])
        words += [f"{failed} failed"] if failed else []
        seconds = time.monotonic() - phase.begin
        names = f": {_names(phase.done)}" if live and (failed or changed) else ""
        self.console.print(f"{task.name}: {', '.join(words)}{names} ({seconds:.1f} s)", markup=False, soft_wrap=True)

    @_quiet
    def task_instance_started(self, task: Task, host: Host) -> None:
        """Begin the task on one host."""
        with self._lock:
            self._phases[task.name].running[host.name] = time.monotonic()

    @_quiet
    def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """End the task on one host."""
        state = "failed" if result.failed else "changed" if result.changed else "ok"
        with self._lock:
            phase = self._phases[task.name]
            begin = phase.running.pop(host.name, time.monotonic())
            phase.doing.pop(host.name, None)
            phase.done[host.name] = state
        if state != "ok" and not self._live:
            seconds = time.monotonic() - begin
            self.console.print(f"  [{task.name}] {host.name}: {state} {seconds:.1f} s", markup=False, soft_wrap=True)

    @_quiet
    def host_does(self, host: str, what: str) -> None:
        """Show what a host does now, or what is waited for; on a terminal only."""
        with self._lock:
            for phase in self._phases.values():
                if host in phase.running:
                    phase.doing[host] = what

    @_quiet
    def bytes_done(self, name: str, done: int, total: int | None) -> None:
        """Show the progress of a download: a bar on a terminal, else one line when it is complete."""
        if not self.console.is_terminal:
            if total is not None and done >= total:
                self.console.print(f"downloaded {name}: {done / 1e6:.1f} MB", markup=False, soft_wrap=True)
            return
        with self._lock:
            if self._bar is None:
                columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn())
                self._bar = Bar(*columns, TransferSpeedColumn(), console=self.console, transient=True)
                self._bar.start()
            if name not in self._files:
                self._files[name] = self._bar.add_task(name, total=total)
            self._bar.update(self._files[name], completed=done, total=total)
            if self._bar.finished:
                self._bar.stop()
                self._bar = None
                self._files.clear()

    def subtask_instance_started(self, task: Task, host: Host) -> None:
        """Subtasks are not shown."""

    def subtask_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """Subtasks are not shown."""

    def _table(self) -> Table:
        now = time.monotonic()
        rows = []
        with self._lock:
            for name, phase in self._phases.items():
                rows.append((name, f"{now - phase.begin:.0f} s, {len(phase.done)} of {phase.hosts} hosts done", "bold"))
                for host, begin in phase.running.items():
                    rows.append((f"  {host}", f"{now - begin:.0f} s  {phase.doing.get(host, 'running')}", ""))
                rows += [(f"  {host}", state, _STYLES[state]) for host, state in phase.done.items()]
                if waiting := phase.hosts - len(phase.running) - len(phase.done):
                    rows.append((f"  {waiting} more", "waiting", "dim"))
        table = Table.grid(padding=(0, 2))
        for name, state, style in rows:
            table.add_row(Text(name), Text(state, style))  # as Text: a name in brackets is not markup
        return table
