"""The options of the subcommands that come before a cluster: its folder, its host keys, its lab."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from nornir_k3s.cli import options
from nornir_k3s.cli.parser import Parser, number

K3S_VERSION = "v1.34.9+k3s1"  # of the inventory that `init` writes
DATASTORES: Sequence[str] = ("mariadb", "mysql", "postgresql", "etcd")


def init(parser: Parser) -> None:
    """Add the options of `init`."""
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


def adopt(parser: Parser) -> None:
    """Add the options of `adopt`."""
    parser.add_argument(
        "hosts",
        nargs="*",
        metavar="HOST",
        help="[USER@]ADDRESS[:PORT], or names of the inventory (default: all of its hosts)",
    )
    options.common(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write config.yaml and inventory/ there (default: beside --config)"
    )
    parser.add_argument("--plan", action="store_true", help="show what was found and would be written; write nothing")
    parser.add_argument("--force", action="store_true", help="replace files that are there; copies of them are kept")
    parser.add_argument("--name", metavar="NAME", help="name of the cluster (default: the inventory's, or k3s)")
    parser.add_argument(
        "--artifacts", type=Path, metavar="FOLDER", help="folder with the release of K3s, for hosts without Internet"
    )
    login = parser.add_argument_group("login to hosts that are given by their addresses")
    login.add_argument("--user", default="root", help="SSH user: root, or one with sudo (default: %(default)s)")
    login.add_argument("--key-file", type=Path, metavar="FILE", help="SSH key (default: agent and ssh_config)")
    login.add_argument("--known-hosts", type=Path, metavar="FILE", help="host keys (default: ~/.ssh/known_hosts)")
    login.add_argument("--sudo-password-env", metavar="NAME", help="environment variable with the password for sudo")
    options.json_file(parser, "what was found")


def hostkeys(parser: Parser) -> None:
    """Add the options of `hostkeys`."""
    options.common(parser)
    parser.add_argument("--yes", action="store_true", help="add new keys without asking")
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="HOST",
        help="replace the recorded keys of a host that changed",
    )


ONE_HOST: Mapping[str, str] = {
    "cut": "disconnect the network cable of a host",
    "heal": "connect the network cable of a host again",
    "poweroff": "shut a host down and keep its disk",
    "poweron": "boot a host from its disk",
    "reset": "delete the disk of a host and boot it as bare Linux",
}


def lab(parser: Parser) -> None:
    """Add the actions of `lab`."""
    options.common(parser, verbose=False)
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


def completion(parser: Parser) -> None:
    """Add the shells of `completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
