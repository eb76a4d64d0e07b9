"""Node objects: in the shape real K3s gives them, and as the API shows them when heartbeats have stopped."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k3s_standin.config import shown_args, shown_environment

Item = dict[str, Any]
LOST_AFTER = 40.0
NO_CNI = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
    " message:Network plugin returns error: cni plugin not initialized"
)
LEASE = "/registry/leases/kube-node-lease/"
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
_CONDITIONS = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def stamp(at: float | None = None) -> str:
    """Return a time as Kubernetes writes it."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Return a time that Kubernetes wrote."""
    return datetime.fromisoformat(text).timestamp()


def describe(
    name: str, role: str, settings: dict[str, Any], args: list[str], version: str, addresses: list[str]
) -> Item:
    """Return the node object that a kubelet registers."""
    taints = [_taint(text) for text in settings.get("node-taint", [])]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "annotations": _annotations(role, settings, args, addresses[0]),
            "finalizers": ["wrangler.cattle.io/node"],
            "labels": _labels(name, role, settings, version),
            "name": name,
        },
        "spec": {"providerID": f"k3s://{name}"} | ({"taints": taints} if taints else {}),
        "status": _status(name, version, addresses),
    }


def _annotations(role: str, settings: dict[str, Any], args: list[str], address: str) -> dict[str, str]:
    shown = shown_args(role, args)
    return {
        "alpha.kubernetes.io/provided-node-ip": address,
        "flannel.alpha.coreos.com/backend-data": "null",
        "flannel.alpha.coreos.com/backend-type": str(settings.get("flannel-backend") or "vxlan"),
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": address,
        "k3s.io/hostname": platform.node(),
        "k3s.io/internal-ip": address,
        "k3s.io/node-args": shown,
        "k3s.io/node-config-hash": base64.b32encode(hashlib.sha256(shown.encode()).digest()).decode(),
        "k3s.io/node-env": shown_environment(dict(os.environ)),
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }


def _labels(name: str, role: str, settings: dict[str, Any], version: str) -> dict[str, str]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {
        "beta.kubernetes.io/arch": machine,
        "beta.kubernetes.io/instance-type": "k3s",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s",
    }
    if role == "server":
        labels["node-role.kubernetes.io/control-plane"] = "true"
        if version.startswith("v1.33."):
            labels["node-role.kubernetes.io/master"] = "true"
    pairs = (label.partition("=") for label in settings.get("node-label", []))
    return dict(sorted((labels | {key: value for key, _, value in pairs}).items()))


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"effect": effect, "key": key} | ({"value": value} if value else {})


def _status(name: str, version: str, addresses: list[str]) -> Item:
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
    huge = {"hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    size = {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": "264212084Ki",
        **huge,
        "memory": memory,
        "pods": "110",
    }
    machine = _read("/etc/machine-id")
    release = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    recursive = {"recursiveReadOnlyMounts": True, "userNamespaces": True}
    return {
        "addresses": [
            *({"address": one, "type": "InternalIP"} for one in addresses),
            {"address": name, "type": "Hostname"},
        ],
        "allocatable": size | {"ephemeral-storage": "257025515114"},
        "capacity": size,
        "conditions": conditions(ready=False),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "features": {"supplementalGroupsPolicy": True},
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
        "runtimeHandlers": [{"features": recursive, "name": ""}, {"features": recursive, "name": "runc"}],
    }


def conditions(*, ready: bool, why: str = "", before: list[dict[str, str]] | None = None) -> list[dict[str, str]]:
    """Return a kubelet's four conditions as of now; one that did not change keeps its transition time."""
    missing = why or NO_CNI
    states = {kind: ("False", reason, message) for kind, (reason, message) in _CONDITIONS.items()}
    states["Ready"] = (
        ("True", "KubeletReady", "kubelet is posting ready status") if ready else ("False", "KubeletNotReady", missing)
    )
    now, found = stamp(), []
    for kind, (state, reason, message) in states.items():
        old = next((c for c in before or [] if c["type"] == kind and c["status"] == state), None)
        found.append(
            {
                "lastHeartbeatTime": now,
                "lastTransitionTime": old["lastTransitionTime"] if old else now,
                "message": message,
                "reason": reason,
                "status": state,
                "type": kind,
            }
        )
    return found


def as_seen(node: Item, renewed: float | None) -> Item:
    """Return a node as the API shows it now: the node controller's judgement and taints are made when it is read.

    Arguments:
        node: As it is in the datastore.
        renewed: When the kubelet last renewed its lease.
    """
    since = renewed if renewed is not None else seconds(node["metadata"]["creationTimestamp"])
    lost = time.time() - since > LOST_AFTER
    for condition in node["status"].get("conditions", []):
        if lost:
            condition["lastTransitionTime"] = stamp(since + LOST_AFTER)
            condition |= {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
    ready = next((c["status"] for c in node["status"].get("conditions", []) if c["type"] == "Ready"), "Unknown")
    taints = [t for t in node["spec"].get("taints", []) if t["key"] not in (UNREACHABLE, NOT_READY)]
    if ready != "True":
        key = UNREACHABLE if lost else NOT_READY
        taints += [{"effect": effect, "key": key} for effect in ("NoSchedule", "NoExecute")]
    node["spec"].pop("taints", None)
    if taints:
        node["spec"]["taints"] = taints
    return node


def own_taints(node: Item) -> Item:
    """Return a node without the taints that are only made when it is read."""
    kept = [t for t in node.get("spec", {}).get("taints") or [] if t["key"] not in (UNREACHABLE, NOT_READY)]
    if "taints" in node.get("spec", {}):
        node["spec"]["taints"] = kept
        if not kept:
            del node["spec"]["taints"]
    return node


def lease(name: str) -> Item:
    """Return the lease that a kubelet renews."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
    }


def renewed(value: bytes) -> float:
    """Return when a lease was last renewed."""
    return seconds(json.loads(value)["spec"]["renewTime"])


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
