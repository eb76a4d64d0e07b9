"""Scripts of a move to another datastore: stop K3s, go on, go back, and read files of a server in pieces."""

from __future__ import annotations

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script
from nornir_k3s.model.paths import MOVED, MOVING
from nornir_k3s.records import END, SAY

PIECE = 16  # MiB, which is more than most databases of one server have


def stop() -> str:
    """Return the script that stops K3s on a server until the move has ended."""
    return _script("stopping K3s", shell.call("stop_for_move", k3s.UNITS["server"], k3s.CONFIG, MOVING, MOVED))


def end() -> str:
    """Return the script that lets K3s start again, on the new datastore."""
    return _script("ending the move", shell.call("end_move", MOVING))


def back() -> str:
    """Return the script that starts K3s again as it was before."""
    return _script("going back", shell.call("take_move_back", k3s.UNITS["server"], MOVING, MOVED))


def newest() -> str:
    """Return the script that prints `newest` and the revision that the server's API tells, if it answers."""
    return _reading(shell.call("newest_revision"))


def sizes(*paths: str) -> str:
    """Return the script that prints `size`, the path, its size in bytes and its SHA-256 of the files that exist."""
    return _reading(shell.call("size_of", *paths))


def piece(path: str, number: int) -> str:
    """Return the script that prints `piece` and the piece of this number of a file, base64-encoded."""
    return _reading(shell.call("piece_of", path, number * PIECE, PIECE))


def _script(what: str, call: str) -> str:
    return script.wrapped(what, shell.source("apply/moving.sh") + call)


def _reading(call: str) -> str:
    return f"{SAY}{shell.source('apply/moving.sh')}{call}\nsay {END}\n"
