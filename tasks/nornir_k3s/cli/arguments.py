"""The subcommands and their parsers. They import nothing heavy: `--help` must not wait for Nornir."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nornir_k3s.cli import options_of_changes as changes
from nornir_k3s.cli import options_of_checks as checks
from nornir_k3s.cli import options_of_data as data
from nornir_k3s.cli import options_of_setup as setup
from nornir_k3s.cli.parser import PROGRAM, Parser, Version

CONFIG = Path("config.yaml")
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


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "init": Subcommand(
        "write a configuration and an inventory to start from",
        setup.init,
        more="It never overwrites a file. The addresses it writes are placeholders: replace them with yours.",
    ),
    "adopt": Subcommand(
        "write the inventory of an existing cluster, from what runs on its hosts",
        setup.adopt,
        more="No host is changed. Secrets go to the state folder, never into the inventory. docs/adopt.md has more.",
    ),
    "hostkeys": Subcommand("collect the SSH host keys and add new ones to known_hosts", setup.hostkeys),
    "plan": Subcommand(
        "show what a deploy would change; change nothing",
        changes.plan,
        more="Exit code 0, also if something would be changed; with --exit-code 3 if something would be.",
        conflict=changes.phases_conflict,
    ),
    "deploy": Subcommand(
        "deploy the cluster, or change what differs from the inventory",
        changes.deploy,
        conflict=changes.phases_conflict,
    ),
    "upgrade": Subcommand(
        "upgrade K3s over one or several minor versions, each verified before the next one",
        changes.upgrade,
        more="It stops at the first step that fails, and says which versions the nodes run. docs/upgrade.md has more.",
        conflict=lambda args: "--plan excludes --write" if args.plan and args.write else "",
    ),
    "status": Subcommand(
        "show nodes, VIP, datastore and certificates; change nothing",
        checks.status,
        more="Exit code 1: something is wrong; 4: a host is unreachable.",
    ),
    "drift": Subcommand(
        "report what no longer matches the inventory; change nothing",
        checks.drift,
        more="Exit code 0: no drift; 3: drift; 4: a host could not be read; 5: a deploy is in progress.",
        conflict=checks.drift_conflict,
    ),
    "drill": Subcommand(
        "break one thing after the other in a healthy cluster, repair it, and measure what clients noticed",
        checks.drill,
        more="It asks before it begins. Exit code 1: a limit was broken, or the cluster is not healthy.",
        conflict=checks.drill_conflict,
    ),
    "remove": Subcommand(
        "take servers, agents or load balancers out of the cluster",
        changes.remove,
        more="Drained, out of every load balancer, K3s uninstalled, node and database user deleted. It asks once.",
        conflict=lambda args: "--plan excludes --write" if args.plan and args.write else "",
    ),
    "replace": Subcommand(
        "let a reinstalled machine take the place of its node",
        changes.replace,
        more="The node and its password are deleted, then everything is deployed. It asks once.",
    ),
    "reset": Subcommand(
        "take a whole cluster down: every host becomes what it was before",
        changes.reset,
        more="K3s, HAProxy, keepalived and this tool's files go, and what was there before comes back. It asks once,"
        " and separately for the datastore, by the cluster's name. A run that was killed is finished by the next one.",
    ),
    "rotate": Subcommand(
        "give a running cluster a new secret in place of an old one",
        changes.rotate,
        more="It asks once. K3s restarts on one server at a time. A run that was killed is finished by the next one.",
    ),
    "backup": Subcommand(
        "back the cluster up: the datastore's dump, tokens and settings in one file",
        data.backup,
        more="Nothing restarts. `nornir-k3s schedule install --job backup` runs it from a timer.",
        conflict=lambda args: "--to and --command exclude each other" if args.to and args.command else "",
    ),
    "restore": Subcommand(
        "bring the whole cluster back from a backup, onto the same hosts or new ones",
        data.restore,
        more="All servers stop; the data there are kept aside. It asks for the cluster's name, or needs --yes.",
    ),
    "move": Subcommand(
        "move the data to the datastore that the inventory describes, then deploy",
        data.move,
        more="From SQLite or another datastore. K3s is stopped on all servers while it is copied. It asks once.",
        conflict=lambda args: "--plan excludes --back" if args.plan and args.back else "",
    ),
    "schedule": Subcommand(
        "run drift checks, or backups, from a systemd timer on this machine",
        checks.schedule,
        conflict=checks.schedule_conflict,
    ),
    "lab": Subcommand("boot the hosts of an inventory on this machine, for tests", setup.lab, more="It needs root."),
    "completion": Subcommand(
        "print a completion script for your shell",
        setup.completion,
        more=f"bash: {PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}\n"
        f"zsh:  {PROGRAM} completion zsh > DIRECTORY_IN_FPATH/_{PROGRAM}",
    ),
}
