"""The token on the controller, and those of before: a dump can be read with the token of its time only."""

from __future__ import annotations

from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

NAME = "token"  # its file in the state folder


def replace(store: Store, old: Secret, new: Secret) -> str:
    """Save a new token, and keep the old one in a file with its fingerprint, which the names of dumps have, too.

    Returns:
        The name of the file with the old one.
    """
    kept = f"{NAME}-{old.fingerprint()}"
    store.write(kept, old.reveal() + "\n")
    store.write(NAME, new.reveal() + "\n")
    return kept
