"""`nornir-k3s upgrade`: over several minor versions, one complete and verified upgrade after the other."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from nornir_k3s import atomic_file
from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.planned import can_ask, yes_or_no
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import K3sError, UsageError
from nornir_k3s.model.upgrade_report import UpgradeReport
from nornir_k3s.report import upgrade_terminal
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows import upgrade


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _plan if args.plan else _work)


def _plan(ctx: Session, args: argparse.Namespace) -> int:
    found = upgrade.plan(ctx.nr, **ctx.arguments, to=args.to, via=args.via)
    if args.trial:
        upgrade.require_return(found)
    _json(args, found)
    upgrade_terminal.show_path(found, ctx.report_console(args.json))
    return 0


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Ask, upgrade, and show how far it came, also when it fails."""
    asks = can_ask(ctx) and not args.yes
    out = ctx.report_console(args.json)

    def confirm(report: UpgradeReport) -> bool:
        upgrade_terminal.show_path(report, ctx.err)
        return yes_or_no(ctx.err)

    try:
        report = upgrade.upgrade(
            ctx.nr,
            **ctx.arguments,
            to=args.to,
            via=args.via,
            choice=Choice(skip_unreachable=args.skip_unreachable, ignore_window=args.ignore_window, trial=args.trial),
            confirm=confirm if asks else None,
            tell=lambda text: ctx.err.print(text, markup=False, soft_wrap=True),
        )
    except K3sError as error:
        if isinstance(error.report, UpgradeReport):
            _json(args, error.report)
            upgrade_terminal.show_end(error.report, out)
        raise
    _inventory(report, write=args.write)
    _json(args, report)
    upgrade_terminal.show_end(report, out)
    return report.exit_code


def _json(args: argparse.Namespace, report: UpgradeReport) -> None:
    if args.json is not None:
        write_text(args.json, report.model_dump_json(indent=2))


def _inventory(report: UpgradeReport, *, write: bool) -> None:
    """Note the line of the inventory to change, or change it; comments stay.

    Raises:
        UsageError: The line cannot be changed.
    """
    if report.to == report.inventory_version or any(step.state != "done" for step in report.steps):
        return
    where = report.inventory_line or "the inventory's k3s_cluster.version"
    if not write:
        report.notes.append(f"write `version: {report.to}` in {where}: the next deploy would refuse to go back")
        return
    path, _, number = where.rpartition(":")
    if not number.isdigit():
        raise UsageError(f"{where} is in no file that can be changed", hint=f"write `version: {report.to}` there")
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    old = lines[int(number) - 1]
    before = re.escape(report.inventory_version)
    new, count = re.subn(rf"(\bversion\b['\"]?\s*:\s*['\"]?){before}", rf"\g<1>{report.to}", old)
    if count != 1:
        raise UsageError(f"{where} does not say `version: {report.inventory_version}`", hint=f"write {report.to} there")
    lines[int(number) - 1] = new
    atomic_file.write(Path(path), "".join(lines), mode=Path(path).stat().st_mode & 0o777)
    report.notes.append(f"{where} says {report.to} now")
