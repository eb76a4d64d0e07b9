"""`nornir-k3s deploy`: from bare Linux, or only what differs from the inventory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nornir_k3s.cli import plan, session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.planned import can_ask, yes_or_no
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import Declined, K3sError, PreflightFailed, UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.saved_plan import FORMAT, SavedPlan
from nornir_k3s.model.together import hosts_by
from nornir_k3s.report import terminal
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.deploy import deploy, phases


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.list_phases:
        return _list_phases()
    return session.run(args, plan.show if args.plan else _work)


def _list_phases() -> int:
    for phase in phases():
        sys.stdout.write(f"{phase.name:15} {phase.summary}\n")
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Deploy, and show the report, also when it fails."""
    out = ctx.report_console(args.json)
    try:
        plan = _saved(args.apply) if args.apply else None
        report = deploy(ctx.nr, **ctx.arguments, choice=_choice(ctx, args), plan=plan)
    except K3sError as error:
        if error.report:
            _keep(error.report, ctx, args)
            if isinstance(error, Declined):
                pass  # nothing was done
            elif isinstance(error, PreflightFailed) or args.preflight_only:
                if error.report.findings:
                    terminal.show_findings(error.report.findings, out)
                terminal.show_notes(error.report.notes, out)
            else:
                terminal.show(error.report, out)
        raise
    _keep(report, ctx, args)
    if args.preflight_only:
        terminal.show_findings(report.findings, out)
        terminal.show_notes(report.notes, out)
    else:
        terminal.show(report, out)
    return report.exit_code


def _saved(path: Path) -> SavedPlan:
    """Return the plan in a file.

    Raises:
        UsageError: There is none.
    """
    hint = "--apply takes a file that `deploy --plan --out FILE` has written"
    try:
        found = SavedPlan.model_validate_json(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except ValueError:
        raise UsageError(f"{path} is no saved plan", hint=hint) from None
    if found.format != FORMAT:
        raise UsageError(f"{path} has format {found.format}, and this version reads {FORMAT}", hint=hint)
    return found


def _keep(report: Report, ctx: Session, args: argparse.Namespace) -> None:
    report.log = ctx.log
    if args.json is not None:
        write_text(args.json, report.model_dump_json(indent=2))


def _choice(ctx: Session, args: argparse.Namespace) -> Choice:
    until = "preflight" if args.preflight_only else args.until or ""
    confirm = _confirm(ctx) if can_ask(ctx) and not args.yes else None
    return Choice(args.limit, until, args.only or "", confirm, args.skip_unreachable, args.ignore_window, args.trial)


def _confirm(ctx: Session) -> Callable[[Mapping[str, Sequence[str]]], bool]:
    def confirm(changes: Mapping[str, Sequence[str]]) -> bool:
        ctx.err.print("this cluster is running; the deploy would", soft_wrap=True)
        steps = ((name, summary) for name, summaries in changes.items() for summary in summaries)
        for summary, names in hosts_by(steps).items():
            ctx.err.print(f"  {', '.join(names)}: {summary}", soft_wrap=True, markup=False)
        return yes_or_no(ctx.err)

    return confirm
