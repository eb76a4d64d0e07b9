"""`nornir-k3s drift`: what no longer matches the inventory. Nothing that it imports can write on a host."""

from __future__ import annotations

import argparse
from pathlib import Path

from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.model.drift_report import DriftReport
from nornir_k3s.report import drift_terminal
from nornir_k3s.report.history import History
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.drift import drift


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _work)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Check, write the reports that were asked for, and print what was found."""
    if args.only_new:
        ctx.err.quiet = True  # no progress either: whoever mails what is printed wants news only
    choice = Choice(args.limit)
    report = drift(ctx.nr, **ctx.arguments, choice=choice, deep=args.deep, history=not args.no_history)
    if args.json:
        write_text(args.json, report.model_dump_json(indent=2))
    if args.html:
        _write_page(ctx, report, args.html)
    if args.metrics:
        _write_metrics(report, args.metrics)
    drift_terminal.show(report, ctx.report_console(args.json), only_new=args.only_new)
    return report.exit_code


def _write_page(ctx: Session, report: DriftReport, path: Path) -> None:
    from nornir_k3s.report.html import page  # noqa: PLC0415 - jinja2, which most checks do not need

    write_text(path, page(report, History(ctx.config.state / report.cluster / "drift").runs(50)))


def _write_metrics(report: DriftReport, path: Path) -> None:
    from nornir_k3s.report.prometheus import metrics  # noqa: PLC0415 - likewise

    # Whoever collects the metrics is another user, and there is no secret in them.
    write_text(path, metrics(report).removesuffix("\n"), mode=0o644)
