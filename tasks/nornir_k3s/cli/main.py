"""Read the command line, and import and run the module of the subcommand that was chosen."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from nornir_k3s.cli import arguments
from nornir_k3s.errors import Interrupted, K3sError


def main(words: Sequence[str] | None = None) -> int:
    """Run `nornir-k3s` and return its exit code.

    Arguments:
        words: The arguments; those of the process by default.
    """
    _open_streams()
    parser = arguments.command()
    words = sys.argv[1:] if words is None else words
    if not words:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(words)
    script = Path(sys.argv[0]).absolute()
    installed = script.name == parser.prog and os.access(script, os.X_OK)
    program = [str(script)] if installed else [sys.executable, "-m", "nornir_k3s.cli"]
    return _run(args, {job: [*program, job] for job in ("drift", "backup")})


def runbook(name: str, folder: Path) -> int:
    """Run `python runbooks/NAME.py`: the subcommand, by default with the config.yaml of the checkout.

    Arguments:
        name: The subcommand.
        folder: The folder of the runbooks.
    """
    _open_streams()
    args = arguments.subcommand(name, config=folder.parent / "config.yaml").parse_args()
    return _run(args, {job: [sys.executable, str(folder / f"{job}.py")] for job in ("drift", "backup")})


def _run(args: argparse.Namespace, jobs: Mapping[str, Sequence[str]]) -> int:
    # Imported modules are no garbage; searching them for some takes as long as connecting to all hosts. `session.run`
    # turns the collector on again.
    gc.disable()
    args.jobs = jobs  # what timers start
    if problem := args.conflict(args):
        args.parser.error(problem)
    try:
        return int(import_module(f"nornir_k3s.cli.{args.subcommand}").run(args))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return Interrupted.exit_code
    except K3sError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _open_streams() -> None:
    """Replace standard streams that the caller has closed: what would be written there is dropped."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the process ends
