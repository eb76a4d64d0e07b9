"""What the state folder knows of backups: the last one, and the last one that was verified."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from nornir_k3s.state.store import Store

_FILE = "backups.json"


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    Arguments:
        created: When, in ISO 8601.
        place: The file, or what the command printed.
    """

    created: str
    place: str

    def age(self, now: datetime) -> float:
        """Return its age in seconds."""
        return (now - datetime.fromisoformat(self.created)).total_seconds()


@dataclass(frozen=True)
class Known:
    """The last backup, and the last one that was verified."""

    last: Made | None = None
    verified: Made | None = None


def known(store: Store) -> Known:
    """Return what is known."""
    found = json.loads(store.read(_FILE) or "{}")
    return Known(**{name: Made(**one) for name, one in found.items() if one})


def save(store: Store, found: Known) -> None:
    """Save it."""
    store.write(_FILE, json.dumps(asdict(found)) + "\n")
