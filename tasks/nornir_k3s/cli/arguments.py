"""The arguments of every subcommand. They import nothing heavy: `--help` must not wait for Nornir."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nornir_k3s.cli.parser import PROGRAM, Parser, Version, faults, file, file_or_stdout, names, number, phase, time

CONFIG = Path("config.yaml")
K3S_VERSION = "v1.34.9+k3s1"  # of the inventory that `init` writes
EXIT_CODES = """\
exit codes:
  0    success, or nothing to do
  1    a host, a check or a phase failed
  2    wrong arguments, config, inventory or artifacts
  3    drift was found; with plan --exit-code: something would be changed
  4    a host is unreachable
  5    another run is in progress on the cluster
  6    declined: the question was answered with no
  7    outside rolling_update.window: K3s restarts on no further node
  130  interrupted
"""


@dataclass(frozen=True)
class Subcommand:
    """A subcommand.

    Arguments:
        summary: One line for `nornir-k3s --help`.
        options: Adds its arguments to a parser.
        more: What its own help says beyond the summary.
        conflict: Returns what is wrong with arguments that are right one by one, or nothing.
    """

    summary: str
    options: Callable[[Parser], None]
    more: str = ""
    conflict: Callable[[argparse.Namespace], str] = lambda _: ""


def command() -> Parser:
    """Return the parser of `nornir-k3s`."""
    parser = Parser(
        prog=PROGRAM,
        description="Deploy highly available K3s clusters from a Nornir inventory, and check them for drift.",
        epilog=f"{EXIT_CODES}\n`{PROGRAM} COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, one in SUBCOMMANDS.items():
        _fill(commands.add_parser(name, help=one.summary, description=_description(one)), name, CONFIG)
    return parser


def subcommand(name: str, config: Path) -> Parser:
    """Return the parser of `python runbooks/NAME.py`."""
    return _fill(Parser(prog=f"{name}.py", description=_description(SUBCOMMANDS[name])), name, config)


def _description(one: Subcommand) -> str:
    summary = one.summary[0].upper() + one.summary[1:] + "."
    return f"{summary}\n\n{one.more}" if one.more else summary


def _fill(parser: Parser, name: str, config: Path) -> Parser:
    one = SUBCOMMANDS[name]
    one.options(parser)
    parser.set_defaults(subcommand=name, parser=parser, conflict=one.conflict)
    for action in parser._actions:  # the only list of them that argparse has
        if action.dest == "config":
            action.default = config
    return parser


def _common(parser: Parser, *, verbose: bool = True) -> None:
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


def _selection(parser: Parser) -> None:
    parser.add_argument(
        "--limit", type=names, default=(), metavar="NAMES", help="change only these hosts or groups (a,b,c)"
    )
    parser.add_argument(
        "--skip-unreachable",
        action="store_true",
        help="go on without load balancers that are down, as without agents, unless one may hold the VIP; exit code 4",
    )
    _window(parser)
    parser.add_argument(
        "--try",
        dest="trial",
        type=time,
        default=0,
        metavar="TIME",
        help="servers and agents take a change back after this time, such as 5m, unless a new login confirms it before",
    )
    parser.add_argument("--until", type=phase, metavar="PHASE", help="stop after this phase")
    parser.add_argument(
        "--only",
        type=phase,
        metavar="PHASE",
        help="run only this phase, and those before it that only read",
    )


def _exit_code(parser: Parser) -> None:
    parser.add_argument(
        "--exit-code", action="store_true", help="with a plan: end with 3 if something would be changed"
    )


def _window(parser: Parser) -> None:
    parser.add_argument(
        "--ignore-window", action="store_true", help="restart K3s outside rolling_update.window, too; else exit code 7"
    )


def _json(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--json", type=file_or_stdout, metavar="FILE", help=f"also write {what} as JSON (- is standard output)"
    )


def _deploy(parser: Parser) -> None:
    _common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be changed, with diffs; change nothing")
    _exit_code(parser)
    parser.add_argument("--preflight-only", action="store_true", help="check every host, report all problems, and stop")
    _selection(parser)
    parser.add_argument("--list-phases", action="store_true", help="list the phases and exit")
    parser.add_argument("--yes", action="store_true", help="do not ask before a running cluster is changed")
    _json(parser, "the report, or the plan,")


def _plan(parser: Parser) -> None:
    _common(parser)
    _selection(parser)
    _exit_code(parser)
    _json(parser, "the plan")


def _phases_conflict(args: argparse.Namespace) -> str:
    if args.until and args.only:
        return "--until and --only exclude each other"
    if getattr(args, "preflight_only", False) and (args.until or args.only or args.plan):
        return "--preflight-only excludes --plan, --until and --only"
    if args.exit_code and not getattr(args, "plan", True):
        return "--exit-code needs --plan"
    return ""


def _upgrade(parser: Parser) -> None:
    _common(parser)
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
    _window(parser)
    _json(parser, "the report, or the path,")


def _status(parser: Parser) -> None:
    _common(parser)
    _json(parser, "the status")


def _drift(parser: Parser) -> None:
    _common(parser)
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
    _json(parser, "the report")
    parser.add_argument("--html", type=file, metavar="FILE", help="also write the report as an HTML page")
    parser.add_argument("--metrics", type=file, metavar="FILE", help="also write metrics as a Prometheus textfile")


def _drift_conflict(args: argparse.Namespace) -> str:
    return "--only-new and --no-history exclude each other" if args.only_new and args.no_history else ""


def _drill(parser: Parser) -> None:
    _common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; contact no host")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    for name, text in (("only", "make only these faults"), ("skip", "leave these faults out")):
        parser.add_argument(
            f"--{name}", type=faults, default=(), metavar="FAULTS", help=f"{text} (server-stop,server-cut:s1)"
        )
    _json(parser, "the report, or the plan,")
    parser.add_argument("--html", type=file, metavar="FILE", help="also write the report as an HTML page")
    parser.add_argument("--svg", type=file, metavar="FILE", help="also write the picture of the timelines alone")


def _drill_conflict(args: argparse.Namespace) -> str:
    return "--plan excludes --html and --svg" if args.plan and (args.html or args.svg) else ""


def _remove(parser: Parser) -> None:
    parser.add_argument("hosts", nargs="+", metavar="NAME", help="a server or an agent")
    _common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    parser.add_argument(
        "--lost", action="store_true", help="the hosts are dead or gone for good: do everything but their own part"
    )
    parser.add_argument("--write", action="store_true", help="also delete the hosts from the inventory's hosts.yaml")
    _json(parser, "the report, or the plan,")


def _replace(parser: Parser) -> None:
    parser.add_argument("host", metavar="NAME", help="a server or an agent of the inventory")
    _common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    _json(parser, "the report, or the plan,")


def _hostkeys(parser: Parser) -> None:
    _common(parser)
    parser.add_argument("--yes", action="store_true", help="add new keys without asking")
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="HOST",
        help="replace the recorded keys of a host that changed",
    )


def _schedule(parser: Parser) -> None:
    _common(parser)
    parser.add_argument(
        "action", choices=("install", "status", "remove", "print"), help="`print` shows the units and writes nothing"
    )
    parser.add_argument(
        "--calendar", default="hourly", metavar="WHEN", help="when, as in systemd.time(7) (default: %(default)s)"
    )
    parser.add_argument(
        "--jitter", type=int, default=300, metavar="SECONDS", help="delay each run by up to this (default: %(default)s)"
    )
    parser.add_argument(
        "--deadline",
        type=int,
        default=300,
        metavar="SECONDS",
        help="stop a run that takes longer (default: %(default)s)",
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


def _schedule_conflict(args: argparse.Namespace) -> str:
    return "--jitter and --deadline are seconds" if args.jitter < 0 or args.deadline < 1 else ""


ONE_HOST: Mapping[str, str] = {
    "cut": "disconnect the network cable of a host",
    "heal": "connect the network cable of a host again",
    "poweroff": "shut a host down and keep its disk",
    "poweron": "boot a host from its disk",
    "reset": "delete the disk of a host and boot it as bare Linux",
}


def _lab(parser: Parser) -> None:
    _common(parser, verbose=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    actions.add_parser("up", help="boot every host that is not running")
    actions.add_parser("status", help="show every host; exit code 1 unless all of them run")
    down = actions.add_parser("down", help="remove all hosts and everything they left on this machine")
    down.add_argument("--image", action="store_true", help="also remove the image of the hosts")
    for name, text in (
        ("ssh", "log in to a host as its user"),
        ("exec", "run a command as root in a host, without SSH"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("host", metavar="HOST")
        action.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    for name, text in ONE_HOST.items():
        actions.add_parser(name, help=text).add_argument("host", metavar="HOST")


DATASTORES: Sequence[str] = ("mariadb", "mysql", "postgresql", "etcd")


def _init(parser: Parser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="a new or empty folder (default: the current one)",
    )
    parser.add_argument("--name", default="prod", help="name of the cluster (default: %(default)s)")
    for name, least, default in (("servers", 1, 3), ("agents", 0, 2)):
        parser.add_argument(
            f"--{name}",
            type=number(least, 100),
            default=default,
            metavar="N",
            help=f"number of {name} (default: %(default)s)",
        )
    parser.add_argument(
        "--load-balancers",
        type=number(0, 100),
        default=2,
        metavar="N",
        help="number of load balancers; 0: you run your own (default: %(default)s)",
    )
    parser.add_argument(
        "--datastore", choices=DATASTORES, default="mariadb", help="datastore to set up (default: %(default)s)"
    )
    parser.add_argument(
        "--address",
        default="192.0.2.10",
        metavar="VIP",
        help="virtual IP address of the cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--k3s-version", default=K3S_VERSION, metavar="VERSION", help="K3s release (default: %(default)s)"
    )
    parser.add_argument("--user", default="root", help="SSH user: root, or one with sudo (default: %(default)s)")


def _completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "init": Subcommand(
        "write a configuration and an inventory to start from",
        _init,
        more="It never overwrites a file. The addresses it writes are placeholders: replace them with yours.",
    ),
    "hostkeys": Subcommand("collect the SSH host keys and add new ones to known_hosts", _hostkeys),
    "plan": Subcommand(
        "show what a deploy would change; change nothing",
        _plan,
        more="Exit code 0, also if something would be changed; with --exit-code 3 if something would be.",
        conflict=_phases_conflict,
    ),
    "deploy": Subcommand(
        "deploy the cluster, or change what differs from the inventory", _deploy, conflict=_phases_conflict
    ),
    "upgrade": Subcommand(
        "upgrade K3s over one or several minor versions, each verified before the next one",
        _upgrade,
        more="It stops at the first step that fails, and says where the cluster stands. docs/upgrade.md has more.",
        conflict=lambda args: "--plan excludes --write" if args.plan and args.write else "",
    ),
    "status": Subcommand(
        "show nodes, VIP, datastore and certificates; change nothing",
        _status,
        more="Exit code 1: something is wrong; 4: a host is unreachable.",
    ),
    "drift": Subcommand(
        "report what no longer matches the inventory; change nothing",
        _drift,
        more="Exit code 0: no drift; 3: drift; 4: a host could not be read; 5: a deploy is in progress.",
        conflict=_drift_conflict,
    ),
    "drill": Subcommand(
        "break one thing after the other in a healthy cluster, put it back, and measure what that cost",
        _drill,
        more="It asks before it begins. Exit code 1: a limit was broken, or the cluster is not healthy.",
        conflict=_drill_conflict,
    ),
    "remove": Subcommand(
        "take servers or agents out of the cluster, and K3s off them",
        _remove,
        more="Drained, out of every load balancer, K3s uninstalled, node and database user deleted. It asks once.",
        conflict=lambda args: "--plan excludes --write" if args.plan and args.write else "",
    ),
    "replace": Subcommand(
        "let a machine that was installed anew take the place of its node",
        _replace,
        more="The node and its password are deleted, then everything is deployed. It asks once.",
    ),
    "schedule": Subcommand(
        "run drift checks from a systemd timer on this machine", _schedule, conflict=_schedule_conflict
    ),
    "lab": Subcommand("boot the hosts of an inventory on this machine, for tests", _lab, more="It needs root."),
    "completion": Subcommand(
        "print a completion script for your shell",
        _completion,
        more=f"bash: {PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}\n"
        f"zsh:  {PROGRAM} completion zsh > DIRECTORY_IN_FPATH/_{PROGRAM}",
    ),
}
