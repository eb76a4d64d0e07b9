"""Say what no longer matches the inventory; no host is changed. Exit 0: nothing, 3: drift, 4: a host cannot be read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import Context, main, parser, writable, write_text
from nornir_k3s.model.drift_report import DriftReport
from nornir_k3s.report import drift_terminal
from nornir_k3s.report.history import History
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.drift import drift


def arguments() -> argparse.Namespace:
    """Return what the operator asked for."""
    cli = parser("Say what no longer matches the inventory; no host is changed.")
    cli.add_argument("--limit", metavar="NAMES", default="", help="judge only these hosts or groups (a,b,c)")
    cli.add_argument("--deep", action="store_true", help="hash every large file, also those that look as they did")
    cli.add_argument("--only-new", action="store_true", help="tell only what the run before did not find")
    cli.add_argument("--no-history", action="store_true", help="neither compare with the run before nor keep this one")
    for name, what in (("json", "data"), ("html", "a page"), ("metrics", "a Prometheus textfile")):
        also = " (- = stdout)" if name == "json" else ""
        cli.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"also write it as {what}{also}")
    args = cli.parse_args()
    for name in ("json", "html", "metrics"):
        path = getattr(args, name)
        if not writable(path) or (name != "json" and str(path) == "-"):
            cli.error(f"--{name}: {path} cannot be written")
    if args.only_new and args.no_history:
        cli.error("--only-new and --no-history exclude each other")
    args.names = tuple(word for word in args.limit.replace(" ", ",").split(",") if word)
    if args.limit and not args.names:
        cli.error("--limit names nothing")
    return args


def work(ctx: Context, args: argparse.Namespace) -> int:
    """Check, write the reports that were asked for, and say what was found."""
    if args.only_new:
        ctx.err.quiet = True  # no progress either: whoever mails what is printed wants news only
    choice = Choice(args.names)
    report = drift(ctx.nr, **ctx.arguments, choice=choice, deep=args.deep, history=not args.no_history)
    if args.json:
        write_text(args.json, report.model_dump_json(indent=2))
    if args.html:
        _page(ctx, report, args.html)
    if args.metrics:
        from nornir_k3s.report.prometheus import metrics  # noqa: PLC0415 - who asks for none does not wait for it

        # Whoever collects the metrics is another user, and there is no secret in them.
        write_text(args.metrics, metrics(report).removesuffix("\n"), mode=0o644)
    drift_terminal.show(report, ctx.err if str(args.json) == "-" else ctx.out, only_new=args.only_new)
    return report.exit_code


def _page(ctx: Context, report: DriftReport, path: Path) -> None:
    from nornir_k3s.report.html import page  # noqa: PLC0415 - likewise

    write_text(path, page(report, History(ctx.config.state / report.cluster / "drift").runs(50)))


if __name__ == "__main__":
    args = arguments()
    sys.exit(main(args, lambda ctx: work(ctx, args)))
