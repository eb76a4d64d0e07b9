"""What a node finds on its host, and what it does not start without."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import re
import secrets
import socket
from pathlib import Path
from typing import Any

from k3s_standin.log import Fatal
from k3s_standin.nodes import NO_CNI
from k3s_standin.places import NODE_ID, NODE_PASSWORD, folder, write

CNI = Path("/etc/cni/net.d")  # containerd's own folder; flannel's is K3s' (pkg/agent/templates)
_OWN_LABELS = re.compile(r"([^/]*\.)?(kubernetes|k8s)\.io/.*")
_ALLOWED_LABELS = {
    *("beta.kubernetes.io/arch", "beta.kubernetes.io/instance-type", "beta.kubernetes.io/os"),
    *("failure-domain.beta.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone"),
    *("kubernetes.io/arch", "kubernetes.io/hostname", "kubernetes.io/os"),
    *("node.kubernetes.io/instance-type", "topology.kubernetes.io/region", "topology.kubernetes.io/zone"),
}


def node_name(settings: dict[str, Any]) -> str:
    """Return the node's name: as set, else the host's, in lower case."""
    name = str(settings.get("node-name") or platform.node().split(".")[0]).lower()
    if settings.get("with-node-id"):
        if not NODE_ID.exists():
            folder(NODE_ID.parent, 0o755)
            write(NODE_ID, secrets.token_hex(4) + "\n")
        name += f"-{NODE_ID.read_text().strip()}"
    return name


def addresses(settings: dict[str, Any]) -> list[str]:
    """Return the node's addresses: those set, else the one the default route leaves from; there must be such a route."""
    if not _default_route():
        raise Fatal('Error: no default routes found in "/proc/net/route" or "/proc/net/ipv6_route"')
    if settings.get("node-ip"):
        found = [str(one) for one in settings["node-ip"]]
        for one in found:
            if not _is_own(one):
                raise Fatal("Error: failed to find interface with specified node ip")
        return found
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            raise Fatal('Error: no default routes found in "/proc/net/route" or "/proc/net/ipv6_route"') from None
        return [str(probe.getsockname()[0])]


def _default_route() -> bool:
    if os.environ.get("K3S_STANDIN_ANY_ROUTE"):  # a test's machine may have none
        return True
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
        if any(line.split()[1] == "00000000" for line in lines):
            return True
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/ipv6_route").read_text().splitlines()
        return any(line.split()[:2] == ["0" * 32, "00"] and line.split()[-1] != "lo" for line in lines)
    return False


def _is_own(text: str) -> bool:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(text).version == 6 else socket.AF_INET
    except ValueError:
        raise Fatal(f"Error: invalid node-ip: invalid ip format '{text}'") from None
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError:
            return False
    return True


def node_password() -> str:
    """Return this node's password; the first call makes it."""
    if not NODE_PASSWORD.exists():
        folder(NODE_PASSWORD.parent, 0o755)
        write(NODE_PASSWORD, secrets.token_hex(16) + "\n")
    return NODE_PASSWORD.read_text().strip()


def no_network(settings: dict[str, Any]) -> str:
    """Return why the kubelet has no network for pods: without flannel, somebody else's CNI must leave its configuration."""
    if settings.get("flannel-backend") != "none" or any(CNI.glob("*.conf*")):
        return ""
    return NO_CNI


def kubelet_args(settings: dict[str, Any]) -> dict[str, str]:
    """Return the kubelet's own flags."""
    pairs = (str(arg).removeprefix("--").partition("=") for arg in settings.get("kubelet-arg", []))
    return {name: value for name, _, value in pairs}


COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-cloud-controller-manager", "kubelet")


def logging_problem(settings: dict[str, Any]) -> str | None:
    """Return why a component refuses to run: all are one process, whose logging is configured once."""
    for component in COMPONENTS:
        for argument in settings.get(f"{component}-arg", []):
            name, _, value = str(argument).removeprefix("--").partition("=")
            if name in ("v", "vmodule", "logging-format") and value != str(settings.get(name, "")):
                text = "the logging configuration should not be changed after setting it once"
                return f"{component.removeprefix('kube-')} exited: {text} (- old setting, + new setting):"
    return None


def kubelet_problem(settings: dict[str, Any], version: str) -> str | None:
    """Return why the kubelet refuses to run here."""
    bad = sorted(
        key
        for key in (str(label).partition("=")[0] for label in settings.get("node-label", []))
        if _OWN_LABELS.fullmatch(key)
        and key not in _ALLOWED_LABELS
        and not re.fullmatch(r"([^/]*\.)?(kubelet|node)\.kubernetes\.io/.*", key)
    )
    if bad:
        return (
            "failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels:"
            f" [{' '.join(bad)}]\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix"
            " (kubelet.kubernetes.io, node.kubernetes.io) or be in the specifically allowed set"
            f" ({', '.join(sorted(_ALLOWED_LABELS))})"
        )
    for name, value in kubelet_args(settings).items():
        if name.startswith("no-such-"):
            return f"failed to parse kubelet flag: unknown flag: --{name}"
        if name.startswith("eviction-") and not re.search(r"[<=]", value):
            return f"invalid eviction threshold syntax {value}, expected <signal><operator><value>"
    old_cgroups = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if old_cgroups and _minor(version) >= 35 and kubelet_args(settings).get("fail-cgroupv1") != "false":
        return "kubelet is configured to not run on a host using cgroup v1"
    return None


def _minor(version: str) -> int:
    match = re.match(r"v1\.(\d+)", version)
    return int(match[1]) if match else 0
