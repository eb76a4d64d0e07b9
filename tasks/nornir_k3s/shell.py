"""Shell for hosts: scripts are files of this package, their arguments are quoted here."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


@cache
def source(name: str) -> str:
    """Return the text of a script of this package, by its path below it, as `facts/files.sh`."""
    return (_PACKAGE / name).read_text()


def quoted(word: str) -> str:
    """Return a word as a shell reads it."""
    return shlex.quote(word)


def call(function: str, *arguments: object) -> str:
    """Return the line that calls a shell function; arguments of functions are in no process list."""
    return shlex.join([function, *map(str, arguments)])
