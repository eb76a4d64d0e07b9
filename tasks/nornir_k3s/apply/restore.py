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


def replace(recipe: Recipe, file: str, *, number: str) -> str:
    """Return the script that replaces the content of a datastore by a dump; the old one is kept."""
    return _script("restore the datastore", file, number, f"{recipe.replace}\nrm -f {shell.quoted(file)}")


def _script(step: str, file: str, number: str, lines: str) -> str:
    head = f"mkdir -p {FOLDER}\nfile={shell.quoted(file)} number={shell.quoted(number)}\n"
    return apply.wrapped(step, f"{shell.source('apply/restore.sh')}{head}{lines}\n")
