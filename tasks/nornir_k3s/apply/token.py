"""Scripts that rotate the token on one server, and read the one that it has (docs.k3s.io `cli/token.md`)."""

from __future__ import annotations

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script
from nornir_k3s.model.secret import Secret
from nornir_k3s.records import END, SAY, RecordError, decoded, read

_FOLDER = f"{k3s.DATA}/server"


def rotate(url: str, old: Secret) -> Secret:
    """Return the script that has K3s make up a new token, and prints it.

    Arguments:
        url: The server's own.
        old: The token that the running process has, in its full form.
    """
    call = shell.call("rotate_token", k3s.BINARY, url, old.reveal(), _FOLDER)
    return Secret(script.wrapped("token", shell.source("apply/token.sh") + call))


def show() -> str:
    """Return the script that prints the token of a server; it changes nothing."""
    return SAY + shell.source("apply/token.sh") + shell.call("say_token", _FOLDER) + f"\nsay {END}\n"


def parse(text: str) -> Secret:
    """Return the token.

    Raises:
        RecordError: There is none.
    """
    found = decoded(read(text)["token"][-1].take(1)[0]).strip() if "token" in read(text) else ""
    if not found:
        raise RecordError("the script prints no token")
    return Secret(found)
