"""Before another version of K3s, what is not ready is told; afterwards, what is not as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.checks import before_upgrade, preflight
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, BeforeUpgrade, NodeState, SettingsFile, SystemPod
from nornir_k3s.phases import drain, verify

from .test_upgrade_checks import NODES, facts

Load = Callable[..., Cluster]
OLD, NEW = "v1.34.3+k3s1", "v1.34.10+k3s1"


def found(cluster: Cluster, seen: dict[str, HostFacts]) -> list[Finding]:
    return list(before_upgrade.check(cluster, seen))


def pods(owner: str, *ready: bool, node: str = "a1") -> tuple[SystemPod, ...]:
    return tuple(SystemPod(owner, node, one) for one in ready)


def test_a_healthy_cluster_is_upgraded_without_a_word(load: Load) -> None:
    cluster = load({"version": "v1.34.9+k3s1"})
    assert found(cluster, facts(OLD, s1={"system_pods": pods("Deployment coredns", True)})) == []


def test_nodes_that_are_not_ready_are_told_before_a_patch_too(load: Load) -> None:
    seen = facts(OLD)
    sick = tuple(replace(node, ready=node.name != "a1") for node in seen["s1"].api.nodes or ())
    seen = {name: replace(one, api=Api(ready=True, nodes=sick)) for name, one in seen.items()}
    (one,) = found(load({"version": "v1.34.9+k3s1"}), seen)
    assert (one.host, one.subject, one.severity) == ("a1", "node-ready", "warning")
    assert found(load({"version": OLD}), seen) == [], "no upgrade"
    waits = tuple(replace(node, lacks_cni=True) for node in sick)
    seen = {name: replace(one, api=Api(ready=True, nodes=waits)) for name, one in seen.items()}
    own = load({"version": "v1.34.9+k3s1", "server": {"flannel-backend": "none"}})
    assert found(own, seen) == [], "its CNI is the user's, and comes later"


def test_pods_that_are_not_ready_are_told_by_what_they_belong_to(load: Load) -> None:
    system = (*pods("Deployment coredns", True, False), *pods("DaemonSet x", False), *pods("Deployment y", True))
    findings = found(load({"version": "v1.34.9+k3s1"}), facts(OLD, s2={"system_pods": system}))
    assert {one.subject for one in findings} == {"kube-system"}
    assert [one.found.partition(",")[0] for one in findings] == [
        "Deployment coredns has 1 of 2 pods ready",
        "DaemonSet x has 0 of 1 pods ready",
    ]


@pytest.mark.parametrize(
    ("running", "wanted", "settings", "values", "severity"),
    [
        (OLD, NEW, {}, "", "note"),
        (OLD, NEW, {}, "others", "warning"),
        (OLD, NEW, {}, "kubernetesIngressNginx", "error"),
        (OLD, NEW, {"disable": ["traefik"]}, "kubernetesIngressNginx", ""),
        (OLD, NEW, {"disable": "servicelb,traefik"}, "others", ""),
        (OLD, NEW, {"disable": ["servicelb"]}, "others", "warning"),
        (OLD, NEW, {"disable-helm-controller": True}, "others", ""),
        (OLD, "v1.34.9+k3s1", {}, "kubernetesIngressNginx", ""),
        ("v1.34.10+k3s1", "v1.35.8+k3s1", {}, "kubernetesIngressNginx", ""),  # it has chart 40 already
        ("v1.35.6+k3s1", "v1.36.2+k3s1", {}, "others", "warning"),
        ("v1.36.1+k3s1", "v1.37.0+k3s1", {}, "others", "warning"),
        ("v1.36.1+k3s1", "v1.36.1+k3s1", {}, "others", ""),
    ],
)
def test_the_chart_of_traefik(  # noqa: PLR0917 - a row of the table
    load: Load, running: str, wanted: str, settings: dict[str, Any], values: str, severity: str
) -> None:
    cluster = load({"version": wanted, "server": settings})
    findings = [one for one in found(cluster, facts(running, s2={"traefik_values": values})) if one.host == "cluster"]
    assert [(one.subject, one.severity) for one in findings] == [("traefik", severity)] * bool(severity)


def test_values_that_this_deploy_brings_count_and_the_error_may_be_accepted(load: Load, tmp_path: Any) -> None:
    head = "apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata:\n  name: traefik\nspec:\n  valuesContent: "
    seen = facts(OLD, s1={"traefik_values": "kubernetesIngressNginx"})
    for name, severity in (("kubernetesIngressNGINX", "warning"), ("kubernetesIngressNginx", "error")):
        (tmp_path / "own.yaml").write_text(f"{head}'providers: {{{name}: {{enabled: true}}}}'\n")
        cluster = load({"version": NEW, "server": {}, "manifests": [str(tmp_path / "own.yaml")]})
        assert [one.severity for one in found(cluster, seen)] == [severity]
    cluster = load({"version": NEW, "server": {}, "accept": ["traefik"]})
    (one,) = (f for f in preflight.check(cluster, seen) if f.subject == "traefik")
    assert one.severity == "warning"


def test_what_the_installer_would_lose_is_told(load: Load) -> None:
    path = "/etc/systemd/system/k3s.service.env"
    lost = {"extra_settings": (SettingsFile(path, ("KINE_X", "HTTP_PROXY"), 1),)}
    kept = {"extra_settings": (SettingsFile("/etc/default/k3s", ("KINE_X",), 1),)}
    (one,) = found(load({"version": "v1.34.9+k3s1"}), facts(OLD, s1=lost, s2=kept))
    assert (one.host, one.subject, one.severity) == ("s1", "install-variables", "warning")
    assert "HTTP_PROXY, KINE_X" in one.found
    assert "/etc/default/k3s" in one.remedy


@pytest.mark.parametrize(
    ("key", "argument", "version", "told"),
    [
        ("kubelet-arg", "pod-infra-container-image=x", "v1.35.1+k3s1", True),
        ("kubelet-arg", "pod-infra-container-image=x", "v1.34.9+k3s1", False),
        ("kubelet-arg", "--cloud-config=/x", "v1.34.9+k3s1", True),
        ("kubelet-arg", "cloud-provider=external", "v1.36.3+k3s1", False),
        ("kubelet-arg", "containerd=/x", "v1.37.0+k3s1", True),
        ("kubelet-arg", "containerd=/x", "v1.36.3+k3s1", False),
    ],
)
def test_arguments_that_a_component_does_not_have_any_more(
    load: Load, key: str, argument: str, version: str, *, told: bool
) -> None:
    cluster = load({"version": version}, a1={key: [argument]})
    findings = [f for f in preflight.check(cluster, {"a1": HostFacts("a1")}) if f.subject == "removed-argument"]
    assert [(one.host, one.severity) for one in findings] == [("a1", "error")] * told


def test_arguments_of_the_api_server_too(load: Load) -> None:
    cluster = load({"server": {"kube-apiserver-arg": ["cloud-provider=external"]}})
    findings = preflight.check(cluster, {name: HostFacts(name) for name in NODES})
    assert [f.host for f in findings if f.subject == "removed-argument"] == ["s1", "s2"]


@pytest.mark.parametrize(
    ("server", "version", "words"),
    [
        ({"helm-job-image": "x"}, "v1.34.10+k3s1", "helm-controller-arg: default-job-image=IMAGE"),
        ({"helm-job-image": "x"}, "v1.34.9+k3s1", ""),
        ({"helm-job-image": "x"}, "v1.37.0+k3s1", "helm-controller-arg"),
        ({"kube-proxy-arg": ["proxy-mode=ipvs"]}, "v1.37.0+k3s1", "nftables"),
        ({"kube-proxy-arg": "proxy-mode=ipvs"}, "v1.36.3+k3s1", ""),
    ],
)
def test_what_is_deprecated(load: Load, server: dict[str, Any], version: str, words: str) -> None:
    cluster = load({"version": version, "server": server})
    findings = preflight.check(cluster, {"s1": HostFacts("s1")})
    told = [one for one in findings if one.subject == "deprecated"]
    assert [one.severity for one in told] == ["warning"] * bool(words)
    assert all(words in one.remedy for one in told)


@pytest.mark.parametrize(
    ("labels", "version", "told"),
    [
        (["master"], "v1.34.9+k3s1", True),
        (["master"], "v1.33.9+k3s1", False),
        (["master", "control-plane"], "v1.34.9+k3s1", False),
        (["control-plane"], "v1.34.9+k3s1", False),
    ],
)
def test_a_label_that_no_node_has_any_more(
    load: Load, tmp_path: Any, labels: list[str], version: str, *, told: bool
) -> None:
    (tmp_path / "vip.yaml").write_text("".join(f"key: node-role.kubernetes.io/{one}\n---\n" for one in labels))
    cluster = load({"version": version, "manifests": [str(tmp_path / "vip.yaml")]})
    findings = [one for one in preflight.check(cluster, {}) if one.subject == "deprecated"]
    assert [one.severity for one in findings] == ["warning"] * told
    assert all("vip.yaml selects nodes by node-role.kubernetes.io/master" in one.found for one in findings)


def test_pods_are_compared_with_those_before() -> None:
    before = (*pods("Deployment coredns", True, True), *pods("DaemonSet x", True, node="a2"), *pods("Pod y", False))
    after = pods("Deployment coredns", True, False)
    assert before_upgrade.lost(before, before, []) == []
    assert before_upgrade.lost(before, after, []) == [
        "kube-system: Deployment coredns has 1 pods ready, before the upgrade 2"
    ]
    assert before_upgrade.gone(before, after) == ["DaemonSet x", "Pod y"]
    down = (*pods("DaemonSet x", True, node="a1"), *pods("DaemonSet x", False, node="a2"))
    assert before_upgrade.lost(down[:1] + pods("DaemonSet x", True, node="a2"), down, ["a2"]) == [], "a2 was left out"


def test_after_an_upgrade_what_is_cordoned_is_told_and_what_we_have_cordoned_gets_pods_again(
    monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    cluster, released = load(), list[list[str]]()
    monkeypatch.setattr(drain, "release", lambda _, names: released.append(list(names)))
    hosts = {name: SimpleNamespace(error=None) for name in NODES}
    run: Any = SimpleNamespace(
        before_upgrade=BeforeUpgrade(pods("Deployment z", True), frozenset({"s2"})),
        report=SimpleNamespace(changed=True, hosts=hosts, notes=[]),
        of=cluster.of,
    )
    nodes = tuple(NodeState(n, ready=True, version=NEW, schedulable=False, ours=n == "a1") for n in NODES)
    verify._after_upgrade(run, HostFacts("s1", api=Api(ready=True, nodes=nodes), system_pods=()))
    assert released == [["a1"]]
    assert [note.partition(";")[0] for note in run.report.notes] == [
        "cordoned since this run began: s1",
        "kube-system had pods of Deployment z before the upgrade, and has none now",
    ]
