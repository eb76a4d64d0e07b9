"""`nornir-k3s completion`: the completion script of a shell."""

from __future__ import annotations

import argparse
import sys

import shtab

from nornir_k3s.cli import arguments


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    parser = arguments.command()
    _complete_paths(parser)
    sys.stdout.write(shtab.complete(parser, args.shell) + "\n")
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Let every option that takes a file or a folder complete paths."""
    for action in parser._actions:  # the only list of them that argparse has
        if isinstance(action.choices, dict):
            for one in action.choices.values():
                _complete_paths(one)
        elif action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # read by shtab
        elif action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # read by shtab
