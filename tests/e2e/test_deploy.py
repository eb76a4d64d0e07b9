"""The main job, on hosts no one touched by hand. The tests go on from each other's cluster, in this order."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from nornir_k3s.roles import haproxy

from .certificates import certificate
from .conftest import VIP, Site, eventually, make_bare, unchanged_files

SERVERS = ("s1", "s2", "s3")
AGENTS = ("a1", "a2")


@pytest.fixture(scope="module")
def cluster(site: Site) -> Iterator[Site]:
    """A cluster that was just made of bare hosts."""
    make_bare(site)
    site.hosts = "cluster"
    with unchanged_files(site):
        site.deploy()
        yield site


def all_ready(cluster: Site) -> None:
    assert cluster.nodes() == dict.fromkeys((*SERVERS, *AGENTS), True)


def test_a_fresh_deploy_gives_five_ready_nodes_through_the_vip(cluster: Site) -> None:
    assert cluster.nodes() == dict.fromkeys((*SERVERS, *AGENTS), True)
    assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    assert config["clusters"][0]["cluster"]["server"] == f"https://{VIP}:6443"


def test_what_others_may_read_has_the_modes_that_k3s_gives(cluster: Site) -> None:
    folders = "/etc/rancher /etc/rancher/k3s /var/lib/rancher /var/lib/apt/lists"
    for host, unit in (("s1", "k3s"), ("a1", "k3s-agent")):
        script = f"stat -c '%a' {folders} /etc/systemd/system/{unit}.service /etc/rancher/k3s/config.yaml"
        assert cluster.lab.exec(host, ["sh", "-c", script]).stdout.split() == ["755"] * 4 + ["644", "600"]


def test_a_second_run_changes_nothing_and_restarts_nothing(cluster: Site) -> None:
    before = cluster.processes()
    done = cluster.deploy()
    assert "nothing to change" in done.stdout
    assert cluster.processes() == before


def test_the_deploy_works_from_any_folder_and_says_every_phase(cluster: Site) -> None:
    done = cluster.deploy()
    assert "observe: 8 hosts" in done.stderr
    for phase in ("observe", "preflight", "stage", "first-server", "verify"):
        assert f" {phase} " in done.stdout


def test_no_secret_is_in_argv_journal_or_readable_files(cluster: Site) -> None:
    token = (cluster.folder / ".state" / "lab" / "token").read_text().strip()
    password = (cluster.folder / ".state" / "lab" / "datastore-password").read_text().strip()
    for host in (*SERVERS, *AGENTS, "db1", "lb1"):
        # The patterns are read from a file: in argv they would find themselves.
        script = (
            f"umask 077; printf '%s\\n' {token} {password} >/run/patterns\n"
            "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c -f /run/patterns\n"
            "journalctl --no-pager | grep -c -f /run/patterns\n"
            "find /etc /var/lib/rancher /var/lib/nornir-k3s /usr/local /tmp -xdev -type f -perm /044 -size -1024k"
            " -exec grep -l -f /run/patterns {} + | wc -l\n"
            "rm /run/patterns\n"
        )
        counts = cluster.lab.exec(host, ["sh", "-s"], input=script, check=False).stdout.split()
        assert counts == ["0", "0", "0"], host
    for log in (cluster.folder / ".state" / "log").iterdir():
        text = log.read_text()
        assert token not in text
        assert password not in text
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_servers_differ_in_nothing_that_must_match(cluster: Site) -> None:
    configs = []
    for host in SERVERS:
        config = yaml.safe_load(cluster.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout)
        assert config.pop("node-name") == host
        config.pop("node-ip")
        configs.append(config)
        assert (
            cluster.lab.exec(host, ["stat", "-c", "%a %U", "/etc/rancher/k3s/config.yaml"]).stdout.strip() == "600 root"
        )
    assert configs[0] == configs[1] == configs[2]


def test_a_plan_says_what_would_be_done_and_changes_nothing(cluster: Site) -> None:
    defaults = cluster.folder / "inventory" / "defaults.yaml"
    kept, before = defaults.read_text(), cluster.processes()
    assert "nothing to change on a1, a2, db1, lb1, lb2, s1, s2, s3" in cluster.deploy("--plan").stdout
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=9h"]}))
    said = cluster.deploy("--plan").stdout
    defaults.write_text(kept)
    for words in (
        "s1, s2, s3 (servers)",
        "change /etc/rancher/k3s/config.yaml",
        "+- event-ttl=9h",
        "restart k3s.service",
    ):
        assert words in said
    assert (cluster.folder / ".state" / "lab" / "token").read_text().strip() not in said
    assert "nothing to change on a1, a2, db1, lb1, lb2" in said
    assert cluster.processes() == before


def test_a_lost_config_of_one_agent_is_repaired_and_nothing_else_is_touched(cluster: Site) -> None:
    before = cluster.processes()
    cluster.lab.exec("a1", ["rm", "/etc/rancher/k3s/config.yaml"])
    done = cluster.deploy()
    assert "changed" in done.stdout
    after = cluster.processes()
    assert after.pop("a1") != before.pop("a1")
    assert after == before
    # A kubelet that has just been restarted may say for a moment that it is not ready.
    eventually(lambda: all_ready(cluster))


@pytest.fixture
def stopped_haproxy(cluster: Site) -> Iterator[str]:
    holder = cluster.holder()
    cluster.lab.exec(holder, ["systemctl", "stop", "haproxy"])
    yield holder
    cluster.lab.exec(holder, ["systemctl", "start", "haproxy"])


def test_stopping_haproxy_on_the_holder_moves_the_vip_and_the_api_still_answers(
    cluster: Site, stopped_haproxy: str
) -> None:
    def moved() -> None:
        assert cluster.holder() != stopped_haproxy

    eventually(moved)
    eventually(cluster.answers)


STATES = """perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock");
print $s "show stat\\n";
while (<$s>) { @w = split /,/; print "$w[17]\\n" if $w[0] eq "servers" && $w[1] ne "BACKEND" }'"""


@pytest.fixture
def ended_health_check(cluster: Site, tmp_path: Path) -> Iterator[None]:
    """The certificate of the health check has ended on both load balancers: no server passes it."""
    certificate(tmp_path)
    pem = (tmp_path / "expired.crt").read_text() + (tmp_path / "db.key").read_text()
    path = haproxy.CHECK_CERT
    kept = {name: cluster.lab.exec(name, ["cat", path]).stdout for name in ("lb1", "lb2")}

    def put(contents: dict[str, str], state: str) -> None:
        for name, content in contents.items():
            cluster.lab.exec(name, ["sh", "-c", f"cat >{path}; systemctl reload haproxy"], input=content)
        for name in contents:
            eventually(partial(seen, name, state))

    def seen(name: str, state: str) -> None:
        states = cluster.lab.exec(name, ["sh", "-c", STATES]).stdout.split()
        assert states == [state] * len(SERVERS)

    put(dict.fromkeys(kept, pem), "DOWN")
    yield
    put(kept, "UP")


@pytest.mark.usefixtures("ended_health_check")
def test_the_api_answers_where_no_server_passes_the_health_check(cluster: Site) -> None:
    for _ in range(5):
        cluster.answers()


@pytest.mark.parametrize("server", SERVERS)
def test_the_api_answers_while_any_one_server_is_stopped(cluster: Site, server: str) -> None:
    cluster.lab.exec(server, ["systemctl", "stop", "k3s"])
    try:
        eventually(cluster.answers)
        for _ in range(5):
            cluster.answers()
    finally:
        cluster.lab.exec(server, ["systemctl", "start", "k3s"])


def test_a_stopped_server_is_brought_back_alone(cluster: Site) -> None:
    cluster.deploy()
    before = cluster.processes()
    cluster.lab.exec("s2", ["systemctl", "stop", "k3s"])
    cluster.deploy()
    after = cluster.processes()
    assert after.pop("s2") != before.pop("s2")
    assert after == before


@pytest.mark.usefixtures("ended_health_check")
def test_a_changed_setting_rolls_over_the_servers_one_at_a_time(cluster: Site) -> None:
    """The certificate of the health check, which has ended, is renewed first: HAProxy would see no server up again."""
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"kube-apiserver-arg": ["event-ttl=1h"]}))
    cluster.deploy()
    starts = []
    for host in SERVERS:
        unit = cluster.lab.exec(
            host, ["systemctl", "show", "--timestamp=us+utc", "-p", "InactiveExitTimestamp,ActiveEnterTimestamp", "k3s"]
        ).stdout
        values = dict(line.split("=", 1) for line in unit.split("\n") if line)
        starts.append((values["InactiveExitTimestamp"], values["ActiveEnterTimestamp"]))
        assert "event-ttl=1h" in cluster.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
    ordered = sorted(starts)
    for (_, ready), (begun, _) in itertools.pairwise(ordered):
        assert ready <= begun, "a server was restarted before the one before it was ready"
    for name in ("lb1", "lb2"):
        assert "DOWN" not in cluster.lab.exec(name, ["sh", "-c", STATES]).stdout.split()
    assert "nothing to change" in cluster.deploy().stdout
