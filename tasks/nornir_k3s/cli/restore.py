"""`nornir-k3s restore`: a whole cluster back from a backup."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned, by_name
from nornir_k3s.cli.session import Session
from nornir_k3s.report import terminal
from nornir_k3s.workflows.restore import plan_restore, restore


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    given = {"key": args.key, "lost": args.lost, **ctx.arguments}
    return Planned(
        plan=lambda: plan_restore(ctx.nr, args.file, **given),
        show=terminal.show_restoration,
        work=lambda confirm: restore(ctx.nr, args.file, **given, confirm=confirm),
        ask=by_name,
    ).run(ctx, args)
