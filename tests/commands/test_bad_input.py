"""Bad input on the real command: a clear error with file and line, exit code 2, and nothing else done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests.commands.conftest import PROJECT, Place

Change = Callable[[Any], None]


def cluster(**values: Any) -> Change:
    return lambda data: data["data"]["k3s_cluster"].update(values)


def contents(place: Place) -> dict[Path, bytes]:
    logs = place.folder / ".state" / "log"
    return {p: p.read_bytes() for p in place.folder.rglob("*") if p.is_file() and logs not in p.parents}


def refused(place: Place, *words: str, arguments: tuple[str, ...] = (), **environment: str) -> str:
    before = contents(place)
    done = place.run("deploy.py", *arguments, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert "observe:" not in done.stderr, "a host was contacted"
    assert contents(place) == before
    return done.stderr


@pytest.mark.parametrize("name", ["config.yaml", "inventory/hosts.yaml"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1\nb: }\n", "is not YAML"),
        (b"", "is empty"),
        (b"one: {}\ntwo: {}\none: {}\n", ":3: duplicate key `one`: it is already in line 1"),
        (b"one:\n\tkey: 1\n", ":2: it is not YAML: there is a tab"),
        (b"# " + b"x" * (10 << 20), "10.0 MiB"),
        ("naïve: {}\n".encode("latin-1"), "is not UTF-8"),
        ("one: {}\n".encode("utf-16"), "is not UTF-8"),
        (b"- just\n- a list\n", "not a mapping"),
        (b"\x00\x01\x02", "not YAML"),
    ],
    ids=["no-yaml", "empty", "duplicate", "tab", "10-mb", "latin-1", "utf-16", "list", "binary"],
)
def test_a_file_that_is_no_settings(place: Place, name: str, content: bytes, words: str) -> None:
    place.file(name).write_bytes(content)
    refused(place, Path(name).name, words)


@pytest.mark.parametrize("name", ["config.yaml", "inventory/hosts.yaml", "inventory/defaults.yaml"])
def test_a_folder_where_a_file_should_be(place: Place, name: str) -> None:
    place.file(name).unlink()
    place.file(name).mkdir()
    refused(place, "is a folder")


def test_files_that_are_not_there(place: Place) -> None:
    place.file("inventory/hosts.yaml").unlink()
    refused(place, "hosts.yaml", "does not exist")
    refused(place, "nowhere is not a folder", arguments=("--inventory", str(place.folder / "nowhere")))
    place.file("config.yaml").unlink()
    refused(place, "config.yaml", "does not exist", "--config")


def test_all_problems_of_all_files_come_at_once_with_file_and_line(place: Place) -> None:
    place.file("inventory/hosts.yaml").write_text(
        "db1: {hostname: 127.77.0.11, groups: [datastore]}\n"
        "s1: {hostnme: 127.77.0.12, groups: [servers]}\n"
        "s2: {hostname: 127.77.0.13, groups: [servers], data: {k3s: {cluster-cidr: 10.1.0.0/16}}}\n"
        "s3: {hostname: 127.77.0.13, groups: [servers], data: {k3s_ssh: {sudo_password: {env: NOT_SET_AT_ALL}}}}\n"
        "lb1: {hostname: 127.77.0.100, groups: [lb], connection_options: {netmiko: {extras: {key_fil: x}}}}\n"
    )
    place.edit(cluster(versoin="v1"))
    place.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"flanel-backend": "vxlan"}))
    told = refused(place)
    for words in (
        "hosts.yaml:2: s1.hostnme: unknown key `hostnme`; did you mean `hostname`?",
        "hosts.yaml:2: s1: 's1' is not an IP address",
        "hosts.yaml:3: s2: k3s: `cluster-cidr` must be the same on all servers",
        "hosts.yaml:4: s3: k3s_ssh.sudo_password: the environment variable NOT_SET_AT_ALL is empty or not set",
        "hosts.yaml:4: s3: it has the same address as s2",
        "hosts.yaml:5: lb1.connection_options.netmiko.extras.key_fil: netmiko has no option",
        "k3s_cluster.versoin: unknown key `versoin`; did you mean `version`?",
        "k3s_cluster.server.flanel-backend: K3s has no setting `flanel-backend` here; did you mean `flannel-backend`?",
    ):
        assert words in told
    assert "defaults.yaml:" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cluster(version="1.34"), "is not a K3s version"),
        (cluster(version="v1.34.8+k3s1"), "is K3s v1.34.9+k3s1, the inventory asks for v1.34.8+k3s1"),
        (cluster(registration={"address": "127.77.0.12"}), "is the address of host s1"),
        (cluster(registration={"address": "10.99.0.1"}, lb={"prefix": 24}), "outside every load balancer's network"),
        (cluster(registration={"address": "10.42.3.4"}), "lies inside cluster-cidr"),
        (cluster(token={"env": "NOT_SET_AT_ALL"}), "NOT_SET_AT_ALL is empty or not set"),
        (cluster(token={"file": "nowhere"}), "cannot be read"),
        (cluster(token="in the clear"), "a secret is a reference"),
        (cluster(artifacts={"folder": "nowhere"}), "is missing"),
        (cluster(artifacts={"folder": "../bundle", "url": "https://x"}), "nothing to download"),
        (cluster(server={"service-cidr": "10.42.128.0/17"}), "overlaps service-cidr"),
        (cluster(server={"disable": ["traefic"]}), "did you mean `traefik`"),
        (cluster(server={"disable-kube-proxy": "yes"}), "is true or false"),
        (cluster(server={"write-kubeconfig-mode": 384}), "in quotes"),
        (cluster(server={"flannel-backend": "vxlans"}), "did you mean `vxlan`"),
        (cluster(server={"node-taint": ["a=b"]}), "is not a taint"),
        (cluster(agent={"node-label": ["node-role.kubernetes.io/worker=true"]}), "kubelet refuses to start"),
        (cluster(accept=["memmory"]), "did you mean `memory`"),
        (cluster(proxy={"http": "http://p\nX=1"}), "proxy"),
        (cluster(proxy={"http": "http://p", "no_proxy": ['a" b']}), "no_proxy"),
        (cluster(registries="nowhere.yaml"), "there is no file"),
        (cluster(server={"tls-san": {"a": "b"}}), "takes text, a number, true or false, or a list"),
        (cluster(server=["a"]), "k3s_cluster.server: it must be a mapping"),
        (cluster(datastore={"kind": "mariadb", "endpoint": {"env": "E"}}), "give it alone"),
        (cluster(datastore={"kind": "etcd", "hosts": ["e"], "cafile": "nowhere.pem"}), "there is no file"),
        (cluster(datastore={"kind": "etcd", "hosts": ["e"]}, datastore_pool={"max_open": 9}), "etcd has no pool"),
        (cluster(datastore={"kind": "mysql", "hosts": ["a", "b"], "password": {"env": "E"}}), "supports one host only"),
        (cluster(datastore=None), "k3s_cluster.datastore: it is empty"),
        (cluster(name=None), "k3s_cluster.name:"),
        (lambda data: data["data"].update(k3s_cluster=None), "`data.k3s_cluster` is no mapping"),
        (cluster(datastore={"endpoint": {"env": "E"}}), "someone else runs"),
        (lambda data: data["data"].update(k3s_cluster="x"), "`data.k3s_cluster` is no mapping"),
        (cluster(lb={"prefix": 33}), "more than the 32 bits of the VIP"),
        (cluster(server={"https-listen-port": "²"}), "is not a port"),
        (cluster(registries="~no-such-user/x"), "there is no such user"),
        (cluster(registration={"address": "224.0.0.1"}), "cannot be the address of a host"),
        (cluster(registration={"address": "127.77.0.100", "name": "a b"}), "registration.name"),
        (cluster(accept=["s9:memory"]), "there is no host 's9'"),
    ],
)
def test_a_wrong_setting(place: Place, change: Change, words: str) -> None:
    place.edit(change)
    refused(place, words)


def test_a_token_that_k3s_would_refuse(place: Place) -> None:
    place.edit(cluster(token={"env": "TOKEN"}))
    told = refused(place, "form of a bootstrap token", TOKEN="abcdef.0123456789abcdef")
    assert "0123456789abcdef" not in told


def test_values_that_another_version_of_yaml_reads_differently(place: Place) -> None:
    place.edit(lambda data: data["connection_options"]["netmiko"]["extras"].update(ssh_strict="no"))
    place.file("inventory/hosts.yaml").write_text(
        "s1: {hostname: 127.77.0.12, port: 0o26, groups: [servers], data: {k3s: {node-name: 010}}}\n"
        "s2: {hostname: 127.77.0.13, port: '22', groups: [servers], data: {k3s: {node-name: '10'}}}\n"
    )
    told = refused(
        place,
        "defaults.connection_options.netmiko.extras.ssh_strict: 'no' is text: write true or false",
        "hosts.yaml:2: s2.port: it must be a number, without quotes",
        "hosts.yaml:2: s2: it has the same node name as s1: 10",
    )
    assert "s1.port" not in told


def test_settings_that_would_count_for_nothing(place: Place) -> None:
    place.edit(lambda data: data["s1"].update(data={"K3s": {"node-label": ["a=b"]}}), "inventory/hosts.yaml")
    place.edit(lambda data: data["agents"].update(data={"kubelet-arg+": ["max-pods=99"]}), "inventory/groups.yaml")
    refused(
        place,
        "s1.data.K3s: unknown key `K3s`; did you mean `k3s`?",
        "agents.data.kubelet-arg+: `kubelet-arg+` counts for nothing here: settings of K3s are below `k3s`",
    )


def test_a_group_without_hosts(place: Place) -> None:
    place.edit(lambda data: [data.pop(name) for name in ("s1", "s2", "s3", "lb1", "lb2")], "inventory/hosts.yaml")
    refused(place, "group servers: it has no host", "group lb: it has no host")


def test_a_group_that_is_not_defined(place: Place) -> None:
    place.edit(lambda data: data["s1"].update(groups=["servrs"]), "inventory/hosts.yaml")
    refused(place, "hosts.yaml", "there is no group `servrs`; did you mean `servers`?")


def test_a_datastore_s_key_that_everybody_can_read(place: Place) -> None:
    place.file("client.pem").write_text("")
    key = place.file("client-key.pem")
    key.write_text("")
    key.chmod(0o644)
    files = {"certfile": "../client.pem", "keyfile": "../client-key.pem"}
    place.edit(cluster(datastore={"kind": "etcd", "hosts": ["e"], **files}))
    refused(place, "everybody on this machine can read", "client-key.pem")


def test_an_artefact_with_a_wrong_hash(place: Place) -> None:
    place.file("bundle/sha256sum-amd64.txt").write_text("0" * 64 + "  k3s\n")
    refused(place, "is not the published file", "0" * 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "agnets"), "did you mean agents?"),
        (("--until", "x"), "there is no phase"),
        (("--limit", "s9"), "there is no host or group"),
        (("--only", "agents", "--until", "servers"), "exclude each other"),
        (("--nonsense",), "--help"),
        (("--limit", " , "), "error: --limit: names no host or group"),
        (("--only", ""), "error: --only: names no phase"),
        (("--json", "/nowhere/at/all"), "error: --json: /nowhere/at/all cannot be written"),
        (("--json", "/"), "cannot be written"),
    ],
)
def test_wrong_usage(place: Place, arguments: tuple[str, ...], words: str) -> None:
    refused(place, words, arguments=arguments)


def test_unknown_keys_of_the_config(place: Place) -> None:
    place.edit(lambda data: data["user_defined"]["k3s"]["deadlines"].update(sever=5), "config.yaml")
    place.edit(lambda data: data.update(runer={}), "config.yaml")
    told = refused(place, "config.yaml:", "unknown key `runer`; did you mean `runner`?")
    assert "deadlines" in told


@pytest.mark.parametrize(("state", "words"), [("~no-such-user/x", "there is no such user"), ("a\0b", "a NUL")])
def test_a_state_folder_that_cannot_be(place: Place, state: str, words: str) -> None:
    place.edit(lambda data: data["user_defined"]["k3s"].update(state=state), "config.yaml")
    refused(place, "config.yaml:", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"username": "a\nb"}, "is not a valid user name"),
        ({"username": "-oProxyCommand=x"}, "is not a valid user name"),
        ({"data": {"k3s": {5: 5}}}, "K3s has no setting `5` here"),
        ({"data": {"k3s": {"interface": "et h0"}}}, "is not a valid interface name"),
    ],
)
def test_a_wrong_host(place: Place, change: dict[str, Any], words: str) -> None:
    place.edit(lambda data: data["s1"].update(change), "inventory/hosts.yaml")
    refused(place, "hosts.yaml:", words)


def test_a_runner_with_a_number_in_quotes(place: Place) -> None:
    place.edit(lambda data: data["runner"]["options"].update(num_workers="5"), "config.yaml")
    refused(place, "runner.options.num_workers")


def test_every_host_s_failure_is_told_where_nornir_stops_at_the_first(down: Place) -> None:
    down.edit(lambda data: data.update(core={"raise_on_error": True}), "config.yaml")
    done = down.run("deploy.py")
    assert done.returncode == 4, done.stderr
    assert "s1: " in done.stderr
    assert "lb2: " in done.stderr


def test_a_runner_with_nonsense_for_a_number(place: Place) -> None:
    place.edit(lambda data: data["runner"]["options"].update(num_workers="many"), "config.yaml")
    refused(place, "runner.options.num_workers")


def test_closed_streams_are_no_reason_to_break(place: Place) -> None:
    script = '"$@" >&- 2>&- <&-'
    command = ["sh", "-c", script, "sh", sys.executable, str(PROJECT / "runbooks" / "deploy.py"), "--list-phases"]
    assert subprocess.run(command, cwd=place.folder, timeout=120, check=False).returncode == 0


def test_a_state_folder_that_cannot_be_made(place: Place) -> None:
    place.file("occupied").write_text("")
    place.edit(lambda data: data["user_defined"]["k3s"].update(state="occupied/state"), "config.yaml")
    refused(place, "occupied/state", "cannot be written")


def test_hosts_that_are_down_are_all_named_in_one_run(down: Place) -> None:
    place = down
    done = place.run("deploy.py", "--json", str(place.folder / "report.json"))
    assert done.returncode == 4, done.stdout + done.stderr
    for name in ("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2"):
        assert f"{name}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "debug log is" in done.stderr
    assert '"outcome": "failed"' in (place.folder / "report.json").read_text()


def test_the_report_goes_where_a_link_leads_and_into_a_device(down: Place) -> None:
    real, link = down.file("real.json"), down.file("report.json")
    link.symlink_to(real)
    assert down.run("deploy.py", "--json", str(link)).returncode == 4
    assert link.is_symlink()
    assert '"outcome": "failed"' in real.read_text()
    assert down.run("deploy.py", "--json", "/dev/null").returncode == 4
    assert Path("/dev/null").is_char_device()


def test_a_reader_who_has_gone_changes_nothing_about_the_run(down: Place) -> None:
    command = [sys.executable, str(PROJECT / "runbooks" / "deploy.py"), "--config", str(down.file("config.yaml"))]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*command, "--json", str(down.file("report.json"))], stdout=writer, stderr=writer, timeout=120, check=False
        )
    finally:
        os.close(writer)
    assert done.returncode == 4
    assert '"outcome": "failed"' in down.file("report.json").read_text()


def test_old_logs_go_and_other_files_stay(down: Place) -> None:
    folder = down.file(".state") / "log"
    folder.mkdir(parents=True)
    for n in range(30):
        (folder / f"20250101-0000{n:02}-1.log").write_text("")
    (folder / "app.log").write_text("")
    down.run("deploy.py")
    assert (folder / "app.log").exists()
    assert len(list(folder.glob("2*.log"))) == 20


def test_the_state_is_for_its_owner_only(down: Place) -> None:
    down.run("deploy.py")
    assert down.file(".state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_ends_with_its_report(down: Place, number: signal.Signals) -> None:
    down.edit(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=120), "config.yaml")
    script = str(PROJECT / "runbooks" / "deploy.py")
    report = down.file("report.json")
    # These tests may run under nohup, and a run under nohup rightly does not hear SIGHUP.
    command = ["env", "--default-signal=HUP,TERM", sys.executable, script]
    command += ["--config", str(down.file("config.yaml")), "--json", str(report)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            logs = down.file(".state") / "log"
            for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
                with attempt:
                    assert any("Running task" in path.read_text() for path in logs.glob("*.log"))
            process.send_signal(number)
            _, said = process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert '"outcome": "interrupted"' in report.read_text()


def test_groups_in_a_circle(place: Place) -> None:
    text = "datastore: {}\nservers: {groups: [all]}\nall: {groups: [servers]}\nagents: {groups: [agents]}\nlb: {}\n"
    place.file("inventory/groups.yaml").write_text(text)
    told = refused(place, "groups.yaml:2: servers: the group contains itself through its parent groups")
    assert "groups.yaml:4: agents: the group contains itself" in told


def test_names_of_groups_that_do_not_exist(place: Place) -> None:
    place.edit(cluster(groups={"agents": "workers"}))
    told = refused(place, "k3s_cluster.groups.agents: the inventory has no group `workers`")
    assert "defaults.yaml:" in told


def test_a_limit_without_a_role_in_the_cluster(place: Place) -> None:
    with place.file("inventory/hosts.yaml").open("a") as file:
        file.write("x1: {hostname: 127.77.0.99, groups: [agent]}\n")
    with place.file("inventory/groups.yaml").open("a") as file:
        file.write("agent: {}\n")
    refused(place, "host 'x1' has no role in this cluster", arguments=("--limit", "x1"))
    refused(place, "no host of group 'agent' has a role in this cluster", arguments=("--limit", "agent"))
