"""Feature gates that a version does not have, or has locked: the component would not start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nornir_k3s.checks import preflight
from nornir_k3s.checks.feature_gates import OFF, ON, REMOVED
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts

Load = Callable[..., Cluster]
API, KUBELET = "kube-apiserver-arg", "kubelet-arg"


@pytest.mark.parametrize(
    ("key", "gates", "version", "words"),
    [
        (API, "StructuredAuthorizationConfiguration=true", "v1.36.3+k3s1", "which Kubernetes 1.36 has removed"),
        (API, "StructuredAuthorizationConfiguration=true", "v1.35.7+k3s1", ""),
        (KUBELET, "MemoryManager=true,ImageVolume=true", "v1.36.3+k3s1", "feature gate MemoryManager"),
        (KUBELET, "InPlacePodVerticalScaling=false", "v1.35.7+k3s1", "locked on since Kubernetes 1.35"),
        (KUBELET, "InPlacePodVerticalScaling=False", "v1.34.9+k3s1", ""),
        (KUBELET, "InPlacePodVerticalScaling=true", "v1.36.3+k3s1", ""),
        (KUBELET, "NodeSwap=false", "v1.34.9+k3s1", "turns NodeSwap off"),
        (KUBELET, "KubeletInUserNamespace=true", "v1.36.3+k3s1", ""),
        (API, "StrictCostEnforcementForVAP=true", "v1.35.0+k3s1", "which Kubernetes 1.35 has removed"),
        (API, "StrictCostEnforcementForVAP=true", "v1.34.9+k3s1", ""),
        (API, "StrictCostEnforcementForVAP=f", "v1.34.9+k3s1", "turns StrictCostEnforcementForVAP off"),
        (KUBELET, "UserNamespacesSupport=false", "v1.36.3+k3s1", "locked on since Kubernetes 1.36"),
        (KUBELET, "UserNamespacesSupport=false", "v1.35.7+k3s1", ""),
        (API, "GitRepoVolumeDriver=true", "v1.36.3+k3s1", "turns GitRepoVolumeDriver on, which is locked off"),
        (API, "GitRepoVolumeDriver=false", "v1.36.3+k3s1", ""),
        (API, "GitRepoVolumeDriver=true", "v1.35.7+k3s1", ""),
        (API, "AllAlpha=false", "v1.36.3+k3s1", ""),
    ],
)
@pytest.mark.parametrize("prefix", ["feature-gates=", "--feature-gates="])
def test_gates_that_a_component_refuses(  # noqa: PLR0917 - the columns of a table
    load: Load, key: str, gates: str, version: str, words: str, prefix: str
) -> None:
    cluster = load({"version": version, "server": {key: [f"{prefix}{gates}", "event-ttl=2h"]}})
    found = [one for one in preflight.check(cluster, {"s1": HostFacts("s1")}) if one.subject == "feature-gate"]
    assert [(one.host, one.severity) for one in found] == [("s1", "error")] * bool(words)
    assert all(words in one.found for one in found)


def test_agents_too_and_settings_of_one_host(load: Load) -> None:
    cluster = load({"version": "v1.36.3+k3s1"}, a1={KUBELET: "feature-gates=MemoryManager=true"})
    found = [one for one in preflight.check(cluster, {"a1": HostFacts("a1")}) if one.subject == "feature-gate"]
    assert [one.host for one in found] == ["a1"]


def test_no_gate_is_listed_twice() -> None:
    for tables in ((REMOVED,), (ON, OFF)):
        names = [name for table in tables for some in table.values() for name in some]
        assert len(names) == len(set(names))
