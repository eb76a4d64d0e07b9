"""The keys of a managed datastore: a CA of the cluster's own, and what it has signed, saved 0600 on the controller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nornir_k3s.errors import UsageError
from nornir_k3s.model.datastore_keys import Keys, Pair
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.certificates import create_ca, issue, matches, valid_for
from nornir_k3s.state.store import Store

FILE = "datastore-keys.json"
RENEW_BEFORE = timedelta(days=90)
CLIENT = "k3s"


def load(store: Store, *, cluster: str, hosts: Mapping[str, Sequence[str]], now: datetime | None = None) -> Keys:
    """Return the keys of an earlier run; those that are missing, expire soon or have other names are replaced.

    Arguments:
        store: Where they are saved; new ones are staged for its `commit`.
        cluster: The cluster's name, for the CA's name.
        hosts: Names and addresses that each datastore host is reached by.
        now: The current time by default; another one for tests.

    Raises:
        UsageError: The saved file is damaged.
    """
    now = now or datetime.now(UTC)
    text = store.read(FILE)
    try:
        saved: dict[str, Any] = json.loads(text) if text else {}
        ca = saved.get("ca") or create_ca(cluster, now)
        issued = dict(saved.get("issued", {}))
        for name, names in {**hosts, CLIENT: ()}.items():
            pair = issued.get(name)
            if not pair or not (
                valid_for(pair["certificate"], RENEW_BEFORE, now) and matches(pair["certificate"], names, ca)
            ):
                issued[name] = issue(name, names, ca, now)
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "restore it from a backup; without it the datastore gets a new CA, and every server a new file"
        raise UsageError(f"{store.folder / FILE} is damaged", hint=hint) from None
    issued = {name: issued[name] for name in (*hosts, CLIENT)}
    current = {"ca": ca, "issued": issued}
    if current != saved:
        store.stage(FILE, Secret(json.dumps(current)))
    pairs = {name: Pair(pair["certificate"], Secret(pair["key"])) for name, pair in issued.items()}
    return Keys(ca["certificate"], {name: pairs[name] for name in hosts}, pairs[CLIENT])
