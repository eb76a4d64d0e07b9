"""`nornir-k3s replace`: a machine that was installed anew takes the place of a node under its name."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import remove, session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError
from nornir_k3s.report import terminal
from nornir_k3s.workflows.replace import plan_replacement, replace


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_replacement(ctx.nr, args.host, **ctx.arguments)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_removal(found, ctx.report_console(args.json), verb="replace", where="in")
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, replace, and show the report of the deploy, also when it fails."""
    confirm = remove.confirming(ctx, args, verb="replace", where="in")
    if confirm is None and not args.yes:
        terminal.show_removal(plan_replacement(ctx.nr, args.host, **ctx.arguments), ctx.err, verb="replace", where="in")
        raise remove.no_terminal()
    try:
        report = replace(ctx.nr, args.host, **ctx.arguments, confirm=confirm)
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            remove.show(ctx, args, error.report)
        raise
    remove.show(ctx, args, report)
    return report.exit_code
