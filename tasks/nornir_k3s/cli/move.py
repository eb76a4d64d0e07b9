"""`nornir-k3s move`: take the cluster's data to the datastore that the inventory describes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned
from nornir_k3s.cli.session import Session
from nornir_k3s.model.move import Move
from nornir_k3s.model.report import Report
from nornir_k3s.report import terminal
from nornir_k3s.workflows.move import move, move_back, plan_move


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    def work(confirm: Callable[[Move], bool] | None) -> Report:
        if args.back:
            return move_back(ctx.nr, **ctx.arguments)
        return move(ctx.nr, **ctx.arguments, ignore_window=args.ignore_window, confirm=confirm)

    plan = Planned(lambda: plan_move(ctx.nr, **ctx.arguments), terminal.show_move, work, must_ask=not args.back)
    return plan.run(ctx, args)
