"""The options of the subcommands that look at a cluster, by hand or from a timer, and of the drill."""

from __future__ import annotations

import argparse
from pathlib import Path

from nornir_k3s.cli import options
from nornir_k3s.cli.parser import Parser, faults, file, names


def status(parser: Parser) -> None:
    """Add the options of `status`."""
    options.common(parser)
    options.json_file(parser, "the status")


def drift(parser: Parser) -> None:
    """Add the options of `drift`."""
    options.common(parser)
    parser.add_argument(
        "--limit", type=names, default=(), metavar="NAMES", help="compare only these hosts or groups (a,b,c)"
    )
    parser.add_argument("--deep", action="store_true", help="hash every large file, even if it looks unchanged")
    parser.add_argument(
        "--only-new", action="store_true", help="report only what is new since the previous run, or worse, or different"
    )
    parser.add_argument(
        "--no-history", action="store_true", help="do not compare with the previous run, and do not record this one"
    )
    options.json_file(parser, "the report")
    parser.add_argument("--html", type=file, metavar="FILE", help="also write the report as an HTML page")
    parser.add_argument("--metrics", type=file, metavar="FILE", help="also write metrics as a Prometheus textfile")


def drift_conflict(args: argparse.Namespace) -> str:
    """Return which options of `drift` exclude each other."""
    return "--only-new and --no-history exclude each other" if args.only_new and args.no_history else ""


def drill(parser: Parser) -> None:
    """Add the options of `drill`."""
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; contact no host")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    for name, text in (("only", "make only these faults"), ("skip", "leave these faults out")):
        parser.add_argument(
            f"--{name}", type=faults, default=(), metavar="FAULTS", help=f"{text} (server-stop,server-cut:s1)"
        )
    options.json_file(parser, "the report, or the plan,")
    parser.add_argument("--html", type=file, metavar="FILE", help="also write the report as an HTML page")
    parser.add_argument("--svg", type=file, metavar="FILE", help="also write the picture of the timelines alone")


def drill_conflict(args: argparse.Namespace) -> str:
    """Return which options of `drill` exclude each other."""
    return "--plan excludes --html and --svg" if args.plan and (args.html or args.svg) else ""


def schedule(parser: Parser) -> None:
    """Add the options of `schedule`."""
    options.common(parser)
    parser.add_argument(
        "action", choices=("install", "status", "remove", "print"), help="`print` shows the units and writes nothing"
    )
    parser.add_argument(
        "--job", choices=("drift", "backup"), default="drift", help="what it runs; each has a timer (default: drift)"
    )
    parser.add_argument(
        "--calendar", metavar="WHEN", help="when, as in systemd.time(7) (default: hourly; backups: daily)"
    )
    parser.add_argument(
        "--jitter", type=int, default=300, metavar="SECONDS", help="delay each run by up to this (default: %(default)s)"
    )
    parser.add_argument(
        "--deadline",
        type=int,
        metavar="SECONDS",
        help="stop a run that takes longer (default: 300; backups: 7200)",
    )
    parser.add_argument("--user", action="store_true", help="use your own systemd manager, even as root")
    parser.add_argument(
        "--run-as",
        default="",
        metavar="USER",
        help="as root: the user who runs the checks (default: owner of the state)",
    )
    parser.add_argument(
        "--on-failure", default="", metavar="UNIT", help="unit to start when a run fails; drift is not a failure"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page in each run")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="write metrics for Prometheus in each run")


def schedule_conflict(args: argparse.Namespace) -> str:
    """Return which options of `schedule` are out of range."""
    if args.job == "backup" and (args.html or args.metrics):
        return "--html and --metrics are of drift checks"
    wrong = args.jitter < 0 or (args.deadline is not None and args.deadline < 1)
    return "--jitter and --deadline are seconds" if wrong else ""
