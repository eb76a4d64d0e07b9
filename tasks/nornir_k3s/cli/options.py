"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path

from nornir_k3s.cli.parser import Parser, file_or_stdout, names, phase, time


def common(parser: Parser, *, verbose: bool = True) -> None:
    """Add what every command takes."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration of Nornir and of this tool (default: %(default)s)"
    )
    parser.add_argument(
        "--inventory",
        type=Path,
        metavar="FOLDER",
        help="folder with hosts.yaml, groups.yaml and defaults.yaml (default: as the configuration says)",
    )
    if verbose:
        parser.add_argument("-v", "--verbose", action="store_true", help="also print the result and diff of each host")


def selection(parser: Parser) -> None:
    """Add what chooses hosts and phases."""
    parser.add_argument(
        "--limit", type=names, default=(), metavar="NAMES", help="change only these hosts or groups (a,b,c)"
    )
    parser.add_argument(
        "--skip-unreachable",
        action="store_true",
        help="go on without load balancers that are down, unless one may hold the VIP; exit code 4",
    )
    window(parser)
    trial(parser)
    parser.add_argument("--until", type=phase, metavar="PHASE", help="stop after this phase")
    parser.add_argument(
        "--only",
        type=phase,
        metavar="PHASE",
        help="run only this phase, and those before it that only read",
    )


def trial(parser: Parser) -> None:
    """Add the time of a change on trial."""
    parser.add_argument(
        "--try",
        dest="trial",
        type=time,
        default=0,
        metavar="TIME",
        help="servers and agents roll a change back after this time, such as 5m, unless a new login confirms it",
    )


def exit_code(parser: Parser) -> None:
    """Add the exit code of a plan."""
    parser.add_argument(
        "--exit-code", action="store_true", help="with a plan: end with 3 if something would be changed"
    )


def out(parser: Parser) -> None:
    """Add the file that a plan is saved in."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="with a plan: save it for review; deploy --apply carries it out",
    )


def window(parser: Parser) -> None:
    """Add what ignores the window."""
    parser.add_argument(
        "--ignore-window", action="store_true", help="restart K3s outside rolling_update.window, too; else exit code 7"
    )


def json_file(parser: Parser, what: str) -> None:
    """Add the file for the report as JSON."""
    parser.add_argument(
        "--json", type=file_or_stdout, metavar="FILE", help=f"also write {what} as JSON (- is standard output)"
    )
