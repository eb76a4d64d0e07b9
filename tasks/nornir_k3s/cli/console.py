"""What the operator sees while a command runs."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable

from nornir.core.task import AggregatedResult, MultiResult, Task
from rich.console import Console

from nornir_k3s.plugins.progress import Progress


class Screen(Console):
    """A console that goes silent when its reader has gone: the work and its exit code matter more."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
            os.dup2(nowhere, self.file.fileno())
        self.quiet = True


def confirmed(ask: Callable[[], str]) -> bool:
    """Return whether a question was answered with yes; the end of the input (Ctrl-D) is no."""
    try:
        return ask().strip().lower() in ("y", "yes")
    except EOFError:
        return False


class Verbose(Progress):
    """Prints the results and diffs of every phase in the form that Nornir users know."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """Print the result of each host."""
        # Imported here: it replaces standard output for its colours.
        from nornir_utils.plugins.functions import print_result  # noqa: PLC0415 - replaces stdout

        if task.name != "close_connections_task":
            print_result(_readable(result))


def _readable(result: AggregatedResult) -> AggregatedResult:
    """Return a copy without what is data for the next phase, and no text for people."""
    shown = AggregatedResult(result.name)
    for host, results in result.items():
        shown[host] = MultiResult(results.name)
        for one in results:
            other = copy.copy(one)
            lines = one.result if isinstance(one.result, list) else [one.result]
            if not all(isinstance(line, str) for line in lines):
                other.result = None
            shown[host].append(other)
    return shown
