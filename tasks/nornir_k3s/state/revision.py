"""The highest revision of the datastore that was seen: a lower one later means that writes were lost.

A failover to a copy that lagged, a dump restored by hand, another volume: K3s' servers go on answering from their
caches, without an error, until they restart (Kubernetes: `apiserver/pkg/storage/cacher`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.went_back import WentBack
from nornir_k3s.state.store import Store

_FILE = "revision.json"


@dataclass(frozen=True)
class Seen:
    """What was seen of a datastore.

    Arguments:
        datastore: Which one: another one begins anew.
        revision: The newest revision.
        back: It was higher before, and not all servers have restarted since.
    """

    datastore: str
    revision: int = 0
    back: WentBack | None = None


def look(store: Store, cluster: Cluster, revision: int, *, now: float, starts: Sequence[float] = ()) -> Seen:
    """Return what is known of the datastore after this look at it; nothing is saved.

    Arguments:
        revision: The newest one now; 0 if unknown.
        now: When this look began, in seconds of the controller's clock.
        starts: When each running server was started, by the same clock; nothing if unknown.
    """
    name = _name(cluster)
    before = _load(store)
    if before is None or before.datastore != name:
        return Seen(name, revision)
    if 0 < revision < before.revision:
        return Seen(name, revision, WentBack(before.revision, revision, now))
    seen = replace(before, revision=max(revision, before.revision))
    done = seen.back and starts and all(start > seen.back.since for start in starts)
    return replace(seen, back=None) if done else seen


def save(store: Store, seen: Seen) -> None:
    """Save it, unless it is saved already."""
    if seen.revision and _load(store) != seen:
        store.write(_FILE, json.dumps(asdict(seen)) + "\n")


def highest(store: Store) -> int:
    """Return the highest revision that was seen, of whichever datastore the cluster had; 0 if none was."""
    seen = _load(store)
    return max(seen.revision, seen.back.before if seen.back else 0) if seen else 0


def _load(store: Store) -> Seen | None:
    text = store.read(_FILE)
    if text is None:
        return None
    found = json.loads(text)
    return Seen(found["datastore"], found["revision"], WentBack(**found["back"]) if found["back"] else None)


def _name(cluster: Cluster) -> str:
    """Return a datastore's name: its kind, where it is, and whose data are in it; without a secret."""
    endpoint = parse(cluster.endpoint) if cluster.endpoint else None
    words = [f"{host}:{port}" for host, port in endpoint.hosts] if endpoint else [cluster.managed.kind]
    return hashlib.sha256(" ".join([*words, cluster.token.fingerprint()]).encode()).hexdigest()[:16]
