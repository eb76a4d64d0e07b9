"""`nornir-k3s reset`: take a whole cluster down."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from nornir_k3s.cli import session
from nornir_k3s.cli.planned import Planned, by_name
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.reset import Reset
from nornir_k3s.report import terminal
from nornir_k3s.workflows.reset import plan_reset, reset


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _run)


def _run(ctx: Session, args: argparse.Namespace) -> int:
    """Reset; the datastore only where the option names the cluster, or a person types its name."""
    named = _is_named(ctx, args)

    def plan() -> Reset:
        found = plan_reset(ctx.nr, **ctx.arguments, datastore=named, lost=args.lost)
        found.notes += _timers(found.cluster)
        return found

    def with_datastore(plan: Reset) -> bool:
        if not plan.datastore:
            return False
        terminal.show_datastore(plan, ctx.err)
        return by_name(ctx.err, plan.cluster, to="delete its datastore, too")

    def work(confirm: Callable[[Reset], bool] | None) -> Report:
        datastore = with_datastore if confirm and not named else named
        report = reset(ctx.nr, **ctx.arguments, lost=args.lost, confirm=confirm, datastore=datastore)
        report.notes += _timers(report.cluster)
        return report

    return Planned(plan, terminal.show_reset, work).run(ctx, args)


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
