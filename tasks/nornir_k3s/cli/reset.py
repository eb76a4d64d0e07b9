"""`nornir-k3s reset`: take a whole cluster down."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nornir_k3s.cli import session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.remove import no_terminal, show
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError, UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.reset import Reset
from nornir_k3s.report import terminal
from nornir_k3s.workflows.reset import plan_reset, reset


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = plan_reset(ctx.nr, **ctx.arguments, datastore=_is_named(ctx, args), lost=args.lost)
    found.notes += _timers(found.cluster)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_reset(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, reset, and show the report, also when it fails."""
    named = _is_named(ctx, args)
    if not args.yes and not (sys.stdin.isatty() and ctx.err.is_terminal):
        terminal.show_reset(plan_reset(ctx.nr, **ctx.arguments, datastore=named, lost=args.lost), ctx.err)
        raise no_terminal()

    def go_on(plan: Reset) -> bool:
        terminal.show_reset(plan, ctx.err)
        return confirmed(lambda: ctx.err.input("go on? [y/N] ", markup=False))

    def with_datastore(plan: Reset) -> bool:
        if not plan.datastore:
            return False
        terminal.show_datastore(plan, ctx.err)
        try:
            typed = ctx.err.input("type the name of the cluster to delete its datastore, too: ", markup=False)
        except EOFError:
            return False
        return typed.strip() == plan.cluster

    ask = not args.yes
    try:
        report = reset(
            ctx.nr,
            **ctx.arguments,
            lost=args.lost,
            confirm=go_on if ask else None,
            datastore=with_datastore if ask and not named else named,
        )
    except Declined:
        raise
    except K3sError as error:
        if error.report:
            show(ctx, args, error.report)
        raise
    return _end(ctx, args, report)


def _end(ctx: Session, args: argparse.Namespace, report: Report) -> int:
    report.notes += _timers(report.cluster)
    show(ctx, args, report)
    return report.exit_code


def _is_named(ctx: Session, args: argparse.Namespace) -> bool:
    """Return whether the datastore is to go.

    Raises:
        UsageError: Another cluster is named.
    """
    settings = ctx.nr.inventory.defaults.data.get("k3s_cluster")
    name = str(settings.get("name", "cluster")) if isinstance(settings, dict) else "cluster"
    if args.datastore not in ("", name):
        raise UsageError(f"--datastore {args.datastore}: this is cluster {name}", hint="nothing was changed")
    return bool(args.datastore)


def _timers(cluster: str) -> list[str]:
    """Return which timers of this controller still run for the cluster."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    found = [
        path for where in (Path("/etc/systemd/system"), home) for path in where.glob(f"nornir-k3s-*-{cluster}.timer")
    ]
    return [f"{path} still runs for this cluster: `nornir-k3s schedule remove`" for path in sorted(found)]
