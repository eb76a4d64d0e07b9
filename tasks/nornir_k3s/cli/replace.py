"""`nornir-k3s replace`: a reinstalled machine takes the place of the node of its name."""

from __future__ import annotations

import argparse
from functools import partial

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned
from nornir_k3s.cli.session import Session
from nornir_k3s.report import terminal
from nornir_k3s.workflows.replace import plan_replacement, replace


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    return Planned(
        plan=lambda: plan_replacement(ctx.nr, args.host, **ctx.arguments),
        show=partial(terminal.show_removal, verb="replace", where="in"),
        work=lambda confirm: replace(ctx.nr, args.host, **ctx.arguments, confirm=confirm),
    ).run(ctx, args)
