"""The options of the subcommands that save, restore and move a cluster's data."""

from __future__ import annotations

from pathlib import Path

from nornir_k3s.cli.options import common, json_file, window
from nornir_k3s.cli.parser import Parser, number


def backup(parser: Parser) -> None:
    """Add the options of `backup`."""
    common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; contact no host")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write the file there (default: as config.yaml says)")
    parser.add_argument(
        "--command", default="", metavar="COMMAND", help="pass the file to this command's standard input instead"
    )
    parser.add_argument(
        "--keep", type=number(1, 100_000), metavar="N", help="newest backups that stay in the folder (default: 14)"
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="encrypt for the key of this certificate (PEM, RSA or EC)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="restore the dump into a scratch database of its host, and compare"
    )
    json_file(parser, "the report, or the plan,")


def restore(parser: Parser) -> None:
    """Add the options of `restore`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that `backup` has written")
    common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="private key of an encrypted backup, PEM without a passphrase"
    )
    parser.add_argument(
        "--lost",
        action="append",
        default=[],
        metavar="NAME",
        help="a server that is not in the inventory any more, and is dead or gone for good",
    )
    json_file(parser, "the report, or the plan,")


def move(parser: Parser) -> None:
    """Add the options of `move`."""
    common(parser)
    parser.add_argument("--plan", action="store_true", help="show what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    parser.add_argument(
        "--back", action="store_true", help="start K3s again as it was before a move that was interrupted"
    )
    window(parser)
    json_file(parser, "the report, or the plan,")
