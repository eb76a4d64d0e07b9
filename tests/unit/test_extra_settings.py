"""Drop-ins, environment and flags of earlier times, with their values: told before the first change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.checks import preflight
from nornir_k3s.compare import effective_config
from nornir_k3s.compare import host as compare_host
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.k3s_facts import NodeState, ServerFiles, SettingsFile
from nornir_k3s.planner import plan_host
from nornir_k3s.roles.desired import Known, desired

from .hosts import changed
from .test_preflight import healthy
from .test_takeover import ENV, STARTED, UNIT, settings

Load = Callable[..., Cluster]
D = "/etc/rancher/k3s/config.yaml.d/50-old.yaml"
CONF = "/etc/systemd/system/k3s.service.d/old.conf"
PLAIN = f"[Service]\nExecStart={k3s.BINARY} server\n"


@pytest.fixture(name="load")
def _load(load: Load) -> Load:
    return lambda changes=None: load({"datastore": {"kind": "mariadb", "tls": False}, "server": {}, **(changes or {})})


def config(cluster: Cluster) -> str:
    spec = desired(cluster, cluster.member("s1"), None, Known())
    return next(file.text.reveal() for file in spec.files if file.path == k3s.CONFIG)


def server(
    cluster: Cluster,
    *,
    unit: str = PLAIN,
    files: tuple[tuple[str, str], ...] = (),
    foreign: bool = False,
    **values: Any,
) -> HostFacts:
    """Return the facts of a server that has these files, ours or of others."""
    main = () if foreign else ((k3s.CONFIG, config(cluster)),)
    one = k3s_installed.installed(UNIT, unit, files=(*main, *files), active=True, ours=not foreign, changed=400)
    assert one is not None
    state = UnitState("loaded", "active", "running", "enabled", 0, STARTED, STARTED, dropins=(CONF,) * (CONF in unit))
    base: dict[str, Any] = {
        "installations": (one,),
        "units": {UNIT: state},
        "server": ServerFiles("", cluster.token.fingerprint(), ""),
        "foreign_units": (UNIT,) * foreign,
        "files": {k3s.CONFIG: FileState("absent")} if foreign else {},
    }
    base["default_routes"] = ("default via 10.0.0.1 dev eth0",)
    return changed(healthy(cluster)["s1"], **{**base, **values})


def found(cluster: Cluster, facts: HostFacts) -> dict[str, Finding]:
    seen = {**healthy(cluster), "s1": facts}
    every = [one for one in preflight.check(cluster, seen) if one.subject != "datastore-single"]
    assert len({one.subject for one in every}) == len(every), every
    return {one.subject: one for one in every}


def with_dropin(cluster: Cluster, text: str, *names: str, **values: Any) -> HostFacts:
    return server(cluster, files=((D, text),), extra_settings=(SettingsFile(D, names, 1),), **values)


def test_a_drop_in_that_says_what_the_inventory_says_is_a_note(load: Load) -> None:
    cluster = load({"server": {"disable": ["traefik"], "cluster-cidr": "10.50.0.0/16"}})
    text = f"token: {cluster.token.reveal()}\ndisable: traefik\ncluster-cidr: 10.50.0.0/16\n"
    (one,) = found(cluster, with_dropin(cluster, text, "token", "disable", "cluster-cidr")).values()
    assert (one.subject, one.severity) == ("extra-settings", "note")
    assert one.found == f"{D} sets cluster-cidr, disable, token, as the inventory does"


@pytest.mark.parametrize("key", ["token", "datastore-endpoint", "node-name", "disable"])
def test_one_that_says_something_else_is_an_error_without_its_value(load: Load, key: str) -> None:
    cluster = load({"server": {"disable": ["traefik"]}})
    values = {"disable": "servicelb", "datastore-endpoint": "mysql://u:hush-hush@tcp(10.0.0.9:3306)/k3s"}
    facts = with_dropin(cluster, f"{key}: '{values.get(key, 'hush-hush')}'\n", key)
    one = found(cluster, facts)["extra-settings"]
    assert one.severity == "error"
    assert one.found == f"{D} sets {key}, which would hold instead of the inventory's"
    assert "hush" not in f"{one.found} {one.expected} {one.remedy}"


@pytest.mark.parametrize("state", ["active", "inactive"])
def test_the_networks_of_a_drop_in_are_those_of_the_cluster(load: Load, state: str) -> None:
    cluster = load()
    facts = with_dropin(cluster, "cluster-cidr: 10.50.0.0/16\n", "cluster-cidr")
    facts = changed(facts, units={UNIT: UnitState("loaded", state, started=STARTED)})
    by_id = found(cluster, facts)
    assert set(by_id) == {"for-ever", "extra-settings"}
    assert by_id["for-ever"].found == f"the running cluster has cluster-cidr 10.50.0.0/16 ({D})"
    assert "give cluster-cidr in the inventory" in by_id["extra-settings"].remedy, "not: rename the file"
    newer = with_dropin(cluster, "cluster-cidr: 10.50.0.0/16\n", "cluster-cidr")
    later = tuple(replace(one, changed=900) for one in newer.installations)
    newer = changed(newer, installations=later, api={"ready": True})
    assert set(found(cluster, newer)) == {"extra-settings"}, "K3s has not read it yet"


def test_flags_beside_our_config_are_those_of_the_cluster_also_while_it_is_stopped(load: Load) -> None:
    cluster = load()
    facts = server(cluster, unit=PLAIN.strip() + " --service-cidr=10.99.0.0/16 --debug\n")
    facts = changed(facts, units={UNIT: UnitState("loaded", "inactive")})
    by_id = found(cluster, facts)
    assert by_id["for-ever"].found == "the running cluster has service-cidr 10.99.0.0/16 (flags of k3s.service)"
    assert by_id["extra-settings"].found.startswith("k3s.service runs with --service-cidr, which hold")


def test_a_drop_in_of_the_unit_is_told_with_what_it_sets(load: Load) -> None:
    cluster = load()
    main = f"# /etc/systemd/system/k3s.service\n{PLAIN}# {CONF}\n[Service]\n"
    unit = f"{main}ExecStart=\nExecStart={k3s.BINARY} server --server=https://x:1\n"
    one = found(cluster, server(cluster, unit=unit))["extra-settings"]
    assert (one.severity, one.found) == ("error", f"{CONF} sets server, which would hold instead of the inventory's")
    assert "systemctl daemon-reload" in one.remedy
    assert found(cluster, server(cluster, unit=f"{main}LimitNOFILE=1\n")) == {}
    variables = f"{main}Environment=K3S_URL=https://x:1 K3S_TOKEN=other\n"
    for foreign in (False, True):  # config.yaml, which a deploy writes, has a token, and hides this one
        one = found(cluster, server(cluster, unit=variables, foreign=foreign))["extra-settings"]
        assert (one.severity, one.found) == (
            "error",
            f"{CONF} sets server, which would hold instead of the inventory's",
        )


def test_a_k3s_of_others_that_the_inventory_describes_is_taken_over(load: Load) -> None:
    cluster = load()
    flags = " ".join(f"'{word}'" for word in settings(cluster))
    (one,) = found(
        cluster, server(cluster, unit=f"{PLAIN.strip()} {flags}\n", foreign=True, system={"hostname": "s1"})
    ).values()
    assert (one.subject, one.severity) == ("foreign-k3s", "note")
    assert "runs with the settings of the inventory" in one.found


def test_what_would_change_of_a_k3s_of_others_is_named_and_its_secrets_are_not(load: Load) -> None:
    cluster = load({"server": {"disable": ["traefik"]}})
    flags = " ".join(f"'{word}'" for word in (*settings(cluster), "--debug", "--agent-token=hush-hush"))
    text = f"{PLAIN.strip()} {flags}\n"
    one = found(cluster, server(cluster, unit=text, foreign=True, system={"hostname": "s1"}))["foreign-k3s"]
    assert one.severity == "warning"
    assert "debug: true, the inventory: unset" in one.found
    assert "disable: unset, the inventory: traefik" in one.found
    assert "deploy drops agent-token, debug of the unit" in one.remedy
    assert "hush" not in f"{one.found}{one.remedy}"


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--cluster-domain=x.local", "cluster-domain x.local (flags of k3s.service)"),
        ("--flannel-backend=host-gw", "flannel-backend host-gw (flags of k3s.service)"),
        ("--cluster-dns=10.43.0.77", "cluster-dns 10.43.0.77 (flags of k3s.service)"),
        ("--cluster-cidr=10.50.0.0/16", "cluster-cidr 10.50.0.0/16 (flags of k3s.service)"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "file", "environment"])
def test_a_takeover_changes_nothing_that_a_living_cluster_has_for_ever(
    load: Load, flag: str, text: str, way: str
) -> None:
    cluster = load()
    key, _, value = flag.removeprefix("--").partition("=")
    unit = f"{PLAIN.strip()} {flag}\n" if way == "flag" else PLAIN
    files = ((k3s.CONFIG, f"{key}: {value}\n"),) if way == "file" else ()
    if way == "environment":
        unit = f"[Service]\nEnvironment=FLAG={flag}\nExecStart={k3s.BINARY} server $FLAG\n"
    one = found(cluster, server(cluster, unit=unit, files=files, foreign=True))["for-ever"]
    origin = k3s.CONFIG if way == "file" else "flags of k3s.service"
    assert one.found == f"the running cluster has {text.partition(' (')[0]} ({origin})"


def test_drift_has_a_note_of_what_runs_since_before_it_was_taken_over(load: Load) -> None:
    cluster = load()
    member = cluster.member("s1")
    spec = desired(cluster, member, None, Known())
    files = {f.path: FileState("file", f.mode, f.owner, f.group, 1, 900, f.sha256, written=900) for f in spec.files}
    noted = Ledger(files=frozenset(files), same={k3s.CONFIG: (files[k3s.CONFIG].sha256, STARTED)})
    facts = HostFacts(
        "s1",
        files=files,
        ledger=noted,
        units={UNIT: UnitState("loaded", "active", "running", "enabled", 0, STARTED, STARTED)},
    )
    planned = plan_host(cluster, member, facts, Known())
    (one,) = [one for one in compare_host.differences(cluster, planned) if one.kind == "stale"]
    assert (one.severity, one.counts) == ("note", False)
    node = NodeState("s1", ready=True, version="", args=("server", "--write-kubeconfig-mode", "0644"))
    assert list(effective_config.differences(cluster, {"s1": facts}, [node])) == []
    assert list(effective_config.differences(cluster, {"s1": changed(facts, ledger=Ledger())}, [node]))
    agent = NodeState("a1", ready=True, version="", args=("agent", "--debug"))
    assert list(effective_config.differences(cluster, {"a1": HostFacts("a1")}, [agent]))


def test_drift_has_a_note_of_a_drop_in_that_says_what_the_inventory_says(load: Load) -> None:
    cluster = load({"server": {"disable": ["traefik"]}})
    for value, severity in (("traefik", "note"), ("servicelb", "warning")):
        facts = with_dropin(cluster, f"disable: {value}\n", "disable")
        planned = plan_host(cluster, cluster.member("s1"), facts, Known())
        (one,) = [one for one in compare_host.differences(cluster, planned) if one.kind == "settings"]
        assert one.severity == severity


def test_what_a_move_does_is_told_for_a_server_on_sqlite(load: Load) -> None:
    cluster = load()
    present = frozenset([f"{k3s.DATA}/server/db/state.db"])
    facts = server(cluster, foreign=True, present=present)
    one = found(cluster, facts)["sqlite"]
    assert one.found.startswith("K3s runs on SQLite")
    assert "its token is the one given" in one.remedy
    assert "copies its table to the datastore of the inventory" in one.remedy
    other = changed(facts, server={"token": "0" * 12}, units={UNIT: UnitState("loaded", "inactive")})
    one = next(x for x in preflight.check(cluster, {**healthy(cluster), "s1": other}) if x.subject == "sqlite")
    assert one.found.startswith("files of SQLite")
    assert f"first give the token in {k3s.DATA}/server/token" in one.remedy


def test_the_environment_of_another_s_unit_is_part_of_what_is_taken_over(load: Load) -> None:
    cluster = load()
    facts = server(cluster, foreign=True, extra_settings=(SettingsFile(ENV, ("K3S_TOKEN",), 1),))
    assert "extra-settings" not in found(cluster, facts)


def test_a_drop_in_that_an_uninstalled_k3s_has_left_is_found_before_the_next_one_reads_it(load: Load) -> None:
    cluster = load()
    for value, severity in (("hush-hush", "error"), (cluster.token.reveal(), "note")):
        facts = with_dropin(cluster, f"token: {value}\n", "token", foreign=True)
        bare = changed(facts, foreign_units=(), units={}, server=ServerFiles())
        (one,) = found(cluster, bare).values()
        assert (one.subject, one.severity) == ("extra-settings", severity)
        assert "hush" not in f"{one.found}{one.remedy}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token", "hush-hush"),
        ("datastore-endpoint", "mysql://u:hush-hush@tcp(10.0.0.9:3306)/k3s"),
        ("disable", "servicelb"),
    ],
)
def test_a_drop_in_that_flags_hide_until_they_go_is_an_error(load: Load, key: str, value: str) -> None:
    cluster = load({"server": {"disable": ["traefik"]}})
    flags = " ".join(f"'{word}'" for word in (*settings(cluster), "--disable=traefik"))
    unit = f"{PLAIN.strip()} {flags}\n"
    facts = with_dropin(cluster, f"{key}: '{value}'\n", key, unit=unit, foreign=True, system={"hostname": "s1"})
    by_id = found(cluster, facts)
    assert by_id["extra-settings"].severity == "error"
    assert by_id["extra-settings"].found == f"{D} sets {key}, which would hold instead of the inventory's"
    assert by_id["foreign-k3s"].severity == "warning", "and the takeover says that it would change"
    assert "hush" not in str(by_id)


def test_a_drop_in_with_another_token_than_the_server_runs_with_is_an_error(load: Load) -> None:
    cluster = load()
    one = found(cluster, with_dropin(cluster, "token: newer\n", "token"))["extra-settings"]
    assert (one.severity, one.found) == ("error", f"{D} sets token, which would hold instead of the inventory's")


def test_the_text_of_a_token_file_in_a_drop_in_counts(load: Load) -> None:
    cluster = load()
    for text, severity in ((f"{cluster.token.reveal()}\n", "note"), ("hush-hush\n", "error")):
        facts = with_dropin(cluster, "token-file: /etc/t\n", "token-file")
        files = ((D, "token-file: /etc/t\n"), (k3s.CONFIG, config(cluster)))
        one = k3s_installed.installed(UNIT, PLAIN, files=files, tokens=[("/etc/t", text)], active=True, ours=True)
        assert one is not None
        (finding,) = found(cluster, changed(facts, installations=(one,))).values()
        assert (finding.subject, finding.severity) == ("extra-settings", severity)
        assert "hush" not in str(finding)


def test_a_command_that_cannot_be_read_is_told(load: Load) -> None:
    cluster = load()
    facts = server(cluster, unit="[Service]\nExecStart=/opt/start-k3s.sh\n", foreign=True)
    one = found(cluster, facts)["foreign-k3s"]
    assert "not all of its settings can be read (k3s.service: /opt/start-k3s.sh starts it" in one.found


def test_an_agent_of_another_cluster_is_not_taken_over(load: Load) -> None:
    cluster = load()

    def agent(token: str, *away: str, **values: Any) -> dict[str, Finding]:
        text = f"[Service]\nExecStart={k3s.BINARY} agent --server=https://x:6443 --token={token}\n"
        one = k3s_installed.installed("k3s-agent.service", text, active=True)
        seen = healthy(cluster)
        base = {"installations": (one,), "foreign_units": ("k3s-agent.service",), "agent_ca": "ab" * 32}
        seen["a1"] = changed(seen["a1"], **{**base, **values})
        seen = {name: facts for name, facts in seen.items() if name not in away}
        return {one.subject: one for one in preflight.check(cluster, seen) if one.host == "a1"}

    one = agent("hush-hush")["leftovers"]
    assert (one.severity, one.found[:33]) == ("error", "it is an agent of another cluster")
    assert "hush" not in str(one)
    assert "leftovers" not in agent("hush-hush", foreign_units=())
    assert "leftovers" not in agent("hush-hush", "s1"), "its server was not read"
    mine = agent(f"K10{'a' * 64}::node:{cluster.token.reveal()}")
    assert "leftovers" not in mine or mine["leftovers"].severity == "warning", "a rotated CA"


@pytest.mark.parametrize("value", ["", "sqlite:///srv/state.db"])
def test_an_endpoint_that_is_empty_or_sqlite_is_none(load: Load, value: str) -> None:
    cluster = load()
    present = frozenset([f"{k3s.DATA}/server/db/state.db"])
    text = f"datastore-endpoint: '{value}'\n"
    facts = with_dropin(cluster, text, "datastore-endpoint", foreign=True, present=present)
    assert found(cluster, facts)["sqlite"].severity == "error"


@pytest.mark.parametrize("how", ["Environment=K3S_DATA_DIR=/srv/k3s\n", "Environment=K3S_CONFIG_FILE=/srv/k3s.yaml\n"])
def test_data_in_another_folder_are_found_whatever_names_it(load: Load, how: str) -> None:
    cluster = load()
    unit = f"[Service]\n{how}ExecStart={k3s.BINARY} server\n"
    facts = server(cluster, unit=unit, files=(("/srv/k3s.yaml", "data-dir: /srv/k3s\n"),), foreign=True)
    one = found(cluster, facts)["foreign-k3s"]
    assert (one.severity, "its data in /srv/k3s" in one.found) == ("error", True)


def test_networks_that_a_k3s_of_others_was_started_with_count_and_not_those_of_its_files_since(load: Load) -> None:
    def told(cidr: str, flag: str, *args: str) -> list[str]:
        cluster = load({"server": {"cluster-cidr": cidr}})
        api = {"nodes": (NodeState("s1", ready=True, version=cluster.version, args=args),)}
        facts = server(cluster, unit=f"{PLAIN.strip()} --cluster-cidr={flag}\n", foreign=True, api=api)
        every = preflight.check(cluster, {**healthy(cluster), "s1": facts})
        return [one.found for one in every if one.subject == "for-ever"]

    assert told("10.99.0.0/16", "10.50.0.0/16", "server", "--cluster-cidr", "10.99.0.0/16") == []
    (one,) = told("10.50.0.0/16", "10.50.0.0/16", "server", "--debug")
    assert one == "the running cluster has cluster-cidr 10.42.0.0/16"
    (one,) = told("10.50.0.0/16", "10.50.0.0/16", "server", "--cluster-cidr", "10.99.0.0/16")
    assert one == "the running cluster has cluster-cidr 10.99.0.0/16 (k3s.io/node-args)"
    assert len(told("10.99.0.0/16", "10.50.0.0/16")) == 1, "nothing tells what it was started with"
