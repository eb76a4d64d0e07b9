"""`nornir-k3s move`: take the cluster's data to the datastore that the inventory describes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from nornir_k3s.cli import session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.remove import no_terminal, show
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError
from nornir_k3s.model.move import Move
from nornir_k3s.report import terminal
from nornir_k3s.workflows.move import move, move_back, plan_move


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_move(ctx.nr, **ctx.arguments)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_move(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, move, and show the report, also when it fails."""
    confirm = _confirming(ctx, args)
    if confirm is None and not args.yes and not args.back:
        terminal.show_move(plan_move(ctx.nr, **ctx.arguments), ctx.err)
        raise no_terminal()
    try:
        if args.back:
            report = move_back(ctx.nr, **ctx.arguments)
        else:
            report = move(ctx.nr, **ctx.arguments, ignore_window=args.ignore_window, confirm=confirm)
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            show(ctx, args, error.report)
        raise
    show(ctx, args, report)
    return report.exit_code


def _confirming(ctx: Session, args: argparse.Namespace) -> Callable[[Move], bool] | None:
    """Return what asks before the first change; None with --yes, and without a terminal."""
    if args.yes or not (sys.stdin.isatty() and ctx.err.is_terminal):
        return None

    def confirm(plan: Move) -> bool:
        terminal.show_move(plan, ctx.err)
        return confirmed(lambda: ctx.err.input("go on? [y/N] ", markup=False))

    return confirm
