"""Events of a node, as K3s' own parts record them."""

from __future__ import annotations

import json
import secrets
import uuid

from k3s_standin import nodes
from k3s_standin.store import Store


def record(store: Store, node: str, kind: str, reason: str, message: str) -> None:
    """Record one event."""
    name, now = f"{node}.{secrets.token_hex(8)}", nodes.stamp()
    item = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": now, "uid": str(uuid.uuid4())},
        "involvedObject": {"kind": "Node", "name": node, "uid": node},
        "type": kind, "reason": reason, "message": message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "k3s-node-password"},
    }  # fmt: skip
    store.create(f"/registry/events/default/{name}", json.dumps(item).encode())
