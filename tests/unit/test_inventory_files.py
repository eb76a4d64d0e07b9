"""The form of config and inventory: sources with lines, schemas, and what K3s would find out only at run time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nornir_k3s import k3s
from nornir_k3s.inventory import file_models, files, rules
from nornir_k3s.inventory.problems import Problems
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.model.suggest import closest, did_you_mean

PROJECT = Path(__file__).resolve().parents[2]


def test_all_schemas_are_written_and_are_schemas(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "nornir_k3s.cli.schemas", str(tmp_path)], check=True, timeout=120)
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    files, reports = (
        {"config", "hosts", "groups", "defaults"},
        {
            "report",
            "plan",
            "status",
            "drift",
            "drill",
            "drill-plan",
            "upgrade",
            "removal",
            "backup",
            "reset",
            "restoration",
            "rotation",
            "move",
        },
    )
    assert set(written) == files | reports
    for schema in written.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("kind", ["config", "hosts", "groups", "defaults"])
def test_the_project_s_own_files_fit_their_schema_and_a_misspelt_key_does_not(kind: str) -> None:
    path = PROJECT / ("config.yaml" if kind == "config" else f"inventory/{kind}.yaml")
    data = read(path).data
    schema = file_models.json_schema(kind)
    jsonschema.validate(data, schema)
    entry = data["s1"] if kind == "hosts" else data["servers"] if kind == "groups" else data
    entry["usernam"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


def test_the_schema_knows_k3s_settings() -> None:
    schema = file_models.json_schema("defaults")
    data = read(PROJECT / "inventory/defaults.yaml").data
    server = data["data"]["k3s_cluster"]["server"]
    for key, value in (("flanel-backend", "vxlan"), ("disable-kube-proxy", "yes"), ("flannel-backend", "vxlans")):
        server_before = dict(server)
        server[key] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema)
        server.clear()
        server.update(server_before)
    server.update({"disable-kube-proxy": "false", "tls-san+": ["api.example.org"], "write-kubeconfig-mode": 644})
    jsonschema.validate(data, schema)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"node-ip": "10.0.0.300"}, "not an IP address"),
        ({"cluster-cidr": "10.42.0.0/33"}, "not a network"),
        ({"service-node-port-range": "40000-30000"}, "not a range"),
        ({"kubelet-arg": ["-max-pods=9"]}, "is not NAME=VALUE"),
        ({"kube-apiserver-arg": "v=4"}, "ends K3s when it starts"),
        ({"kube-scheduler-arg": ["--vmodule=a=4"]}, "ends K3s when it starts"),
        ({"kubelet-arg": ["max-pods=9", "v=2"]}, "ends K3s when it starts"),
        ({"kube-controller-manager-arg": ["logging-format=json"]}, "ends K3s when it starts"),
        ({"service-node-port-range": "30000+40000"}, "not a range"),
        ({"docker": "yes"}, "true or false, not 'yes'"),
        ({"snapshotter+": "native"}, "takes one value"),
        ({"write-kubeconfig-mode": "rw"}, "is not a mode"),
        ({"https-listen-port": 70000}, "not a port"),
        ({"node-label": ["no label"]}, "not a label"),
        ({"node-taint": ["key=value:Never"]}, "not a taint"),
        ({"tls-san": []}, "is empty"),
        ({"snapshotter": ["a"]}, "not a list"),
        ({"snapshotter": True}, "in quotes"),
        ({"egress-selector-mode": "clustr"}, "did you mean `cluster`"),
        ({"docker": True, "container-runtime-endpoint": "x"}, "exclude each other"),
    ],
)
def test_a_setting_that_k3s_would_refuse(settings: dict[str, Any], words: str) -> None:
    found = [text for _, text in rules.settings(settings, k3s.SERVER_SETTINGS)]
    assert len(found) == 1, found
    assert words in found[0]


def test_settings_as_people_write_them_are_no_problem() -> None:
    settings = {
        "node-label": ["role=db", "example.com/zone=a", "node.kubernetes.io/instance-type=big"],
        "node-taint": ["dedicated=db:NoSchedule", "CriticalAddonsOnly=true:NoExecute", "key:PreferNoSchedule"],
        "kubelet-arg": ["max-pods=200", "--fail-cgroupv1=false", "feature-gates+=A=true"],
        "kube-proxy-arg": "v=2",
        "v": "4",
        "docker": "false",
        "container-runtime-endpoint": "/run/x.sock",
        "cluster-cidr": "10.42.0.0/16,2001:cafe:42::/56",
        "service-node-port-range": "30000-32767",
        "write-kubeconfig-mode": 644,
        "disable": "traefik,servicelb",
        "https-listen-port": 6443,
    }
    assert list(rules.settings(settings, k3s.SERVER_SETTINGS)) == []


def test_a_setting_is_found_with_host_group_or_defaults(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("a: {groups: [g]}\nb:\n  groups: [g]\n  data:\n    k3s:\n      node-ip: x\n")
    (tmp_path / "groups.yaml").write_text("g:\n  groups: [top]\ntop:\n  data:\n    k3s: {node-ip: y}\n")
    sources = files.read_inventory(
        {"host_file": str(tmp_path / "hosts.yaml"), "group_file": str(tmp_path / "groups.yaml")}
    )
    place = sources.host_location
    assert place("b", "data", "k3s", "node-ip") == f"{tmp_path}/hosts.yaml:6"
    assert place("a", "data", "k3s", "node-ip") == f"{tmp_path}/groups.yaml:5"
    assert place("a", "data", "k3s", "other") == f"{tmp_path}/hosts.yaml:1"
    problems = Problems(sources)
    problems.host("b", "words", "data", "k3s", "node-ip")
    assert problems == [f"{tmp_path}/hosts.yaml:6: b: words"]


def test_the_nearest_known_word_is_suggested() -> None:
    assert did_you_mean("hostnme", ["hostname", "port"]) == "; did you mean `hostname`?"
    assert did_you_mean("x", ["hostname", "port"]) == ""
    assert closest(8, {1, 80}) == "80"
    assert closest("hostnme", ["hostname"], cutoff=1.0) == ""


def test_lines_are_right_through_anchors_and_merges(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("base: &b\n  x: 1\nuse:\n  <<: *b\n  y: [1,\n    2]\n")
    source = read(tmp_path / "f.yaml")
    assert source.problems == ()
    assert source.line("use", "x") == 2
    assert source.line("use", "y", 1) == 6
    assert source.line("use", "z") is None


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_fail(content: bytes) -> None:
    path = Path("/dev/shm") / f"nornir-k3s-{time.monotonic_ns()}"  # noqa: S108 - one file a try
    try:
        path.write_bytes(content)
        source = read(path)
        assert source.problems or source.data is None or isinstance(source.data, object)
    finally:
        path.unlink()
