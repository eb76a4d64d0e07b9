"""The options of the subcommands that change a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from nornir_k3s.cli import options
from nornir_k3s.cli.parser import Parser, names


def deploy(parser: Parser) -> None:
    """Add the options of `deploy`."""
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be changed, with diffs; change nothing")
    options.exit_code(parser)
    options.out(parser)
    parser.add_argument(
        "--apply",
        type=Path,
        metavar="FILE",
        help="carry out exactly the plan that --plan --out has saved",
    )
    parser.add_argument("--preflight-only", action="store_true", help="check every host, report all problems, and stop")
    options.selection(parser)
    parser.add_argument("--list-phases", action="store_true", help="list the phases and exit")
    parser.add_argument("--yes", action="store_true", help="do not ask before a running cluster is changed")
    options.json_file(parser, "the report, or the plan,")


def plan(parser: Parser) -> None:
    """Add the options of `plan`."""
    options.common(parser)
    options.selection(parser)
    options.exit_code(parser)
    options.out(parser)
    options.json_file(parser, "the plan")


def phases_conflict(args: argparse.Namespace) -> str:
    """Return which options of `deploy` and `plan` exclude each other."""
    if args.until and args.only:
        return "--until and --only exclude each other"
    if getattr(args, "preflight_only", False) and (args.until or args.only or args.plan):
        return "--preflight-only excludes --plan, --until and --only"
    if args.exit_code and not getattr(args, "plan", True):
        return "--exit-code needs --plan"
    if args.out and not getattr(args, "plan", True):
        return "--out needs --plan"
    if getattr(args, "apply", None):
        chosen = ("plan", "preflight_only", "limit", "until", "only", "skip_unreachable", "ignore_window", "trial")
        if any(getattr(args, one) for one in chosen):
            return (
                "--apply takes hosts and phases from the plan: of others, only --json, --yes and --verbose go with it"
            )
    return ""


def upgrade(parser: Parser) -> None:
    """Add the options of `upgrade`."""
    options.common(parser)
    parser.add_argument("--to", required=True, metavar="VERSION", help="version at the end: v1.36 or v1.36.3+k3s1")
    parser.add_argument(
        "--via", type=names, default=(), metavar="VERSIONS", help="versions to take on the way (v1.35.7+k3s1,…)"
    )
    parser.add_argument("--plan", action="store_true", help="show the path, node by node; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    parser.add_argument("--write", action="store_true", help="write the new version into the inventory at the end")
    parser.add_argument(
        "--skip-unreachable", action="store_true", help="go on without load balancers that are down; exit code 4"
    )
    options.window(parser)
    options.trial(parser)
    options.json_file(parser, "the report, or the path,")


def remove(parser: Parser) -> None:
    """Add the options of `remove`."""
    parser.add_argument("hosts", nargs="+", metavar="NAME", help="a server, an agent or a load balancer")
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    parser.add_argument(
        "--lost", action="store_true", help="the hosts are dead or gone for good: do everything but their own part"
    )
    parser.add_argument("--write", action="store_true", help="also delete the hosts from the inventory's hosts.yaml")
    options.json_file(parser, "the report, or the plan,")


def reset(parser: Parser) -> None:
    """Add the options of `reset`."""
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking; the datastore stays")
    parser.add_argument(
        "--datastore", default="", metavar="CLUSTER", help="delete the datastore, too: the name of the cluster"
    )
    parser.add_argument(
        "--lost", type=names, default=(), metavar="NAMES", help="hosts that are gone for good: do nothing on them"
    )
    options.json_file(parser, "the report, or the plan,")


def replace(parser: Parser) -> None:
    """Add the options of `replace`."""
    parser.add_argument("host", metavar="NAME", help="a server or an agent of the inventory")
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    options.json_file(parser, "the report, or the plan,")


# What can be rotated, in the order of the help; `workflows/rotate.py` has how.
ROTATED: Mapping[str, str] = {
    "token": "the token of the cluster",
    "agent-token": "the token that lets agents join, which the inventory refers to; with it the token",
    "ca": "the CAs of K3s, then all its certificates",
    "certificates": "all certificates but the CAs: of K3s, a managed datastore and the load balancers' health check",
    "database-password": "the password of the managed datastore",
    "encryption": "the keys with which secrets are encrypted in the datastore",
}


def rotate(parser: Parser) -> None:
    """Add the options of `rotate`."""
    what = "; ".join(f"{name}: {text}" for name, text in ROTATED.items())
    parser.add_argument("what", choices=tuple(ROTATED), metavar="WHAT", help=what)
    options.common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    options.window(parser)
    options.json_file(parser, "the report, or the plan,")
