"""The command lines that run a script, or write a file, as root on a host: they contain no secret and no script."""

from __future__ import annotations

import functools
import math
import re
import shlex
from pathlib import Path

from nornir_k3s.model.secret import Secret

# Exit statuses and words of as_root.sh and put.sh.
SUDO_REFUSED = 77
SUDO_SAID = "nornir-k3s: sudo: "
DAMAGED = 76
# Printed on both streams when the shell has read the whole script: a login's or sudo's own output comes before it.
BEGIN = "nornir-k3s: begin"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_command(deadline: float) -> str:
    """Return the command line that runs a script from stdin; the host itself ends it at the deadline."""
    return _as_root([*_timeout(deadline), "/bin/sh", "-s"])


def put_command(target: str, *, sha256: str, mode: int, deadline: float) -> str:
    """Return the command line that writes a file from stdin; it gets its name after it is verified."""
    return _as_root([*_timeout(deadline), "/bin/sh", "-c", _snippet("put.sh"), "put", target, sha256, f"{mode:04o}"])


def open_command(script: str, *arguments: object) -> str:
    """Return the command line that runs a script whose stdin stays open; no deadline ends it.

    Arguments:
        script: Each of its lines must be complete when joined to the next one by `;`, or end with a backslash.
    """
    return _as_root(["/bin/sh", "-c", _one_line(script), "nornir-k3s", *map(str, arguments)])


def _timeout(deadline: float) -> list[str]:
    return ["timeout", "-k", "5", str(max(1, math.ceil(deadline)))]


def _as_root(argv: list[str]) -> str:
    return shlex.join(["/bin/sh", "-c", _snippet("as_root.sh"), "nornir-k3s", _snippet("skip_password.sh"), *argv])


@functools.cache
def _snippet(name: str) -> str:
    """Return a shell file beside this module as one line."""
    return _one_line((Path(__file__).parent / name).read_text())


def _one_line(script: str) -> str:
    """Return a script as one line: csh, which may be the login shell, takes no other."""
    text = re.sub(r"\\\n\s*", "", script)
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("#"))


def password_line(password: Secret) -> bytes:
    """Return the first line of stdin."""
    return password.reveal().encode() + b"\n"


def wrap(script: str) -> str:
    """Return a script that the shell reads to its end before the first command runs; commands get an empty stdin."""
    settings = f"export LC_ALL=C PATH={_PATH}; umask 077"
    begin = f'printf "{BEGIN}\\n"; printf "{BEGIN}\\n" >&2'
    return f"{settings}\nmain() {{\n{begin}\n{script}\n}}\nmain </dev/null\n"


def why_sudo_refused(stderr: str) -> str:
    """Return in words why sudo refused."""
    said = stderr.rpartition(SUDO_SAID)[2].strip()
    for words, reason in (
        ("a password is required", "it asks for a password, and none is set"),
        ("incorrect password", "the password is wrong"),
        ("not found", "there is no sudo on the host"),
        ("must have a tty", "it requires a terminal (`requiretty` in sudoers)"),
        ("not in the sudoers", "the user is not in sudoers"),
        ("may not run sudo", "sudoers does not allow the user this"),
        ("not allowed to", "sudoers does not allow the user every command"),
        ("account validation failure", "the user's account is locked or has expired"),
    ):
        if words in said:
            return reason
    return said.splitlines()[-1].strip() if said else "no reason given"
