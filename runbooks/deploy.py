"""Deploy the cluster of an inventory: from bare Linux, or just what is not as it should be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common import Context, keep_report, main, parser, writable, write_text
from nornir_k3s.errors import K3sError, PreflightFailed
from nornir_k3s.report import terminal
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.deploy import deploy, phases
from nornir_k3s.workflows.plan import plan


def arguments() -> argparse.Namespace:
    """Return what the operator asked for."""
    cli = parser("Deploy a highly available K3s cluster from the inventory.")
    cli.add_argument("--plan", action="store_true", help="say what would be done, with diffs, and change nothing")
    cli.add_argument("--preflight-only", action="store_true", help="look at every host, say what is wrong, and stop")
    cli.add_argument("--limit", metavar="NAMES", help="change only these hosts or groups (a,b,c)")
    cli.add_argument("--until", metavar="PHASE", help="stop after this phase")
    cli.add_argument("--only", metavar="PHASE", help="only this phase, after those that just look")
    cli.add_argument("--list-phases", action="store_true", help="say what the phases are, and stop")
    cli.add_argument("--yes", action="store_true", help="no question before a running cluster is changed")
    cli.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the report, or the plan, as data (- = stdout)"
    )
    args = cli.parse_args()
    if not writable(args.json):
        cli.error(f"--json: {args.json} cannot be written")
    for name in ("limit", "until", "only"):
        value = getattr(args, name)
        if value is not None and not value.strip(" ,"):  # an unset variable of a script must not mean "everything"
            cli.error(f"--{name} names nothing")
        setattr(args, name, value or "")
    if args.until and args.only:
        cli.error("--until and --only exclude each other")
    if args.preflight_only and (args.until or args.only or args.plan):
        cli.error("--preflight-only excludes --plan, --until and --only")
    return args


def choice(ctx: Context, args: argparse.Namespace) -> Choice:
    """Return the part of the deploy that was asked for."""
    limit = tuple(word for word in args.limit.replace(" ", ",").split(",") if word)
    until = "preflight" if args.preflight_only else args.until.replace(" ", "-")
    asks = sys.stdin.isatty() and ctx.err.is_terminal and not args.yes
    return Choice(limit, until, args.only.replace(" ", "-"), _asker(ctx) if asks else None)


def _asker(ctx: Context) -> Callable[[Mapping[str, Sequence[str]]], bool]:
    def confirm(changes: Mapping[str, Sequence[str]]) -> bool:
        ctx.err.print("this cluster is running; the deploy would", soft_wrap=True)
        for name, summaries in changes.items():
            for summary in summaries:
                ctx.err.print(f"  {name}: {summary}", soft_wrap=True, markup=False)
        return ctx.err.input("go on? [y/N] ", markup=False).strip().lower() in ("y", "yes")

    return confirm


def work(ctx: Context, args: argparse.Namespace) -> int:
    """Run the chain and show its report, also when it ends badly."""
    out = ctx.err if str(args.json) == "-" else ctx.out
    try:
        report = deploy(ctx.nr, **ctx.arguments, choice=choice(ctx, args))
    except K3sError as error:
        if error.report:
            keep_report(error.report, ctx.log, args.json)
            if isinstance(error, PreflightFailed):
                terminal.show_findings(error.report.findings, out)
            else:
                terminal.show(error.report, out)
        raise
    keep_report(report, ctx.log, args.json)
    if args.preflight_only:
        terminal.show_findings(report.findings, out)
    else:
        terminal.show(report, out)
    return 0


def show(ctx: Context, args: argparse.Namespace) -> int:
    """Show what the chain would do; nothing is changed."""
    out = ctx.err if str(args.json) == "-" else ctx.out
    found = plan(ctx.nr, **ctx.arguments, choice=choice(ctx, args))
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    terminal.show_plan(found, out)
    return 0


def list_phases() -> int:
    """Print the phases in their order."""
    for phase in phases():
        sys.stdout.write(f"{phase.name:15} {phase.summary}\n")
    return 0


if __name__ == "__main__":
    args = arguments()
    if args.list_phases:
        sys.exit(list_phases())
    sys.exit(main(args, lambda ctx: (show if args.plan else work)(ctx, args)))
