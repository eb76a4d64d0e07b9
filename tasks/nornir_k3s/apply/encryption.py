"""Scripts that change the keys of secrets on one server, with K3s' own command."""

from __future__ import annotations

from collections.abc import Sequence

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script
from nornir_k3s.model.encryption import DISABLED, DISABLING, FINISHED, PREPARE, ROTATE, ROTATING, START
from nornir_k3s.model.paths import KEYS_NOTE

PATIENCE = 60  # seconds until servers that are ready know each other's keys
REENCRYPTION = 3600  # seconds; K3s writes at least five secrets a second again (docs.k3s.io: cli/secrets-encrypt.md)
_ANY = f"{START} {PREPARE} {ROTATE} {FINISHED}"


def noted(goal: str) -> str:
    """Return the script that notes what is being done; nothing removes the note."""
    return _script("note", [_note(goal)])


def prepare(goal: str) -> str:
    """Return the script that adds a new key, with which nothing is encrypted yet.

    Arguments:
        goal: To be noted first; nothing if there is a note.
    """
    return _script(
        "prepare",
        [
            *([_note(goal)] if goal else []),
            shell.call("require_keys", k3s.DATA),
            _change("prepare", f"{START} {FINISHED}"),
        ],
    )


def rotate() -> str:
    """Return the script that makes the new key the one that encrypts."""
    return _script("rotate", [_change("rotate", PREPARE)])


def reencrypt() -> str:
    """Return the script that encrypts all secrets with the new key, and drops the old one."""
    lines = [_waits(), _change("reencrypt", ROTATE), _waits()]  # that of a run that was killed may still go on
    return _script("reencrypt", [*lines, shell.call("require_stage", k3s.DATA, FINISHED)])


def enable() -> str:
    """Return the script that encrypts again with keys that were turned off; a rotation is to follow, and noted last."""
    return _script("enable", [_change("enable", _ANY), _note(ROTATING)])


def disable() -> str:
    """Return the script that lets new secrets be stored as they are; the keys stay, to read the others."""
    return _script("disable", [_note(DISABLING), _change("disable", _ANY)])


def decrypt() -> str:
    """Return the script that stores all secrets as they are, after `disable` and a restart of each server."""
    change = _change("reencrypt", _ANY, "--force", "--skip")
    return _script("decrypt", [_waits(), change, _waits(), _note(DISABLED)])


def finish(*, match: bool) -> str:
    """Return the script that forgets what was being done.

    Arguments:
        match: Only if all servers have the same keys.
    """
    lines = [shell.call("keys_match", k3s.BINARY, PATIENCE)] if match else []
    return _script("finish", [*lines, _note("")])


def _change(verb: str, stages: str, *options: str) -> str:
    return shell.call("change_keys", k3s.BINARY, k3s.DATA, verb, stages, PATIENCE, *options)


def _waits() -> str:
    return shell.call("wait_for_keys", k3s.BINARY, REENCRYPTION)


def _note(goal: str) -> str:
    return shell.call("note_keys", KEYS_NOTE, goal, k3s.DATA)


def _script(verb: str, lines: Sequence[str]) -> str:
    return script.wrapped(f"encryption:{verb}", "\n".join([shell.source("apply/encryption.sh"), *lines]))
