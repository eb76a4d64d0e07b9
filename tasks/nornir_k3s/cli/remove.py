"""`nornir-k3s remove`: take servers, agents or load balancers out of the cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned
from nornir_k3s.cli.session import Session
from nornir_k3s.inventory import edit
from nornir_k3s.model.removal import Removal
from nornir_k3s.model.report import Report
from nornir_k3s.report import terminal
from nornir_k3s.workflows.remove import plan_removal, remove


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    def plan() -> Removal:
        found = plan_removal(ctx.nr, args.hosts, **ctx.arguments, lost=args.lost)
        found.notes += _lines(ctx, args)
        return found

    def work(confirm: Callable[[Removal], bool] | None) -> Report:
        if args.write:
            edit.without(ctx.config.sources, args.hosts)  # refused before the first change
        report = remove(ctx.nr, args.hosts, **ctx.arguments, lost=args.lost, confirm=confirm)
        if args.write:
            edit.write(ctx.config.sources, args.hosts)
            report.notes = [note for note in report.notes if not note.startswith("delete ")]
        else:
            report.notes += _lines(ctx, args)
        return report

    return Planned(plan, terminal.show_removal, work).run(ctx, args)


def _lines(ctx: Session, args: argparse.Namespace) -> list[str]:
    """Return where the hosts are in the inventory."""
    sources = ctx.config.sources
    places = {name: sources.location("hosts", name) for name in args.hosts if name in sources.data.get("hosts", {})}
    return [f"{name} is in {place}; --write deletes it there" for name, place in places.items()]
