"""What the runbooks share: arguments, Nornir from config.yaml, logging, errors to exit codes."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

# What is imported is no garbage: looking for some among it, while it is imported and when this process ends, takes as
# long as connecting to all hosts. `main` turns that on again.
gc.disable()
try:
    from nornir import InitNornir
    from nornir.core import Nornir
    from nornir.core.processor import Processor
    from nornir.core.task import AggregatedResult, Task
    from rich.console import Console

    from nornir_k3s import atomic_file
    from nornir_k3s.errors import Interrupted, K3sError, UsageError
    from nornir_k3s.inventory import config
    from nornir_k3s.model.report import Report
    from nornir_k3s.plugins.progress import Progress
except ImportError as error:
    sys.exit(
        f"{error.name or error} is not installed. In the project's folder run `make setup` and use"
        " `.venv/bin/python`, or install it: pip install -e ."
    )

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Context:
    """What a runbook works with."""

    nr: Nornir
    config: config.Config
    out: Console
    err: Console
    log: Path

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that every workflow of the package takes."""
        options = {
            "deadlines": self.config.options.deadlines,
            "widths": self.config.options.widths,
            "cache": self.config.cache,
            "sources": self.config.problems(),
            "limits": self.config.options.drift.limits,
            "whole": True,  # nobody has filtered it
            "keep_runs": self.config.options.drift.keep_runs,
        }
        return {"base": self.config.base, "state": self.config.state, "options": options}


class Screen(Console):
    """A console that goes on in silence when nobody reads it any more: the work and its exit code matter more."""

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
            os.dup2(nowhere, self.file.fileno())
        self.quiet = True


class Verbose(Progress):
    """Prints every phase's results and diffs as people who know Nornir expect them."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """Print what each host gave."""
        # Imported here: it takes hold of standard output for its colours.
        from nornir_utils.plugins.functions import print_result  # noqa: PLC0415

        if task.name != "close_connections_task":
            print_result(result)


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse's own never returns
        """Tell what is wrong and leave with the exit code for wrong usage."""
        self.exit(UsageError.exit_code, f"error: {message}\n  next: {self.prog} --help\n")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options every runbook has."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:  # closed by the caller: what would be said there goes nowhere
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end
    result = Parser(description=description, allow_abbrev=False)
    result.add_argument(
        "--config", type=Path, default=PROJECT / "config.yaml", help="Nornir's configuration (default: %(default)s)"
    )
    result.add_argument(
        "--inventory",
        type=Path,
        help="folder with hosts.yaml, groups.yaml, defaults.yaml (default: as the config says)",
    )
    result.add_argument(
        "-v", "--verbose", action="store_true", help="also print each host's result and diff, as Nornir does"
    )
    return result


def context(args: argparse.Namespace) -> Context:
    """Return Nornir and the tool's own settings for these arguments.

    Raises:
        UsageError: The config or the inventory cannot be read.
    """
    settings = config.load(args.config.resolve(), args.inventory)
    log = _log(settings.state)
    try:
        nr = InitNornir(**settings.nornir)
    except K3sError:
        raise
    except Exception as error:
        logging.getLogger("nornir_k3s").debug("InitNornir failed", exc_info=True)
        raise config.unreadable(settings.sources, _first_line(error)) from None
    if not nr.inventory.hosts and settings.sources.problems:
        raise config.unreadable(settings.sources, "it has no host")
    return Context(nr, settings, Screen(highlight=False), Screen(stderr=True, highlight=False), log)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _log(state: Path) -> Path:
    """Keep a debug log of this run, 0600, beside the generated secrets; nothing of it reaches the terminal."""
    folder = state / "log"
    log = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        for path in (state, folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}", hint="set `state` in config.yaml") from None
    handler = logging.StreamHandler(os.fdopen(descriptor, "w"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    logging.getLogger("netmiko").setLevel(logging.WARNING)
    for old in sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{8}-\d{6}-\d+\.log", path.name))[:-20]:
        old.unlink(missing_ok=True)
    return log


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


def main(arguments: argparse.Namespace, work: Callable[[Context], int]) -> int:
    """Run a runbook's work and return its exit code; an expected error is told in words, never as a traceback."""
    gc.freeze()
    gc.enable()
    err = Screen(stderr=True, highlight=False, soft_wrap=True)
    ctx: Context | None = None
    for number in (signal.SIGTERM, signal.SIGHUP):  # of a service manager, of a terminal that was closed: as Ctrl-C
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _as_ctrl_c)
    try:
        ctx = context(arguments)
        with ctx.nr as nr:
            shown: list[Processor] = [Progress(ctx.err)]
            ctx.nr = nr.with_processors([*shown, Verbose()] if arguments.verbose else shown)
            return work(ctx)
    except KeyboardInterrupt:
        err.print("interrupted")
        return Interrupted.exit_code
    except K3sError as error:
        err.print(f"error: {error}", markup=False)
        if ctx:
            err.print(f"  docs/errors.md explains {type(error).__name__}; the debug log is {ctx.log}", markup=False)
        return error.exit_code
    except Exception as error:
        logging.getLogger("nornir_k3s").exception("unexpected")
        where = f"; the traceback is in {ctx.log}" if ctx else ""
        err.print(f"error: unexpected {type(error).__name__}: {_first_line(error)}{where}", markup=False)
        return 1


def writable(path: Path | None) -> bool:
    """Say whether a report can be written there: before the work, not after it."""
    if path is None or str(path) == "-":
        return True
    folder = path.absolute().parent
    return folder.is_dir() and not path.is_dir() and os.access(path if path.exists() else folder, os.W_OK)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write a report; a reader sees the old text or the new one, never half. `-` is standard output.

    Arguments:
        mode: The file's, whatever the umask says; by default as the umask says.

    Raises:
        UsageError: The file cannot be written.
    """
    if str(path) == "-":
        sys.stdout.write(text + "\n")
        return
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():  # a device, a pipe
            path.write_text(text + "\n")
            return
        atomic_file.write(path, text + "\n", mode=mode)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="give another file") from None


def keep_report(report: Report, log: Path, path: Path | None) -> None:
    """Write a run's report for machines where one was asked for."""
    report.log = log
    if path is not None:
        write_text(path, report.model_dump_json(indent=2))
