"""Scripts that stop a server, and put a dump in place of the content of a datastore."""

from __future__ import annotations

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script as apply
from nornir_k3s.model.backup import Manifest
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.paths import STATE

FOLDER = f"{STATE}/restore"  # on the datastore's hosts


def stop(manifest: Manifest, name: str, *, number: str) -> str:
    """Return the script that stops K3s on a server, and puts files aside that do not fit the backup.

    Arguments:
        manifest: Of the backup.
        name: The server's, as the backup has it.
        number: Names what is kept.
    """
    encryption = manifest.part(f"servers/{name}/encryption-config.json")
    known = manifest.part(f"servers/{name}/config.yaml")
    wanted = encryption.sha256 if encryption else ("" if known else "-")
    call = shell.call("stop_server", k3s.UNITS["server"], k3s.DATA, manifest.ca, manifest.token, wanted)
    return _script("stop K3s", "", number, call)


def replace(recipe: Recipe, file: str, *, database: str, number: str) -> str:
    """Return the script that replaces the content of a datastore by a dump; the old one is kept.

    Arguments:
        file: The dump on its host; it is removed.
        database: Of the content.
        number: Names what is kept.
    """
    lines = f"{_room(recipe, database)}{recipe.replace}\nrm -f {shell.quoted(file)}"
    return _script("restore the datastore", file, number, lines)


def verify(recipe: Recipe, file: str, *, database: str) -> str:
    """Return the script that restores a dump into a scratch database, and compares; it fails if they differ."""
    return _script("verify the dump", file, "", _room(recipe, database) + recipe.verify)


def _room(recipe: Recipe, database: str) -> str:
    return f"database={shell.quoted(database)}\n{shell.call('room', recipe.size)}\n"


def _script(step: str, file: str, number: str, lines: str) -> str:
    sources = "".join(shell.source(f"apply/{name}.sh") for name in ("datastore_dump", "restore", "verify"))
    head = f"mkdir -p {FOLDER}\nfile={shell.quoted(file)} number={shell.quoted(number)}\n"
    return apply.wrapped(step, f"{sources}{head}{lines}\n")
