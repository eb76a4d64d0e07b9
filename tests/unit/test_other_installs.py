"""K3s that was installed some other way, and what it left: found before the first change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.checks import preflight
from nornir_k3s.checks.other_installs import SQLITE
from nornir_k3s.k3s_installed import flags
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.k3s_facts import SettingsFile
from nornir_k3s.model.machine_facts import Route

from .hosts import changed
from .test_preflight import healthy

Load = Callable[..., Cluster]
ABSENT = {k3s.CONFIG: FileState("absent")}
ENV = "/etc/systemd/system/k3s.service.env"
D = "/etc/rancher/k3s/config.yaml.d"


def found(cluster: Cluster, **facts: Any) -> list[Finding]:
    seen: dict[str, HostFacts] = healthy(cluster)
    seen["s1"] = changed(seen["s1"], **facts)
    return [one for one in preflight.check(cluster, seen) if one.subject != "datastore-single"]


def unit(*arguments: str) -> dict[str, UnitState]:
    return {"k3s.service": UnitState("loaded", "active", command=" ".join([k3s.BINARY, "server", *arguments]))}


def test_flags_are_read_in_every_form() -> None:
    command = "/usr/local/bin/k3s server --cluster-cidr=10.50.0.0/16 --disable traefik --disable servicelb --debug -v 2"
    wanted = {"cluster-cidr": "10.50.0.0/16", "disable": ["traefik", "servicelb"], "debug": "true", "v": "2"}
    assert flags(command) == wanted
    assert flags("/usr/local/bin/k3s server") == flags("") == {}
    assert flags("/bin/sh -c exec k3s server --disable traefik") == {"disable": "traefik"}


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(
    ("flag", "running"),
    [("--cluster-cidr=10.50.0.0/16", "cluster-cidr 10.50.0.0/16"), ("--secrets-encryption", "secrets-encryption true")],
)
def test_networks_in_the_flags_of_another_s_k3s_are_those_of_its_cluster(
    load: Load, ready: bool, flag: str, running: str
) -> None:
    findings = found(
        load(),
        foreign_units=("k3s.service",),
        files=ABSENT,
        units=unit(flag, "--disable", "traefik"),
        api={"ready": ready},
    )
    by_id = {one.subject: one for one in findings}
    assert set(by_id) == {"for-ever", "foreign-k3s"}
    assert by_id["for-ever"].severity == "error"
    assert running in by_id["for-ever"].found
    assert "--" not in by_id["foreign-k3s"].remedy
    assert "disable" in by_id["foreign-k3s"].remedy


def test_another_s_k3s_with_default_networks_is_not_led_to_others(load: Load) -> None:
    cluster = load({"server": {"cluster-cidr": "10.50.0.0/16"}})
    findings = found(cluster, foreign_units=("k3s.service",), files=ABSENT, units=unit(), api={"ready": True})
    assert [one.subject for one in findings] == ["for-ever", "foreign-k3s"]
    assert found(cluster, files=ABSENT, units=unit(), api={"ready": True}) == [], "our own, whose file was lost"


def test_what_deploy_would_drop_is_named(load: Load) -> None:
    extra = (SettingsFile(ENV, ("K3S_TOKEN", "K3S_DEBUG"), 1),)
    (one,) = found(load(), foreign_units=("k3s.service",), units=unit("--node-label", "a=b"), extra_settings=extra)
    assert (one.subject, one.severity) == ("foreign-k3s", "warning")
    assert "deploy drops node-label, K3S_DEBUG, K3S_TOKEN of the unit" in one.remedy


@pytest.mark.parametrize("name", ["token", "datastore-endpoint", "server", "cluster-init", "cluster-cidr", "node-name"])
def test_settings_of_earlier_times_that_would_make_another_cluster_are_errors(load: Load, name: str) -> None:
    (one,) = found(load(), extra_settings=(SettingsFile(f"{D}/old.yaml", ("debug", name), 1),))
    assert (one.subject, one.severity) == ("extra-settings", "error")
    assert one.found == f"{D}/old.yaml sets {name}, which would hold instead of the inventory's"
    assert f"mv {D}/old.yaml {D}/old.yaml.before" in one.remedy


@pytest.mark.parametrize(
    ("name", "severity"),
    [("K3S_URL", "error"), ("K3S_AGENT_TOKEN", "error"), ("K3S_CONFIG_FILE", "error"), ("K3S_TOKEN", "note")],
)
def test_the_environment_holds_where_config_yaml_has_no_value(load: Load, name: str, severity: str) -> None:
    (one,) = found(load(), extra_settings=(SettingsFile("/etc/default/k3s", (name,), 1),))
    assert (one.subject, one.severity) == ("extra-settings", severity)
    assert f"remove {name} from /etc/default/k3s" in one.remedy


def test_other_settings_beside_ours_are_a_note_and_our_own_files_are_none(load: Load) -> None:
    path = "/etc/default/k3s"
    (one,) = found(load(), extra_settings=(SettingsFile(f"{D}/x.yaml", ("debug",), 1),))
    assert (one.subject, one.severity) == ("extra-settings", "note")
    ours = {"extra_settings": (SettingsFile(path, ("K3S_TOKEN",), 1),), "ledger": Ledger(files=frozenset([path]))}
    assert found(load(), **ours) == []


def test_sqlite_is_refused_unless_the_server_has_left_it(load: Load) -> None:
    alone: dict[str, Any] = {"present": {SQLITE}, "api": {"ready": True}}
    foreign = {"foreign_units": ("k3s.service",)}
    (one, *others) = found(load(), **alone, **foreign, units=unit(), files=ABSENT)
    assert (one.subject, [other.subject for other in others]) == ("sqlite", ["foreign-k3s"])
    assert f"mv {k3s.DATA}/server {k3s.DATA}/server.before" in one.remedy
    for moved in (
        {**foreign, "units": unit("--datastore-endpoint=mysql://x"), "files": ABSENT},
        {**foreign, "extra_settings": (SettingsFile(ENV, ("K3S_DATASTORE_ENDPOINT",), 1),), "files": ABSENT},
        {"files": {k3s.CONFIG: FileState("file", text="datastore-endpoint: mysql://x\n")}},
        {"files": {k3s.CONFIG: FileState("file")}, "ledger": Ledger(files=frozenset([k3s.CONFIG]))},
    ):
        assert "sqlite" not in {one.subject for one in found(load(), **alone, **moved)}


def test_an_agent_where_a_server_is_wanted(load: Load) -> None:
    for facts in ({"present": {"/etc/systemd/system/k3s-agent.service"}}, {"foreign_units": ("k3s-agent.service",)}):
        (one,) = found(load(), **facts)
        assert (one.subject, one.severity) == ("role", "error")
        assert "kubectl delete node s1, then k3s-agent-uninstall.sh" in one.remedy


@pytest.mark.parametrize("name", ["rke2-server.service", "rke2-agent.service", "kubelet.service", "k0sworker.service"])
def test_another_kubernetes_is_refused(load: Load, name: str) -> None:
    (one,) = found(load(), foreign_units=(name,))
    assert (one.subject, one.severity) == ("other-kubernetes", "error")
    assert f"systemctl disable --now {name}" in one.remedy


SHORT: list[tuple[str, dict[str, Any]]] = [
    ("t", {"extra_settings": (SettingsFile(f"{D}/old.yaml", ("debug", "t"), 1),)}),
    ("--token", {"units": unit("-t", "secret-of-another")}),
    ("--server", {"units": unit("-s", "https://10.9.9.9:6443")}),
    ("--data-dir", {"units": unit("-d", "/opt/k3s")}),
]


@pytest.mark.parametrize(("named", "facts"), SHORT)
def test_short_names_of_settings_are_those_settings(load: Load, named: str, facts: dict[str, Any]) -> None:
    (one,) = found(load(), **facts)
    assert (one.subject, one.severity) == ("extra-settings", "error")
    assert named in one.found
    assert "secret" not in one.found + one.remedy


@pytest.mark.parametrize(
    "facts",
    [
        {"units": unit("--data-dir=/opt/k3s", "--cluster-init"), "files": ABSENT},
        {"units": unit("-d", "/opt/k3s/"), "files": ABSENT},
        {"units": unit(), "files": {k3s.CONFIG: FileState("file", text="data-dir: /opt/k3s\n")}},
    ],
)
def test_a_cluster_whose_data_the_next_start_would_not_find_is_refused(load: Load, facts: dict[str, Any]) -> None:
    by_id = {one.subject: one for one in found(load(), foreign_units=("k3s.service",), **facts)}
    assert by_id["foreign-k3s"].severity == "error"
    assert "has its data in /opt/k3s," in by_id["foreign-k3s"].found
    assert "systemctl disable --now k3s.service" in by_id["foreign-k3s"].remedy


def test_a_data_folder_in_the_environment_and_the_usual_one(load: Load) -> None:
    extra = (SettingsFile(ENV, ("K3S_DATA_DIR",), 1),)
    (one,) = found(load(), foreign_units=("k3s.service",), units=unit(), files=ABSENT, extra_settings=extra)
    assert (one.severity, "data in another folder" in one.found) == ("error", True)
    (one,) = found(load(), foreign_units=("k3s.service",), units=unit("--data-dir", k3s.DATA), files=ABSENT)
    assert one.severity == "warning"


def test_an_endpoint_that_is_sqlite_s_is_no_other_datastore(load: Load) -> None:
    facts = {"present": {SQLITE}, "foreign_units": ("k3s.service",), "files": ABSENT}
    for endpoint in ("--datastore-endpoint=sqlite:///var/lib/x.db", "--datastore-endpoint="):
        assert "sqlite" in {one.subject for one in found(load(), **facts, units=unit(endpoint))}


def test_routes_to_the_pods_of_a_stopped_k3s_are_its_own(load: Load) -> None:
    facts: dict[str, Any] = {"routes": (Route("10.42.0.0/24", "dev cni0"),)}
    assert "cidr" in {one.subject for one in found(load(), **facts)}
    assert "cidr" not in {one.subject for one in found(load(), **facts, foreign_units=("k3s.service",))}
