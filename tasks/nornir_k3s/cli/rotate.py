"""`nornir-k3s rotate`: a new secret in place of an old one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from nornir_k3s.cli import remove, session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.report import terminal
from nornir_k3s.workflows.rotate import plan_rotation, rotate


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_rotation(ctx.nr, args.what, **ctx.arguments)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_rotation(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, rotate, and show the report, also when it fails."""
    confirm = _confirming(ctx, args)
    if confirm is None and not args.yes:
        terminal.show_rotation(plan_rotation(ctx.nr, args.what, **ctx.arguments), ctx.err)
        raise remove.no_terminal()
    try:
        report = rotate(ctx.nr, args.what, **ctx.arguments, ignore_window=args.ignore_window, confirm=confirm)
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            remove.show(ctx, args, error.report)
        raise
    remove.show(ctx, args, report)
    return report.exit_code


def _confirming(ctx: Session, args: argparse.Namespace) -> Callable[[Rotation], bool] | None:
    """Return what asks before the first change; None with --yes, and without a terminal."""
    if args.yes or not (sys.stdin.isatty() and ctx.err.is_terminal):
        return None

    def confirm(plan: Rotation) -> bool:
        terminal.show_rotation(plan, ctx.err)
        return confirmed(lambda: ctx.err.input("go on? [y/N] ", markup=False))

    return confirm
