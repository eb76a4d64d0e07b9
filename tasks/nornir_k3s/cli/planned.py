"""A command that plans, asks once on a terminal, works, and shows its report, also when it fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from nornir_k3s.cli.console import Screen, confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError, UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.report import terminal


class Plan(Protocol):
    """What a command would do."""

    cluster: str

    def model_dump_json(self, *, indent: int) -> str:
        """Return it as JSON."""


P = TypeVar("P", bound=Plan)


def yes_or_no(err: Screen, _cluster: str = "") -> bool:
    """Ask whether to go on."""
    return confirmed(lambda: err.input("go on? [y/N] ", markup=False))


def by_name(err: Screen, cluster: str, *, to: str = "go on") -> bool:
    """Ask for the cluster's name; the end of the input (Ctrl-D) is no."""
    try:
        return err.input(f"type the cluster's name to {to}: ", markup=False).strip() == cluster
    except EOFError:
        return False


@dataclass(frozen=True)
class Planned(Generic[P]):
    """One command with its arguments.

    Arguments:
        plan: Returns what it would do.
        show: Shows that.
        work: Does it; called with what asks before the first change, None if nothing is asked.
        ask: Asks, once the plan is shown, with the cluster's name.
        must_ask: Refused without --yes where nobody can be asked.
    """

    plan: Callable[[], P]
    show: Callable[[P, Screen], None]
    work: Callable[[Callable[[P], bool] | None], Report]
    ask: Callable[[Screen, str], bool] = yes_or_no
    must_ask: bool = True

    def run(self, ctx: Session, args: argparse.Namespace) -> int:
        """Plan with --plan, else work; return the exit code.

        Raises:
            UsageError: There is no terminal to ask on; the plan was shown.
            K3sError: As the command does; its report was shown.
        """
        if args.plan:
            found = self.plan()
            if args.json:
                write_text(args.json, found.model_dump_json(indent=2))
            self.show(found, ctx.report_console(args.json))
            return 0
        if self.must_ask and not args.yes and not can_ask(ctx):
            self.show(self.plan(), ctx.err)
            raise UsageError("there is no terminal to ask on", hint="add --yes")
        try:
            report = self.work(None if args.yes else lambda found: self._confirm(ctx, found))
        except Declined:
            raise
        except K3sError as error:
            if error.report:
                show(ctx, args.json, error.report)
            raise
        show(ctx, args.json, report)
        return report.exit_code

    def _confirm(self, ctx: Session, found: P) -> bool:
        self.show(found, ctx.err)
        return self.ask(ctx.err, found.cluster)


def can_ask(ctx: Session) -> bool:
    """Return whether there is a terminal to ask on."""
    return sys.stdin.isatty() and ctx.err.is_terminal


def show(ctx: Session, json: Path | None, report: Report) -> None:
    """Show and write the report of a run."""
    report.log = ctx.log
    if json:
        write_text(json, report.model_dump_json(indent=2))
    terminal.show(report, ctx.report_console(json))
