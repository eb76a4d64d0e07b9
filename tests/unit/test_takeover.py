"""A K3s that others installed with flags is taken over: it restarts only if its effective settings would differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.apply import script
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.host_spec import Artifact, File
from nornir_k3s.model.k3s_facts import ServerFiles, SettingsFile
from nornir_k3s.model.machine_facts import Address
from nornir_k3s.model.paths import INSTALLER
from nornir_k3s.planner import PlannedHost, plan_host
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.roles.running import takeover

from .hosts import changed

Load = Callable[..., Cluster]
UNIT = "k3s.service"
ENV = "/etc/systemd/system/k3s.service.env"
DROPIN = "/etc/rancher/k3s/config.yaml.d/50-more.yaml"
STARTED = 500
HOST = ["--tls-san", "10.0.0.100", "--node-taint=CriticalAddonsOnly=true:NoExecute"]


@pytest.fixture(name="load")
def _load(load: Load) -> Load:
    """A cluster whose servers verify no datastore: the file of a CA would be another than before."""
    return lambda changes=None: load({"datastore": {"kind": "mariadb", "tls": False}, "server": {}, **(changes or {})})


def settings(cluster: Cluster) -> list[str]:
    """Return flags as somebody writes them who follows K3s' guide; in another order, and other forms."""
    endpoint = next(line for line in _config(cluster) if line.startswith("datastore-endpoint: "))
    return [f"--datastore-endpoint={endpoint.partition(': ')[2]}", f"--token={cluster.token.reveal()}", *HOST]


def _config(cluster: Cluster) -> list[str]:
    spec = desired(cluster, cluster.member("s1"), None, Known())
    return next(file.text.reveal() for file in spec.files if file.path == k3s.CONFIG).splitlines()


def foreign(
    cluster: Cluster,
    *flags: str,
    environment: str = "",
    configs: tuple[tuple[str, str], ...] = (),
    unit: str = "",
    **values: Any,
) -> HostFacts:
    """Return the facts of a server that runs with these flags."""
    words = [*(settings(cluster) if not environment and not configs else HOST), *flags]
    text = unit or f"[Service]\nExecStart={k3s.BINARY} server " + " ".join(f"'{word}'" for word in words) + "\n"
    one = k3s_installed.installed(
        UNIT, text, environments=[(ENV, environment)], files=configs, active=True, enabled=True, changed=400
    )
    assert one is not None
    base = HostFacts(
        "s1",
        addresses=(Address("lo", "127.0.0.1/8"), Address("eth0", "fe80::1/64"), Address("eth0", "10.0.0.12/24")),
        default_routes=("default via 10.0.0.1 dev eth0",),
        files={k3s.CONFIG: FileState("absent")},
        units={UNIT: UnitState("loaded", "active", "running", "enabled", 0, STARTED, STARTED)},
        foreign_units=(UNIT,),
        installations=(one,),
        server=ServerFiles("", cluster.token.fingerprint(), ""),
    )
    return changed(base, **{"system": {"hostname": "s1"}, **values})


def plan(cluster: Cluster, facts: HostFacts) -> PlannedHost:
    return plan_host(cluster, cluster.member("s1"), facts, Known())


def restarts(cluster: Cluster, facts: HostFacts) -> str:
    """Return the summary of the restart, if K3s would restart."""
    return next((step.summary for step in plan(cluster, facts).steps if step.action == "restart"), "")


def test_flags_become_a_config_yaml_without_a_restart(load: Load) -> None:
    cluster = load()
    found = plan(cluster, foreign(cluster))
    assert [step.id for step in found.steps] == [f"file:{k3s.CONFIG}", f"install:{UNIT}"]
    assert "no restart: the settings that run are the same" in found.steps[0].summary
    assert [step.kind for step in found.stage] == [], "its flags go when its unit is written: config.yaml comes first"
    assert not found.starts_k3s


SAME: list[tuple[str, dict[str, Any], list[str]]] = [
    ("default", {"server": {"cluster-cidr": "10.42.0.0/16", "cluster-domain": "cluster.local"}}, []),
    (
        "default the other way",
        {},
        ["--cluster-cidr=10.42.0.0/16", "--flannel-backend=vxlan", "--cluster-dns=10.43.0.10"],
    ),
    ("boolean", {"server": {"disable-helm-controller": True}}, ["--disable-helm-controller=1"]),
    ("boolean off", {}, ["--debug=false"]),
    ("comma list", {"server": {"disable": ["servicelb", "traefik"]}}, ["--disable=traefik,servicelb"]),
    ("list", {"server": {"disable": ["servicelb", "traefik"]}}, ["--disable", "traefik", "--disable", "servicelb"]),
    ("mode", {"server": {"write-kubeconfig-mode": "0644"}}, ["--write-kubeconfig-mode=644"]),
    (
        "old name",
        {"server": {"kube-controller-manager-arg": ["node-monitor-period=9s"]}},
        ["--kube-controller-arg=node-monitor-period=9s"],
    ),
    (
        "arguments",
        {"server": {"kubelet-arg": ["eviction-hard=a", "max-pods=50"]}},
        ["--kubelet-arg=max-pods=50", "--kubelet-arg=eviction-hard=a"],
    ),
    ("not used with a datastore endpoint", {}, ["--server=https://10.0.0.12:6443", "--cluster-init"]),
    ("node", {}, ["--node-ip=10.0.0.12", "--node-name=s1"]),
    ("listens", {}, ["--bind-address=0.0.0.0", "--advertise-port=6443", "--https-listen-port=6443"]),
    ("kubeconfig", {}, ["--write-kubeconfig=/etc/rancher/k3s/k3s.yaml"]),
    ("boolean that is on", {}, ["--tls-san-security"]),
]


@pytest.mark.parametrize(("wanted", "flags"), [one[1:] for one in SAME], ids=[one[0] for one in SAME])
def test_settings_that_mean_the_same_to_k3s_are_no_reason_to_restart(
    load: Load, wanted: dict[str, Any], flags: list[str]
) -> None:
    cluster = load(wanted)
    assert restarts(cluster, foreign(cluster, *flags)) == ""


OTHER: list[tuple[dict[str, Any], list[str], str]] = [
    ({"server": {"cluster-dns": "10.43.0.11"}}, [], "cluster-dns"),
    ({}, ["--debug"], "debug"),
    ({}, ["--tls-san-security=false"], "tls-san-security"),
    ({}, ["--advertise-port=443"], "advertise-port"),
    ({"server": {"disable": ["traefik"]}}, ["--disable=traefik,servicelb"], "disable"),
    ({"server": {"tls-san": ["k3s.example"]}}, [], "tls-san"),
    (
        {"server": {"kubelet-arg": ["max-pods=5", "max-pods=6"]}},
        ["--kubelet-arg=max-pods=6", "--kubelet-arg=max-pods=5"],
        "kubelet-arg",
    ),
    ({}, ["--node-ip=10.0.0.12,10.9.9.9"], "node-ip"),
    ({}, ["--node-name=other"], "node-name"),
    ({}, ["--data-dir=/opt/k3s"], "data-dir"),
    ({}, ["--datastore-endpoint=mysql://k3s:x@tcp(10.9.9.9)/k3s"], "datastore-endpoint"),
    ({}, ["--datastore-endpoint=nats://x"], "datastore-endpoint"),
]


@pytest.mark.parametrize(("wanted", "flags", "key"), OTHER)
def test_other_settings_restart_it_and_are_named(
    load: Load, wanted: dict[str, Any], flags: list[str], key: str
) -> None:
    cluster = load(wanted)
    assert restarts(cluster, foreign(cluster, *flags)) == f"restart {UNIT}: {key} would differ"


def test_the_environment_and_drop_ins_count_as_k3s_merges_them(load: Load) -> None:
    cluster = load({"server": {"disable": ["traefik", "servicelb"]}})
    endpoint = settings(cluster)[0].partition("=")[2]
    token = f"K10{'0' * 64}::server:{cluster.token.reveal()}"
    environment = f"K3S_TOKEN='{token}'\nK3S_DATASTORE_ENDPOINT='{endpoint}'\nK3S_NODE_NAME=s1\n"
    files = ((k3s.CONFIG, "disable: [traefik]\n"), (DROPIN, "disable+: servicelb\n"))
    only = foreign(cluster, environment=environment, configs=((k3s.CONFIG, "disable: [servicelb, traefik]\n"),))
    assert restarts(cluster, only) == ""
    # A part of the list stays in the drop-in: what it will add up to is the same here, so nothing restarts.
    assert restarts(cluster, foreign(cluster, environment=environment, configs=files)) == ""
    other = foreign(cluster, environment=environment.replace("NAME=s1", "NAME=s9"), configs=files)
    assert "node-name would differ" in restarts(cluster, other)
    kept = (*files, (DROPIN.replace("50", "60"), "debug: true\n"))
    assert restarts(cluster, foreign(cluster, environment=environment, configs=kept)) == "", "a drop-in stays as it is"


def test_variables_of_the_environment_are_settings_too(load: Load) -> None:
    cluster = load()
    endpoint = settings(cluster)[0].partition("=")[2]
    environment = f"K3S_TOKEN={cluster.token.reveal()}\nK3S_DATASTORE_ENDPOINT='{endpoint}'\n"
    facts = foreign(cluster, environment=f"{environment}HTTPS_PROXY=http://p:1\n")
    assert restarts(cluster, facts) == f"restart {UNIT}: HTTPS_PROXY would differ"
    stays = changed(facts, extra_settings=(SettingsFile("/etc/default/k3s", ("HTTPS_PROXY",), 1),))
    assert restarts(cluster, stays) == ""


def test_names_that_k3s_has_in_its_certificate_anyway_restart_nothing(load: Load) -> None:
    cluster = load()
    own = ["--tls-san=10.0.0.12", "--tls-san=s1,localhost"]
    assert restarts(cluster, foreign(cluster, *own)) == ""
    assert "tls-san" in restarts(cluster, foreign(cluster, *own, "--tls-san=10.0.0.13"))


def test_variables_of_a_drop_in_stay_and_restart_nothing(load: Load) -> None:
    cluster = load()
    flags = " ".join(f"'{word}'" for word in (*settings(cluster), *HOST))
    text = (
        f"[Service]\nExecStart={k3s.BINARY} server {flags}\n# /etc/systemd/system/k3s.service.d/10-go.conf\n[Service]\n"
        "Environment=GOGC=50 HTTP_PROXY=http://p:1\n"
    )
    assert restarts(cluster, foreign(cluster, unit=text)) == ""
    main = text.replace("# /etc/systemd/system/k3s.service.d/10-go.conf\n", "")
    assert restarts(cluster, foreign(cluster, unit=main)) == f"restart {UNIT}: GOGC, HTTP_PROXY would differ"
    proxied = load({"proxy": {"http": "http://p:2"}})
    assert "HTTP_PROXY" in restarts(proxied, foreign(proxied, unit=text))


def test_a_file_of_the_environment_that_is_replaced_does_not_stay(load: Load) -> None:
    cluster = load({"proxy": {"http": "http://p:2"}})
    stays = SettingsFile("/etc/default/k3s", ("GOGC",), 1)
    endpoint = settings(cluster)[0].partition("=")[2]
    environment = f"K3S_TOKEN={cluster.token.reveal()}\nK3S_DATASTORE_ENDPOINT='{endpoint}'\nGOGC=50\n"
    assert "GOGC" in restarts(cluster, foreign(cluster, environment=environment, extra_settings=(stays,)))


def test_a_token_in_a_file_is_compared_by_its_text(load: Load) -> None:
    cluster = load()
    other = f"restart {UNIT}: token, token-file would differ"
    for text, differs in ((f"{cluster.token.reveal()}\n", ""), ("other\n", other)):
        words = [settings(cluster)[0], "--token-file=/etc/t", *HOST]
        unit = f"[Service]\nExecStart={k3s.BINARY} server " + " ".join(f"'{word}'" for word in words) + "\n"
        one = k3s_installed.installed(UNIT, unit, tokens=[("/etc/t", text)], active=True, enabled=True, changed=400)
        assert one is not None
        assert restarts(cluster, changed(foreign(cluster), installations=(one,), server=ServerFiles())) == differs


@pytest.mark.parametrize(
    "values",
    [
        {"installations": ()},
        {"units": {UNIT: UnitState("loaded", "active", "running", "enabled", 0, 300, 300)}},
        {"files": {k3s.CONFIG: FileState("file", changed=900, text="debug: true\n")}},
    ],
)
def test_a_process_that_may_run_with_other_settings_restarts(load: Load, values: dict[str, Any]) -> None:
    """Nobody has read its files, or they are newer than the process."""
    cluster = load()
    assert restarts(cluster, foreign(cluster, **values)) == f"restart {UNIT}"


def test_one_that_is_stopped_is_started(load: Load) -> None:
    cluster = load()
    stopped = foreign(cluster, units={UNIT: UnitState("loaded", "inactive", enabled="enabled")})
    assert [step.action for step in plan(cluster, stopped).steps if step.action] == ["start"]


def test_another_binary_restarts_it(load: Load) -> None:
    cluster = load()
    binary, installer = Artifact(Path("k3s"), k3s.BINARY, "a" * 64), Artifact(Path("x"), INSTALLER, "b" * 64)
    bundle = Bundle(binary, installer)
    facts = foreign(cluster, artifacts={k3s.BINARY: ArtifactState("c" * 64, 0o755, 100)})
    found = plan_host(cluster, cluster.member("s1"), facts, Known(bundle=bundle))
    assert found.starts_k3s
    unit = f"[Service]\nExecStart=/opt/bin/k3s server {' '.join(settings(cluster))}\n"
    assert "the path of K3s would differ" in restarts(cluster, foreign(cluster, unit=unit))


def test_a_run_that_was_interrupted_goes_on_and_the_restart_waits_for_the_next_that_is_needed(load: Load) -> None:
    """config.yaml is written, with a note of the process that has its settings; then the unit, then nothing is left."""
    cluster = load()
    facts = foreign(cluster)
    config = next(one for one in desired(cluster, cluster.member("s1"), facts, Known()).files if one.path == k3s.CONFIG)
    written = {k3s.CONFIG: FileState("file", 0o600, "root", "root", 1, 900, config.sha256, written=900)}
    noted = Ledger(files=frozenset([k3s.CONFIG]), same={k3s.CONFIG: (config.sha256, STARTED)})
    between = changed(facts, files=written, ledger=noted)
    assert [step.id for step in plan(cluster, between).steps] == [f"install:{UNIT}"]
    mark = plan(cluster, facts).steps[-1]
    assert mark.kind == "install"
    after = changed(between, foreign_units=(), installations=())
    assert not [step for step in plan(cluster, after).steps if step.kind == "unit"]
    other = changed(after, ledger=replace(noted, same={k3s.CONFIG: (config.sha256, STARTED - 1)}))
    assert restarts(cluster, other) == f"restart {UNIT}", "the note is of another process"


def test_the_script_notes_what_runs_before_it_writes_and_asks_for_no_restart(load: Load) -> None:
    cluster = load()
    found = plan(cluster, foreign(cluster))
    text = script.script(found.steps, found.desired).reveal()
    note, put = text.rindex("note_same /etc/rancher"), text.rindex("put /etc/rancher/k3s/config.yaml 600 root root ''")
    assert note < put < text.rindex("run_installer ")
    (step,) = (one for one in found.steps if isinstance(one.payload, File))
    assert isinstance(step.payload, File)
    assert f"note_same {k3s.CONFIG} {step.payload.sha256} {STARTED}\n" in text


def test_only_a_k3s_of_others_is_taken_over(load: Load) -> None:
    cluster = load()
    spec = desired(cluster, cluster.member("s1"), None, Known())
    assert takeover(cluster, cluster.member("s1"), spec, HostFacts("s1")).same == frozenset()


def test_drop_ins_that_flags_have_hidden_are_a_reason_to_restart(load: Load) -> None:
    cluster = load({"server": {"debug": True, "kubelet-arg": ["max-pods=50"]}})
    words = [*settings(cluster), "--debug", "--kubelet-arg=max-pods=50"]
    text = f"[Service]\nExecStart={k3s.BINARY} server " + " ".join(f"'{word}'" for word in words) + "\n"
    hidden = foreign(cluster, unit=text, configs=((DROPIN, "debug: false\nkubelet-arg+: [max-pods=60]\n"),))
    assert restarts(cluster, hidden) == "restart k3s.service: debug, kubelet-arg would differ"
    # The drop-ins of another config file are not read any more.
    words.insert(0, "--config=/srv/k3s.yaml")
    text = f"[Service]\nExecStart={k3s.BINARY} server " + " ".join(f"'{word}'" for word in words) + "\n"
    other = foreign(cluster, unit=text, configs=(("/srv/k3s.yaml.d/a.yaml", "selinux: true\n"),))
    assert restarts(cluster, other) == "restart k3s.service: selinux would differ"
