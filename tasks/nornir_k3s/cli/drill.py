"""`nornir-k3s drill`: break one thing after the other, repair it, and measure what clients noticed."""

from __future__ import annotations

import argparse

from nornir_k3s.cli import session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.planned import can_ask
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Interrupted, UsageError
from nornir_k3s.model.drill_report import DrillPlan, DrillReport
from nornir_k3s.report import drill_terminal
from nornir_k3s.workflows import drill


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = drill.plan(ctx.nr, **ctx.arguments, only=args.only, skip=args.skip)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    drill_terminal.show_plan(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, make the faults, and write the reports that were asked for, also of a drill that was stopped."""
    if not can_ask(ctx) and not args.yes:
        drill_terminal.show_plan(drill.plan(ctx.nr, **ctx.arguments, only=args.only, skip=args.skip), ctx.err)
        raise UsageError("a drill breaks a running cluster, and there is no terminal to ask on", hint="add --yes")

    def confirm(plan: DrillPlan) -> bool:
        drill_terminal.show_plan(plan, ctx.err)
        return confirmed(lambda: ctx.err.input("begin? [y/N] ", markup=False))

    try:
        report = drill.drill(
            ctx.nr,
            **ctx.arguments,
            only=args.only,
            skip=args.skip,
            confirm=None if args.yes else confirm,
            tell=lambda text: ctx.err.print(text, markup=False, soft_wrap=True),
        )
    except Interrupted as error:
        if isinstance(error.report, DrillReport):
            _write(ctx, args, error.report)
        raise
    _write(ctx, args, report)
    return report.exit_code


def _write(ctx: Session, args: argparse.Namespace, report: DrillReport) -> None:
    if args.json:
        write_text(args.json, report.model_dump_json(indent=2))
    if args.html:
        from nornir_k3s.report.drill_html import page  # noqa: PLC0415 - jinja2, which most drills do not need

        write_text(args.html, page(report))
    if args.svg:
        from nornir_k3s.report.timeline import picture  # noqa: PLC0415 - likewise

        write_text(args.svg, picture(report))
    drill_terminal.show(report, ctx.report_console(args.json))
