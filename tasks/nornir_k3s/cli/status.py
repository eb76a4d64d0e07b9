"""`nornir-k3s status`: nodes, servers behind the VIP, who holds it, datastore, versions, certificates."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import HostUnreachable
from nornir_k3s.report import terminal
from nornir_k3s.workflows.status import status


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _work)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Show the status; 1 when something is wrong, 4 when a host is unreachable."""
    found = status(ctx.nr, **ctx.arguments)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_status(found, ctx.report_console(args.json), verbose=args.verbose)
    return HostUnreachable.exit_code if found.unreachable else 1 if found.problems else 0
