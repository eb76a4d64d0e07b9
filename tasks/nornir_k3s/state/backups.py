"""What the state folder knows of backups: the last one, and the last one that was verified."""

from __future__ import annotations

from datetime import datetime

from nornir_k3s.model.backup import LastBackups
from nornir_k3s.state.store import Store

_FILE = "backups.json"


def last(store: Store) -> LastBackups:
    """Return what is known."""
    return LastBackups.model_validate_json(store.read(_FILE) or "{}")


def save(store: Store, made: datetime, place: str, *, verified: bool, unverified: str = "") -> None:
    """Save that a backup was made.

    Arguments:
        unverified: Why it was not verified, where that was wanted.
    """
    before = made if verified else last(store).verified
    known = LastBackups(made=made, verified=before, place=place, unverified=unverified)
    store.write(_FILE, known.model_dump_json() + "\n")
