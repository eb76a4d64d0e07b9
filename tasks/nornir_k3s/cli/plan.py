"""`nornir-k3s plan`, and `deploy --plan`: what a deploy would change."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import HostUnreachable
from nornir_k3s.model.drift_report import DRIFT
from nornir_k3s.report import terminal
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.plan import plan, plan_to_save


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, show)


def show(ctx: Session, args: argparse.Namespace) -> int:
    """Show what a deploy would do; nothing is changed. With --exit-code: 3 when something would be."""
    more = {"skip_unreachable": args.skip_unreachable, "ignore_window": args.ignore_window}
    choice = Choice(args.limit, args.until or "", args.only or "", trial=args.trial, **more)
    if args.out:
        saved = plan_to_save(ctx.nr, **ctx.arguments, choice=choice)
        write_text(args.out, saved.model_dump_json(indent=2), mode=0o600)
        found = saved.plan
    else:
        found = plan(ctx.nr, **ctx.arguments, choice=choice)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_plan(found, ctx.report_console(args.json))
    if found.skipped:
        return HostUnreachable.exit_code
    return DRIFT if args.exit_code and found.changes else 0
