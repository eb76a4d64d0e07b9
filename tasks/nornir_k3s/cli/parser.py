"""The parser of the command line, and the types of its arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = "nornir-k3s"


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like all other errors of the tool."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse's own never returns
        """Print what is wrong, and exit with the code for wrong usage."""
        self.exit(2, f"error: {message.removeprefix('argument ')}\n  next: {self.prog} --help\n")


class Version(argparse.Action):
    """Print the version; reading the metadata of the package takes longer than all the rest of `--help`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow

        try:
            found = version(PROGRAM)
        except PackageNotFoundError:
            found = "(not installed)"
        sys.stdout.write(f"{PROGRAM} {found}\n")
        parser.exit()


def names(text: str) -> tuple[str, ...]:
    """Return hosts and groups; an unset variable of a script must not mean "everything"."""
    if found := tuple(text.replace(",", " ").split()):
        return found
    raise argparse.ArgumentTypeError("names no host or group")


def faults(text: str) -> tuple[str, ...]:
    """Return the names of faults."""
    if found := tuple(text.replace(",", " ").split()):
        return found
    raise argparse.ArgumentTypeError("names no fault")


def phase(text: str) -> str:
    """Return the name of a phase, also of one that was written with blanks."""
    if text.strip(" ,"):
        return text.strip().replace(" ", "-")
    raise argparse.ArgumentTypeError("names no phase")


def file(text: str) -> Path:
    """Return a file that can be written: this is found out before the work, not after it."""
    path = Path(text)
    folder = path.absolute().parent
    if text == "-" or not folder.is_dir() or path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written")
    return path


def file_or_stdout(text: str) -> Path:
    """Return a file that can be written; `-` is standard output."""
    return Path("-") if text == "-" else file(text)


def time(text: str) -> int:
    """Return a time in seconds, long enough for K3s to restart in it."""
    from nornir_k3s.model.rolling_update import SHORTEST_TRIAL  # noqa: PLC0415 - loads pydantic, as no help needs
    from nornir_k3s.model.value_types import seconds  # noqa: PLC0415 - loads pydantic, as no help needs

    try:
        found = seconds(int(text) if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found < SHORTEST_TRIAL:
        raise argparse.ArgumentTypeError(f"at least {SHORTEST_TRIAL}s: K3s restarts meanwhile")
    return found


def number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number between two others."""

    def of(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return of
