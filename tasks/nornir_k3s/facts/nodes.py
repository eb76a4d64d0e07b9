"""Kubernetes' node objects as typed values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nornir_k3s.k3s import NO_CNI
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.records import RecordError


def nodes(text: str) -> tuple[NodeState, ...]:
    """Return the nodes of a NodeList in JSON.

    Raises:
        RecordError: It is not a NodeList.
    """
    try:
        return tuple(_node(item) for item in json.loads(text)["items"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise RecordError("the API's answer is not a list of nodes") from None


def _node(item: Mapping[str, Any]) -> NodeState:
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    spec, status = item.get("spec") or {}, item.get("status") or {}  # a node that was created by hand has neither
    conditions = status.get("conditions") or []
    return NodeState(
        name=metadata["name"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        version=(status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        roles=tuple(sorted(key.split("/")[1] for key in labels if key.startswith("node-role.kubernetes.io/"))),
        taints=tuple(f"{t['key']}={t.get('value', '')}:{t['effect']}" for t in spec.get("taints") or []),
        labels=tuple(sorted(labels.items())),
        schedulable=not spec.get("unschedulable", False),
        since=_since(conditions),
        args=_args((metadata.get("annotations") or {}).get("k3s.io/node-args", "")),
        ours="nornir-k3s/cordoned" in (metadata.get("annotations") or {}),
        address=next((a["address"] for a in status.get("addresses") or [] if a["type"] == "InternalIP"), ""),
        lacks_cni=any(c["type"] == "Ready" and c["status"] == "False" and _lacks_cni(c) for c in conditions),
    )


def _lacks_cni(ready: Mapping[str, Any]) -> bool:
    # Several reasons stand in brackets (kubernetes: pkg/kubelet/nodestatus/setters.go, ReadyCondition).
    return str(ready.get("message", "")).startswith(NO_CNI)


def _since(conditions: Sequence[Mapping[str, Any]]) -> int:
    times = [condition.get("lastTransitionTime") for condition in conditions if condition["type"] == "Ready"]
    try:
        return int(datetime.fromisoformat(times[0]).timestamp()) if times and times[0] else 0
    except ValueError:
        return 0


def _args(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(word) for word in found) if isinstance(found, list) else ()
