"""A session: Nornir from config.yaml, the consoles, the debug log; and how its errors become exit codes."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from nornir import InitNornir
from nornir.core import Nornir
from nornir.core.processor import Processor

from nornir_k3s.cli import debug_log
from nornir_k3s.cli.arguments import CONFIG
from nornir_k3s.cli.console import Screen, Verbose
from nornir_k3s.errors import Declined, Interrupted, K3sError, OutsideWindow, UsageError
from nornir_k3s.inventory import config, placeholders
from nornir_k3s.plugins.progress import Progress


@dataclass
class Session:
    """What a command works with."""

    nr: Nornir
    config: config.Config
    out: Screen
    err: Screen
    log: Path

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that every workflow of the package takes."""
        options = {
            "deadlines": self.config.options.deadlines,
            "widths": self.config.options.widths,
            "cache": self.config.cache,
            "sources": placeholders.check(self.nr.inventory, self.config.problems()),
            "limits": self.config.options.drift.limits,
            "whole": True,  # nobody has filtered it
            "drill": self.config.options.drill,
            "keep_runs": self.config.options.drift.keep_runs,
            "backup": self.config.options.backup.below(self.config.path.parent.absolute()),
        }
        return {"base": self.config.base, "state": self.config.state, "options": options}

    def report_console(self, json: Path | None) -> Screen:
        """Return where a report for people goes: standard error where its JSON goes to standard output."""
        return self.err if str(json) == "-" else self.out


def run(
    args: argparse.Namespace,
    work: Callable[[Session, argparse.Namespace], int],
    settings: Callable[[], config.Config] | None = None,
) -> int:
    """Run the work of a command and return its exit code; an expected error is printed without a traceback.

    Arguments:
        settings: Returns the settings of a run that has no config.yaml; by default they are those of the file.
    """
    gc.freeze()
    gc.enable()
    err = Screen(stderr=True, highlight=False, soft_wrap=True)
    session: Session | None = None
    for number in (signal.SIGTERM, signal.SIGHUP):  # of a service manager, of a terminal that was closed: as Ctrl-C
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _as_ctrl_c)
    try:
        session = opened(settings() if settings else _settings(args))
        with session.nr as nr:
            shown: list[Processor] = [Progress(session.err)]
            session.nr = nr.with_processors([*shown, Verbose()] if args.verbose else shown)
            return work(session, args)
    except KeyboardInterrupt:
        err.print("interrupted")
        return Interrupted.exit_code
    except Declined as error:
        err.print(error.message, markup=False)
        return error.exit_code
    except OutsideWindow as error:
        err.print(str(error), markup=False)
        return error.exit_code
    except K3sError as error:
        err.print(f"error: {error}", markup=False)
        if session:
            err.print(f"  docs/errors.md explains {type(error).__name__}; the debug log is {session.log}", markup=False)
        return error.exit_code
    except Exception as error:
        logging.getLogger("nornir_k3s").exception("unexpected")
        where = f"; the traceback is in {session.log}" if session else ""
        err.print(f"error: unexpected {type(error).__name__}: {_first_line(error)}{where}", markup=False)
        return 1


def _settings(args: argparse.Namespace) -> config.Config:
    """Return the settings for these arguments.

    Raises:
        UsageError: The config or the inventory cannot be read.
    """
    if args.config == CONFIG and not CONFIG.exists():
        raise UsageError(
            f"there is no {CONFIG} in {Path.cwd()}",
            hint="run `nornir-k3s init` to write one and an inventory, or choose another file with --config",
        )
    return config.load(args.config.resolve(), args.inventory)


def opened(settings: config.Config, log: Path | None = None) -> Session:
    """Return the session of these settings.

    Arguments:
        log: A debug log that was started already.

    Raises:
        UsageError: Nornir cannot read the inventory.
    """
    log = log or debug_log.start(settings.state)
    try:
        nr = InitNornir(**settings.nornir)
    except K3sError:
        raise
    except Exception as error:
        logging.getLogger("nornir_k3s").debug("InitNornir failed", exc_info=True)
        circle = "groups contain themselves through their parent groups"
        reason = circle if isinstance(error, RecursionError) else _first_line(error)
        raise config.unreadable(settings.sources, reason) from None
    if not nr.inventory.hosts and settings.sources.problems:
        raise config.unreadable(settings.sources, "it has no host")
    return Session(nr, settings, Screen(highlight=False), Screen(stderr=True, highlight=False), log)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)
