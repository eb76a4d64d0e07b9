"""The password of the managed datastore on the controller, and a rotation of it that has begun there."""

from __future__ import annotations

from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

NAME = "datastore-password"  # its file in the state folder
_BEFORE = f"{NAME}.before"


def replace(store: Store, new: Secret) -> None:
    """Save a new password, which a deploy brings to the servers.

    Raises:
        OSError: The folder cannot be written.
    """
    if old := store.read(NAME):
        known = before(store) | {Secret(old.strip()).fingerprint()}  # of rotations that were interrupted, too
        store.write(_BEFORE, "\n".join(sorted(known)) + "\n")
    store.write(NAME, new.reveal() + "\n")


def before(store: Store) -> set[str]:
    """Return the fingerprints of the passwords that servers may still have while this controller rotates it."""
    return set((store.read(_BEFORE) or "").split())


def end(store: Store) -> None:
    """Note that the rotation has ended: from now on, another password of servers is another controller's."""
    (store.folder / _BEFORE).unlink(missing_ok=True)
