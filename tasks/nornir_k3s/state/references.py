"""Secret references: `{env: NAME}`, `{file: PATH}`, `{command: [PROGRAM, ARGUMENT]}`."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nornir_k3s.errors import UsageError
from nornir_k3s.model.secret import Secret

COMMAND_DEADLINE = 60.0


def resolve(reference: Mapping[str, Any], base: Path) -> Secret:
    """Return the secret that a reference names, without the newline at its end.

    Arguments:
        reference: One of the three forms; a command is a list, or a string that is split as a shell would.
        base: What a relative file path is relative to; also the folder a command runs in.

    Raises:
        UsageError: The reference has another form, cannot be read, or is empty.
    """
    if not isinstance(reference, Mapping) or len(reference) != 1:
        raise UsageError("a secret is a reference: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}")
    kind, value = next(iter(reference.items()))
    if not isinstance(value, list if kind == "command" and not isinstance(value, str) else str):
        raise UsageError(f"a secret reference's {kind} must be text" + (" or a list" if kind == "command" else ""))
    match kind:
        case "env":
            text, where = os.environ.get(str(value), ""), f"the environment variable {value}"
        case "file":
            text, where = _read(base, str(value))
        case "command":
            text, where = _run(value, base)
        case _:
            raise UsageError(f"a secret reference cannot be {kind!r}: it is env, file or command")
    text = text.rstrip("\r\n")
    if not text:
        raise UsageError(f"{where} is empty or not set")
    return Secret(text)


def _read(base: Path, name: str) -> tuple[str, str]:
    path = (base / Path(name).expanduser()).resolve()
    try:
        return path.read_text(), f"the file {path}"
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"the file {path} cannot be read: {reason}") from None


def _run(value: str | list[str], base: Path) -> tuple[str, str]:
    try:
        argv = shlex.split(value) if isinstance(value, str) else [str(word) for word in value]
    except ValueError as error:
        raise UsageError(f"a secret's command cannot be split into words: {error}") from None
    if not argv:
        raise UsageError("a secret's command is empty")
    try:
        done = subprocess.run(
            argv,
            cwd=base,
            stdin=subprocess.DEVNULL,  # a program that asks would wait unseen
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise UsageError(f"the secret's command {argv[0]} cannot be run: {_reason(error)}") from None
    if done.returncode != 0:
        # Its output may hold the secret: only its status is shown.
        raise UsageError(f"the secret's command {argv[0]} ended with status {done.returncode}")
    return done.stdout, f"what {argv[0]} printed"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "it cannot be started"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {COMMAND_DEADLINE:.0f} s"
    return "what it prints is not text"
