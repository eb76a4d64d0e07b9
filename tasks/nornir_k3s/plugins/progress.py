"""A Nornir processor that shows what runs where: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from nornir.core.inventory import Host
from nornir.core.task import AggregatedResult, MultiResult, Task
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "changed": "yellow", "failed": "red"}

log = logging.getLogger(__name__)


def _quiet(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a display error from ending the run: Nornir does not catch what a processor raises."""

    @wraps(hook)
    def safe(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        try:
            hook(*args, **kwargs)
        except Exception:
            log.debug("showing progress failed", exc_info=True)

    return safe


class Progress:
    """Live progress of every phase.

    Arguments:
        console: Where to; a terminal gets a live table, anything else one line per host and phase.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._done: dict[str, str] = {}
        self._live: Live | None = None
        self._phase, self._hosts = "", 0
        self._begin = 0.0

    @_quiet
    def task_started(self, task: Task) -> None:
        """Begin a phase."""
        self._phase, self._begin = task.name, time.monotonic()
        self._running, self._done = {}, {}
        self._hosts = len(task.nornir.inventory.hosts.keys() - task.nornir.data.failed_hosts)
        if self.console.is_terminal and task.name != "close_connections_task":
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()

    @_quiet
    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """End a phase with one line."""
        if self._live:
            self._live.stop()
            self._live = None
        if task.name == "close_connections_task":
            return
        failed = sum(multi.failed for multi in result.values())
        changed = sum(multi.changed for multi in result.values())
        words = [f"{len(result)} hosts"] + ([f"{changed} changed"] if changed else [])
        words += [f"{failed} failed"] if failed else []
        seconds = time.monotonic() - self._begin
        self.console.print(f"{task.name}: {', '.join(words)} ({seconds:.1f} s)", markup=False, soft_wrap=True)

    @_quiet
    def task_instance_started(self, task: Task, host: Host) -> None:  # noqa: ARG002 - Nornir's signature
        """A host's turn begins."""
        with self._lock:
            self._running[host.name] = time.monotonic()

    @_quiet
    def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """A host's turn has ended."""
        state = "failed" if result.failed else "changed" if result.changed else "ok"
        with self._lock:
            begin = self._running.pop(host.name, time.monotonic())
            self._done[host.name] = state
        if state != "ok" and not self._live:
            seconds = time.monotonic() - begin
            self.console.print(f"  [{task.name}] {host.name}: {state} {seconds:.1f} s", markup=False, soft_wrap=True)

    def subtask_instance_started(self, task: Task, host: Host) -> None:
        """Subtasks are not shown."""

    def subtask_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """Subtasks are not shown."""

    def _table(self) -> Table:
        now = time.monotonic()
        with self._lock:
            rows = [(self._phase, f"{now - self._begin:.0f} s", "bold")]
            rows += [(f"  {name}", f"running {now - begin:.0f} s", "") for name, begin in self._running.items()]
            rows += [(f"  {name}", state, _STYLES[state]) for name, state in self._done.items()]
            if waiting := self._hosts - len(self._running) - len(self._done):
                rows.append((f"  {waiting} more", "waiting", "dim"))
        table = Table.grid(padding=(0, 2))
        for name, state, style in rows:
            table.add_row(Text(name), Text(state, style))  # as Text: a name in brackets is no markup
        return table
