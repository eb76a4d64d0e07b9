"""The keys of a managed datastore: a CA of the cluster's own, and what it has signed.

They are saved 0600 on the controller, and kept on the datastore's hosts, from where another controller takes them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nornir_k3s.errors import UsageError
from nornir_k3s.model.datastore_keys import Keys, Pair
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.certificates import create_ca, has_signed, is_older, issue, matches, signed_at, valid_for
from nornir_k3s.state.store import Store

FILE = "datastore-keys.json"
RENEW_BEFORE = timedelta(days=90)
CLIENT = "k3s"
Signed = tuple[datetime, datetime]
NEVER: Signed = (datetime.min.replace(tzinfo=UTC),) * 2
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


def load(
    store: Store, *, cluster: str, hosts: Mapping[str, Sequence[str]], now: datetime | None = None, since: float = 0
) -> Keys:
    """Return the keys of an earlier run; those that are missing, expire soon or have other names are replaced.

    Arguments:
        store: Where they are saved; new ones are staged for its `commit`.
        cluster: The cluster's name, for the CA's name.
        hosts: Names and addresses that each datastore host is reached by.
        now: The current time by default; another one for tests.
        since: Certificates that were signed earlier are replaced, too, in seconds since the epoch; the CA stays.

    Raises:
        UsageError: The saved file is damaged.
    """
    now = now or datetime.now(UTC)
    kept = store.read(FILE)
    try:
        saved: dict[str, Any] = json.loads(kept) if kept else {}
        ca = saved.get("ca") or create_ca(cluster, now)
        issued = dict(saved.get("issued", {}))
        for name, names in {**hosts, CLIENT: ()}.items():
            text = str((issued.get(name) or {}).get("certificate") or "")
            lasts = text and valid_for(text, RENEW_BEFORE, now) and not is_older(text, since)
            if not (lasts and matches(text, names, ca)):
                issued[name] = issue(name, names, ca, now)
    except _DAMAGED:
        hint = "restore it from a backup; without it the datastore gets a new CA, and every server a new file"
        raise UsageError(f"{store.folder / FILE} is damaged", hint=hint) from None
    issued = {name: issued[name] for name in (*hosts, CLIENT)}
    current = {"ca": ca, "issued": issued}
    whole = Secret(json.dumps(current, sort_keys=True) + "\n")
    if current != saved:
        store.generate(FILE, whole)
    pairs = {name: Pair(pair["certificate"], Secret(pair["key"])) for name, pair in issued.items()}
    return Keys(ca["certificate"], {name: pairs[name] for name in hosts}, pairs[CLIENT], whole)


def signed(text: str) -> Signed | None:
    """Return when the CA, and the newest of its certificates, were signed: later ones replace earlier ones.

    Arguments:
        text: Keys as they are saved.

    Returns:
        None: It is damaged, or a certificate is not of this CA.
    """
    try:
        saved = json.loads(text)
        ca, pairs = saved["ca"], list(saved["issued"].values())
        if not (has_signed(ca, ca) and all(has_signed(ca, pair) for pair in pairs)):
            return None
        return signed_at(ca["certificate"]), max(signed_at(pair["certificate"]) for pair in pairs)
    except _DAMAGED:
        return None


def authority(text: str) -> str:
    """Return the CA's certificate, PEM; nothing if the keys are damaged.

    Arguments:
        text: Keys as they are saved.
    """
    try:
        return str(json.loads(text)["ca"]["certificate"])
    except _DAMAGED:
        return ""


def replaces(found: str, own: str) -> bool:
    """Return whether keys that hosts have replace ours: those of another CA do, which was made when nobody knew theirs.

    Arguments:
        found, own: Keys as they are saved.
    """
    if authority(found) != authority(own):
        return signed(found) is not None
    return (signed(found) or NEVER) > (signed(own) or NEVER)
