"""`nornir-k3s remove`: take servers, agents or load balancers out of the cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from nornir_k3s.cli import session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError, UsageError
from nornir_k3s.inventory import edit
from nornir_k3s.model.removal import Removal
from nornir_k3s.model.report import Report
from nornir_k3s.report import terminal
from nornir_k3s.workflows.remove import plan_removal, remove


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_removal(ctx.nr, args.hosts, **ctx.arguments, lost=args.lost)
    found.notes += _lines(ctx, args)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_removal(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, remove, and show the report, also when it fails."""
    if args.write:
        edit.without(ctx.config.sources, args.hosts)  # refused before the first change
    confirm = confirming(ctx, args)
    if confirm is None and not args.yes:
        terminal.show_removal(plan_removal(ctx.nr, args.hosts, **ctx.arguments, lost=args.lost), ctx.err)
        raise no_terminal()
    try:
        report = remove(ctx.nr, args.hosts, **ctx.arguments, lost=args.lost, confirm=confirm)
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            show(ctx, args, error.report)
        raise
    if args.write:
        edit.write(ctx.config.sources, args.hosts)
        report.notes = [note for note in report.notes if not note.startswith("delete ")]
    report.notes += [] if args.write else _lines(ctx, args)
    show(ctx, args, report)
    return report.exit_code


def _lines(ctx: Session, args: argparse.Namespace) -> list[str]:
    """Return where the hosts are in the inventory."""
    sources = ctx.config.sources
    places = {name: sources.location("hosts", name) for name in args.hosts if name in sources.data.get("hosts", {})}
    return [f"{name} is in {place}; --write deletes it there" for name, place in places.items()]


def confirming(
    ctx: Session, args: argparse.Namespace, *, verb: str = "remove", where: str = "from"
) -> Callable[[Removal], bool] | None:
    """Return what asks before the first change; None with --yes, and without a terminal."""
    if args.yes or not (sys.stdin.isatty() and ctx.err.is_terminal):
        return None

    def confirm(plan: Removal) -> bool:
        terminal.show_removal(plan, ctx.err, verb=verb, where=where)
        return confirmed(lambda: ctx.err.input("go on? [y/N] ", markup=False))

    return confirm


def no_terminal() -> UsageError:
    """Return the error of a command that must ask, and cannot."""
    return UsageError("there is no terminal to ask on", hint="add --yes")


def show(ctx: Session, args: argparse.Namespace, report: Report) -> None:
    """Show and write the report of a run."""
    report.log = ctx.log
    if args.json:
        write_text(args.json, report.model_dump_json(indent=2))
    terminal.show(report, ctx.report_console(args.json))
