"""`nornir-k3s rotate`: a new secret in place of an old one."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned
from nornir_k3s.cli.session import Session
from nornir_k3s.report import terminal
from nornir_k3s.workflows.rotate import plan_rotation, rotate


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    return Planned(
        plan=lambda: plan_rotation(ctx.nr, args.what, **ctx.arguments, ignore_window=args.ignore_window),
        show=terminal.show_rotation,
        work=lambda confirm: rotate(
            ctx.nr, args.what, **ctx.arguments, ignore_window=args.ignore_window, confirm=confirm
        ),
    ).run(ctx, args)
