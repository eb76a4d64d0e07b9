"""Checks of settings and of arguments of Kubernetes' components that a version deprecates, or does not have any more.

Sources: kubernetes `CHANGELOG` 1.31 (`--keep-terminated-pod-volumes`), 1.33 and 1.34 (`--cloud-provider`,
`--cloud-config`), 1.35 (kubernetes#133779, `--pod-infra-container-image`), 1.37 (`--containerd`; `ipvs`);
k3s `pkg/cli/cmds/server.go`, and its commits 729403345 and 1d2967e3f (label `master`).
"""

from __future__ import annotations

from collections.abc import Iterator

from nornir_k3s import k3s, k3s_settings
from nornir_k3s.model.cluster import Cluster, Member, Setting
from nornir_k3s.model.finding import CLUSTER, Finding, problem

_MASTER, _CONTROL_PLANE = (f"node-role.kubernetes.io/{name}" for name in ("master", "control-plane"))
# A component ends at once where it gets an argument that it does not know.
REMOVED = {
    "kubelet-arg": {
        "keep-terminated-pod-volumes": "1.31",
        "cloud-config": "1.34",
        "pod-infra-container-image": "1.35",
        "containerd": "1.37",
    },
    "kube-apiserver-arg": {"cloud-provider": "1.33", "cloud-config": "1.33"},
}
# By argument and value: since when it is deprecated, and what comes instead.
DEPRECATED = {("kube-proxy-arg", "proxy-mode=ipvs"): ("1.37", "set proxy-mode=nftables: ipvs is gone in 1.43")}


def check(cluster: Cluster, member: Member) -> Iterator[Finding]:
    """Yield the arguments of a host that its components do not have, or will not have."""
    settings = cluster.settings_of(member)
    for key, removed in REMOVED.items():
        for argument in _arguments(settings.get(key, [])):
            name = argument.partition("=")[0]
            if name in removed and _since(cluster.version, removed[name]):
                found = f"{key} has {name}, which Kubernetes {removed[name]} has removed: K3s would not start"
                yield problem(member.name, "removed-argument", found, f"{key} without it", f"remove it from `{key}`")
    for (key, argument), (since, remedy) in DEPRECATED.items():
        if argument in _arguments(settings.get(key, [])) and _since(cluster.version, since):
            found = f"{key} has {argument}, deprecated since Kubernetes {since}"
            yield problem(member.name, "deprecated", found, "nothing that goes", remedy, "warning")


def settings(cluster: Cluster) -> Iterator[Finding]:
    """Yield settings of all servers or agents that K3s has deprecated."""
    release = k3s.parse_version(cluster.version).release
    for key in {**cluster.server, **cluster.agent}:
        if instead := k3s_settings.deprecated(key, release):
            found = f"K3s {cluster.version} has deprecated the setting {key}"
            yield problem(CLUSTER, "deprecated", found, "settings that stay", f"write `{instead}`", "warning")


def manifests(cluster: Cluster) -> Iterator[Finding]:
    """Yield the inventory's manifests that select nodes by a label that K3s' nodes do not have any more."""
    for file in cluster.files:
        text = file.text.reveal()
        if _MASTER in text and _CONTROL_PLANE not in text and _since(cluster.version, "1.34"):
            found = f"{file.path} selects nodes by {_MASTER}, which no node has since K3s 1.34"
            yield problem(CLUSTER, "deprecated", found, _CONTROL_PLANE, f"write {_CONTROL_PLANE} there", "warning")


def _arguments(given: Setting) -> list[str]:
    items = given if isinstance(given, list) else [given]
    return [str(item).removeprefix("--") for item in items]


def _since(version: str, minor: str) -> bool:
    return k3s.reached(version, f"{minor}.0")
