"""Node objects, in the shape real K3s gives them, kept in the datastore."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k3s_standin.store import Store

LOST_AFTER = 40.0
_CONDITIONS = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def stamp(at: float | None = None) -> str:
    """Return a time as Kubernetes writes it."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(
    name: str, role: str, settings: dict[str, Any], shown: list[str], version: str, address: str
) -> dict[str, Any]:
    """Return the node object that a kubelet registers."""
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "k3s",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s",
    }
    if role == "server":
        labels["node-role.kubernetes.io/control-plane"] = "true"
    labels |= own_labels(settings)
    taints = []
    for taint in settings.get("node-taint", []):
        pair, _, effect = taint.rpartition(":")
        key, _, value = pair.partition("=")
        taints.append({"key": key, "effect": effect} | ({"value": value} if value else {}))
    backend = str(settings.get("flannel-backend", "vxlan"))
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
    size = {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": "264212084Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": memory,
        "pods": "110",
    }
    machine = _read("/etc/machine-id")
    release = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    digest = base64.b32encode(hashlib.sha256(json.dumps(shown).encode()).digest()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "annotations": {
                "alpha.kubernetes.io/provided-node-ip": address,
                "flannel.alpha.coreos.com/backend-data": "null",
                "flannel.alpha.coreos.com/backend-type": backend,
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/public-ip": address,
                "k3s.io/hostname": platform.node(),
                "k3s.io/internal-ip": address,
                "k3s.io/node-args": json.dumps(shown, separators=(",", ":")),
                "k3s.io/node-config-hash": digest,
                "k3s.io/node-env": "{}",
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            "creationTimestamp": stamp(),
            "finalizers": ["wrangler.cattle.io/node"],
            "labels": dict(sorted(labels.items())),
            "name": name,
            "uid": str(uuid.uuid4()),
        },
        "spec": {"providerID": f"k3s://{name}"} | ({"taints": taints} if taints else {}),
        "status": {
            "addresses": [{"address": address, "type": "InternalIP"}, {"address": name, "type": "Hostname"}],
            "allocatable": size,
            "capacity": size,
            "conditions": conditions(ready=False),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": _read("/proc/sys/kernel/random/boot_id"),
                "containerRuntimeVersion": "containerd://2.2.3",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": version,
                "machineID": machine,
                "operatingSystem": "linux",
                "osImage": release.get("PRETTY_NAME", "Linux").strip('"'),
                "systemUUID": machine,
            },
        },
    }


def own_labels(settings: dict[str, Any]) -> dict[str, str]:
    """Return the labels of the settings."""
    return {key: value for key, _, value in (label.partition("=") for label in settings.get("node-label", []))}


def conditions(*, ready: bool) -> list[dict[str, str]]:
    """Return a kubelet's four conditions as of now."""
    now = stamp()
    found = [
        {
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "message": message,
            "reason": reason,
            "status": "False",
            "type": kind,
        }
        for kind, (reason, message) in _CONDITIONS.items()
    ]
    reason, message = (
        ("KubeletReady", "kubelet is posting ready status")
        if ready
        else ("KubeletNotReady", "container runtime network not ready: NetworkReady=false")
    )
    found.append(
        {
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "message": message,
            "reason": reason,
            "status": "True" if ready else "False",
            "type": "Ready",
        }
    )
    return found


def heartbeat(store: Store, wanted: dict[str, Any], *, ready: bool) -> None:
    """Register a node, or bring its status up to date; taints count at the first registration only."""
    key = f"/registry/minions/{wanted['metadata']['name']}"
    kept = store.get(key)
    node = json.loads(kept) if kept else wanted
    if kept:
        node["metadata"]["labels"] |= wanted["metadata"]["labels"]
        node["metadata"]["annotations"] |= wanted["metadata"]["annotations"]
        for part in ("addresses", "nodeInfo", "capacity", "allocatable"):
            node["status"][part] = wanted["status"][part]
    fresh = conditions(ready=ready)
    before = {c["type"]: c for c in node["status"]["conditions"]}
    for condition in fresh:
        old = before.get(condition["type"])
        if kept and old and old["status"] == condition["status"]:
            condition["lastTransitionTime"] = old["lastTransitionTime"]
    node["status"]["conditions"] = fresh
    if "podCIDR" not in node["spec"]:
        network = f"10.42.{len(store.list('/registry/minions/'))}.0/24"
        node["spec"] = {"podCIDR": network, "podCIDRs": [network]} | node["spec"]
    store.put(key, json.dumps(node).encode())


def read(store: Store) -> list[dict[str, Any]]:
    """Return all nodes; one whose heartbeat has stopped is Unknown, as the node controller would have made it."""
    return [as_seen(json.loads(value)) for _, value in store.list("/registry/minions/")]


def as_seen(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node as the API shows it now."""
    node["metadata"].setdefault("resourceVersion", "1")
    for condition in node["status"]["conditions"]:
        beat = datetime.strptime(condition["lastHeartbeatTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        if time.time() - beat > LOST_AFTER:
            condition |= {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
    return node


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
