"""What stands in the way of an upgrade is told before the first change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nornir_k3s.checks import preflight, upgrade
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts, Ledger
from nornir_k3s.model.k3s_facts import Api, NodeState, RequestedApi

Load = Callable[..., Cluster]
BASE = '{{ template "base" . }}\n'
IMPORTS = 'imports = ["/etc/containerd/own/*.toml"]\n'
FOLDER = "/var/lib/rancher/k3s/agent/etc/containerd"
NODES = ("s1", "s2", "a1")


def facts(running: str, agents: str = "", **more: dict[str, Any]) -> dict[str, HostFacts]:
    versions = dict.fromkeys(NODES, running) | {"a1": agents or running}
    api = Api(ready=True, nodes=tuple(NodeState(name, ready=True, version=one) for name, one in versions.items()))
    return {name: HostFacts(name, **{"api": api, **more.get(name, {})}) for name in NODES}


def found(cluster: Cluster, seen: dict[str, HostFacts], limit: set[str] | None = None) -> list[Finding]:
    return list(upgrade.check(cluster, seen, limit=limit))


@pytest.mark.parametrize(
    ("running", "wanted", "remedy"),
    [
        ("v1.34.3+k3s1", "v1.34.9+k3s1", ""),
        ("v1.34.9+k3s1", "v1.35.1+k3s1", ""),
        ("v1.34.9+k3s1", "v1.34.3+k3s1", "set version to v1.34.9+k3s1 or newer"),
        ("v1.35.1+k3s1", "v1.34.9+k3s1", "set version to v1.35.1+k3s1 or newer"),
        ("v1.33.3+k3s1", "v1.35.1+k3s1", "upgrade to 1.34 first"),
        ("v1.32.3+k3s1", "v1.35.1+k3s1", "upgrade to 1.33, then 1.34 first"),
    ],
)
def test_the_path_of_versions(load: Load, running: str, wanted: str, remedy: str) -> None:
    findings = found(load({"version": wanted}), facts(running))
    assert [one.subject for one in findings] == (["version"] * 3 if remedy else [])
    assert all(remedy in one.remedy for one in findings)


@pytest.mark.parametrize(
    ("limit", "agents", "told"),
    [
        (None, "", []),
        ({"s1", "s2"}, "", []),
        ({"s1", "s2", "a1"}, "", []),
        ({"s1"}, "", []),  # servers may differ for a while
        ({"a1"}, "", ["a1"]),
        ({"s1", "a1"}, "", ["a1"]),
        ({"a1"}, "v1.35.1+k3s1", []),  # it is newer already
    ],
)
def test_no_agent_becomes_newer_than_a_server(load: Load, limit: set[str] | None, agents: str, told: list[str]) -> None:
    findings = found(load({"version": "v1.35.1+k3s1"}), facts("v1.34.9+k3s1", agents), limit)
    assert [one.host for one in findings if one.subject == "skew"] == told
    assert all(one.severity == "error" and "s2" in one.found for one in findings if one.subject == "skew")


def test_a_patch_may_reach_an_agent_first(load: Load) -> None:
    assert found(load({"version": "v1.34.9+k3s1"}), facts("v1.34.3+k3s1"), {"a1"}) == []


@pytest.mark.parametrize(
    ("removed", "wanted", "told"),
    [("1.35", "v1.35.1+k3s1", True), ("1.32", "v1.35.1+k3s1", True), ("1.36", "v1.35.1+k3s1", False),
     ("1.40", "v1.35.1+k3s1", False), ("?", "v1.35.1+k3s1", False), ("1.35", "v1.34.9+k3s1", False)],
)  # fmt: skip
def test_an_api_that_is_in_use_and_goes(load: Load, removed: str, wanted: str, *, told: bool) -> None:
    asked = {"requested_apis": (RequestedApi("storage.k8s.io", "v1beta1", "volumeattributesclasses", removed),)}
    cluster = load({"version": wanted})
    findings = found(cluster, facts("v1.34.3+k3s1", s1=asked, s2=asked))
    assert [one.subject for one in findings] == ["removed-api"] * told  # once, not for each server
    for one in findings:
        assert "volumeattributesclasses of storage.k8s.io/v1beta1" in one.found
        assert "s1, s2" in one.found
        assert one.severity == "error"


def test_an_api_that_goes_may_be_accepted(load: Load) -> None:
    asked = {"requested_apis": (RequestedApi("", "v1", "things", "1.35"),)}
    cluster = load({"version": "v1.35.1+k3s1", "accept": ["removed-api"]})
    (one,) = [one for one in preflight.check(cluster, facts("v1.34.3+k3s1", s1=asked)) if one.subject == "removed-api"]
    assert one.severity == "warning"
    assert "things of v1 " in one.found


@pytest.mark.parametrize(
    ("text", "wanted", "severity"),
    [
        (IMPORTS + BASE, "v1.36.3+k3s1", "error"),
        (IMPORTS + BASE.replace("{{ ", "{{- "), "v1.36.3+k3s1", "error"),
        (f"  {IMPORTS}{BASE}", "v1.37.0+k3s1", "error"),
        (BASE, "v1.36.3+k3s1", "warning"),
        (f"# {IMPORTS}{BASE}", "v1.36.3+k3s1", "warning"),
        (IMPORTS, "v1.36.3+k3s1", "warning"),  # the whole configuration is the user's
    ],
)
def test_a_template_of_containerd(load: Load, text: str, wanted: str, severity: str) -> None:
    path = f"{FOLDER}/config-v3.toml.tmpl"
    running = "v1.36.1+k3s1" if wanted.startswith("v1.37") else "v1.35.1+k3s1"
    (one,) = found(load({"version": wanted}), facts(running, a1={"containerd_templates": {path: text}}))
    assert (one.host, one.subject, one.severity) == ("a1", "containerd-template", severity)
    assert path in one.found
    assert (f"{FOLDER}/config-v3.toml.d" in one.remedy) == (severity == "error")


def test_a_template_that_this_deploy_brings_counts(load: Load, tmp_path: Any) -> None:
    path = f"{FOLDER}/config-v3.toml.tmpl"
    (tmp_path / "own.tmpl").write_text(BASE)
    cluster = load({"version": "v1.36.3+k3s1", "files": [{"path": path, "source": str(tmp_path / "own.tmpl")}]})
    (one,) = found(cluster, facts("v1.35.1+k3s1", a1={"containerd_templates": {path: IMPORTS + BASE}}))
    assert one.severity == "warning"


def test_a_patch_of_the_same_minor_is_not_asked_about(load: Load) -> None:
    template = {"containerd_templates": {"/x.tmpl": IMPORTS + BASE}}
    assert found(load({"version": "v1.36.3+k3s1"}), facts("v1.36.1+k3s1", a1=template)) == []


@pytest.mark.parametrize(
    ("installed", "by_us", "words"),
    [
        ("v1.33.3+k3s1", True, "K3s, which does not run, is v1.33.3+k3s1: v1.35.1+k3s1 skips a minor version"),
        ("v1.34.3+k3s1", True, ""),
        ("v1.36.3+k3s1", True, ""),  # a dump from before the upgrade was restored
        ("v1.33.3+k3s1", False, ""),
        ("", True, ""),
    ],
)
def test_the_path_while_the_api_is_down(load: Load, installed: str, *, by_us: bool, words: str) -> None:
    ledger = Ledger(installed="server 1" if by_us else "")
    seen = {"s1": HostFacts("s1", ledger=ledger, installed_version=installed), "db1": HostFacts("db1")}
    findings = found(load({"version": "v1.35.1+k3s1"}), seen)
    assert [(one.host, one.found) for one in findings] == [("s1", words)] * bool(words)
