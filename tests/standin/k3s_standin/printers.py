"""kubectl's tables (kubernetes pkg/printers)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from k3s_standin.kinds import Kind

Item = dict[str, Any]


def duration(seconds: int) -> str:
    """Return an age as kubectl prints it."""
    if seconds < 120:
        return f"{max(0, seconds)}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _pair(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _pair(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def age(item: Item) -> str:
    """Return how old an object is."""
    made = item.get("metadata", {}).get("creationTimestamp")
    if not made:
        return "<unknown>"
    return duration(int((datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds()))


def roles(item: Item) -> str:
    """Return a node's roles."""
    prefix = "node-role.kubernetes.io/"
    found = sorted(key.removeprefix(prefix) for key in item["metadata"].get("labels", {}) if key.startswith(prefix))
    return ",".join(found) or "<none>"


def node_status(item: Item) -> str:
    """Return a node's status."""
    state = next((c["status"] for c in item["status"].get("conditions", []) if c["type"] == "Ready"), "Unknown")
    shown = "Ready" if state == "True" else "NotReady"
    return shown + (",SchedulingDisabled" if item["spec"].get("unschedulable") else "")


def _node(item: Item, *, wide: bool) -> dict[str, str]:
    info = item["status"].get("nodeInfo", {})
    row = {
        "NAME": item["metadata"]["name"],
        "STATUS": node_status(item),
        "ROLES": roles(item),
        "AGE": age(item),
        "VERSION": info.get("kubeletVersion", ""),
    }
    if wide:
        addresses = {one["type"]: one["address"] for one in reversed(item["status"].get("addresses", []))}
        row |= {
            "INTERNAL-IP": addresses.get("InternalIP", "<none>"),
            "EXTERNAL-IP": addresses.get("ExternalIP", "<none>"),
            "OS-IMAGE": info.get("osImage", "<unknown>"),
            "KERNEL-VERSION": info.get("kernelVersion", "<unknown>"),
            "CONTAINER-RUNTIME": info.get("containerRuntimeVersion", "<unknown>"),
        }
    return row


def _secret(item: Item, *, wide: bool) -> dict[str, str]:
    return {
        "NAME": item["metadata"]["name"],
        "TYPE": item.get("type", "Opaque"),
        "DATA": str(len(item.get("data") or {})),
        "AGE": age(item),
    }


def _request(item: Item, *, wide: bool) -> dict[str, str]:
    states = {one["type"] for one in item.get("status", {}).get("conditions", [])}
    words = [word for word in ("Denied", "Approved", "Failed") if word in states] or ["Pending"]
    if item.get("status", {}).get("certificate"):
        words.append("Issued")
    return {
        "NAME": item["metadata"]["name"],
        "AGE": age(item),
        "SIGNERNAME": item["spec"].get("signerName", "<none>"),
        "REQUESTOR": item["spec"].get("username", "system:admin"),
        "REQUESTEDDURATION": "<none>",
        "CONDITION": ",".join(words),
    }


def _namespace(item: Item, *, wide: bool) -> dict[str, str]:
    return {
        "NAME": item["metadata"]["name"],
        "STATUS": item.get("status", {}).get("phase", "Active"),
        "AGE": age(item),
    }


def _lease(item: Item, *, wide: bool) -> dict[str, str]:
    return {
        "NAME": item["metadata"]["name"],
        "HOLDER": item["spec"].get("holderIdentity", ""),
        "AGE": age(item),
    }


def _servicecidr(item: Item, *, wide: bool) -> dict[str, str]:
    return {"NAME": item["metadata"]["name"], "CIDRS": ",".join(item["spec"]["cidrs"]), "AGE": age(item)}


def _plain(item: Item, *, wide: bool) -> dict[str, str]:
    return {"NAME": item["metadata"]["name"], "AGE": age(item)}


_ROWS = {
    "nodes": _node,
    "secrets": _secret,
    "certificatesigningrequests": _request,
    "namespaces": _namespace,
    "leases": _lease,
    "servicecidrs": _servicecidr,
}


def table(kind: Kind, items: list[Item], *, wide: bool, headers: bool, labels: bool, spaces: bool) -> str:
    """Return the table of these objects."""
    make = _ROWS.get(kind.plural, _plain)
    rows = []
    for item in items:
        row = make(item, wide=wide)
        if spaces:
            row = {"NAMESPACE": item["metadata"].get("namespace", "")} | row
        if labels:
            found = item["metadata"].get("labels") or {}
            row["LABELS"] = ",".join(f"{key}={value}" for key, value in sorted(found.items())) or "<none>"
        rows.append(row)
    return columns(([list(rows[0])] if headers else []) + [list(row.values()) for row in rows])


def columns(lines: list[list[str]]) -> str:
    """Return lines whose cells stand below each other."""
    widths = [max(len(line[i]) for line in lines) + 3 for i in range(len(lines[0]))]
    return "".join(
        "".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]]) + "\n"
        for line in lines
    )
