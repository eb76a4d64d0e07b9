"""A restore that has begun: the next run of the same file finishes it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field

from nornir_k3s.state.store import Store

FILE = "restore.json"


@dataclass(frozen=True)
class Restoring:
    """What is known of it.

    Arguments:
        sha256: Of the manifest: which backup it is.
        number: Names what is kept aside.
        above: The highest revision that clients have seen: those after the restore are higher. 0 if unknown.
        replaced: The datastore has the backup's data, and servers may have been started with them.
        anew: Servers and agents that were bare when it began: their nodes have other passwords in the backup.
    """

    sha256: str
    number: str = field(default_factory=lambda: secrets.token_hex(4))
    above: int = 0
    replaced: bool = False
    anew: tuple[str, ...] = ()


def load(store: Store) -> Restoring | None:
    """Return the restore that was not finished, if any."""
    text = store.read(FILE)
    if not text:
        return None
    found = json.loads(text)
    return Restoring(**{**found, "anew": tuple(found["anew"])})


def save(store: Store, found: Restoring | None) -> None:
    """Save it; None: it is finished."""
    if found is None:
        (store.folder / FILE).unlink(missing_ok=True)
    else:
        store.write(FILE, json.dumps(asdict(found)) + "\n")
