"""Read the CAs of a server, and have K3s store others in the datastore."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from nornir_k3s import k3s, shell
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.records import END, SAY, RecordError, decoded, read

FOLDER = f"{STATE}/new-ca"


def reading(names: Sequence[str]) -> str:
    """Return a script that prints these files of `server/tls`."""
    call = shell.call("read_ca", f"{k3s.DATA}/server/tls", *names)
    return f"set -eu\n{SAY}{shell.source('apply/cluster_ca.sh')}{call}\nsay {END}\n"


def parse(text: str, names: Sequence[str]) -> dict[str, Secret]:
    """Return the files.

    Raises:
        RecordError: One is missing.
    """
    found: dict[str, Secret] = {}
    for record in read(text).get("ca", ()):
        name, content = record.take(2)
        found[name] = Secret(decoded(content))
    if missing := [name for name in names if not found.get(name)]:
        raise RecordError(f"no {', '.join(missing)} in {k3s.DATA}/server/tls")
    return found


def storing(files: Mapping[str, Secret]) -> Step:
    """Return the step that has K3s store these files."""
    lines = [
        shell.call("new_ca_file", FOLDER, name, base64.b64encode(text.reveal().encode()).decode())
        for name, text in files.items()
    ]
    lines.append(shell.call("store_ca", k3s.BINARY, k3s.UNITS["server"], FOLDER, *files))
    text = shell.source("apply/cluster_ca.sh") + "\n".join(lines)
    summary = "store the new CAs in the datastore with `k3s certificate rotate-ca`"
    return Step("certificates", "ca", summary, payload=Secret(text))
