"""`nornir-k3s restore`: a whole cluster back from a backup."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from nornir_k3s.cli import remove, session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError
from nornir_k3s.model.restoration import Restoration
from nornir_k3s.report import terminal
from nornir_k3s.workflows.restore import plan_restore, restore


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_restore(ctx.nr, args.file, key=args.key, lost=args.lost, **ctx.arguments)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_restoration(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, restore, and show the report, also when it fails."""
    confirm = _confirming(ctx, args)
    if confirm is None and not args.yes:
        found = plan_restore(ctx.nr, args.file, key=args.key, lost=args.lost, **ctx.arguments)
        terminal.show_restoration(found, ctx.err)
        raise remove.no_terminal()
    arguments: dict[str, Any] = {**ctx.arguments, "confirm": confirm}
    try:
        report = restore(ctx.nr, args.file, key=args.key, lost=args.lost, **arguments)
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            remove.show(ctx, args, error.report)
        raise
    remove.show(ctx, args, report)
    return report.exit_code


def _confirming(ctx: Session, args: argparse.Namespace) -> Callable[[Restoration], bool] | None:
    """Return what asks for the cluster's name before the first change; None with --yes, and without a terminal."""
    if args.yes or not (sys.stdin.isatty() and ctx.err.is_terminal):
        return None

    def confirm(plan: Restoration) -> bool:
        terminal.show_restoration(plan, ctx.err)
        try:
            return ctx.err.input("type the cluster's name to go on: ", markup=False).strip() == plan.cluster
        except EOFError:
            return False

    return confirm
