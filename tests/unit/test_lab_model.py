"""A lab and its hosts, read from the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from nornir_k3s_lab import Lab, LabConfigError, LabHost
from nornir_k3s_lab.inventory import load
from nornir_k3s_lab.model import problems_of, short_id

PROJECT = Path(__file__).resolve().parents[2]

CONFIG = """\
inventory:
  options: {host_file: inv/hosts.yaml, group_file: inv/groups.yaml, defaults_file: inv/defaults.yaml}
user_defined: {lab: {name: tiny, network: 10.99.0.0/24}}
"""
HOSTS = """\
a: {hostname: 10.99.0.2, groups: [g]}
b: {hostname: 10.99.0.3, username: root}
c: {hostname: 10.99.0.4, data: {k3s_ssh: {sudo_password: {file: ../secrets/pw}}}}
"""
DEFAULTS = """\
username: ops
connection_options: {netmiko: {extras: {key_file: ../keys/id, alt_key_file: ../keys/known}}}
"""


def write(folder: Path, *, config: str = CONFIG, hosts: str = HOSTS, defaults: str = DEFAULTS) -> Path:
    (folder / "inv").mkdir()
    (folder / "inv/hosts.yaml").write_text(hosts)
    (folder / "inv/groups.yaml").write_text("g: {username: admin}\n")
    (folder / "inv/defaults.yaml").write_text(defaults)
    (folder / "config.yaml").write_text(config)
    return folder / "config.yaml"


def test_reads_users_passwords_and_keys_where_the_inventory_says(tmp_path: Path) -> None:
    spec = load(write(tmp_path))
    assert spec.hosts == (
        LabHost("a", "10.99.0.2", "admin"),
        LabHost("b", "10.99.0.3", "root"),
        LabHost("c", "10.99.0.4", "ops", tmp_path / "secrets/pw"),
    )
    assert (spec.key_file, spec.known_hosts) == (tmp_path / "keys/id", tmp_path / "keys/known")
    assert spec.gateway == "10.99.0.1/24"


def test_the_release_of_a_host_is_its_own_or_that_of_its_group(tmp_path: Path) -> None:
    config = write(tmp_path, hosts=HOSTS + "d: {hostname: 10.99.0.5, groups: [g], data: {k3s_lab: {release: sid}}}\n")
    (tmp_path / "inv/groups.yaml").write_text("g: {data: {k3s_lab: {release: trixie}}}\n")
    assert [host.release for host in load(config).hosts] == ["trixie", "bookworm", "bookworm", "sid"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("{release: buster}", "b: 'buster' is not a release that a host of a lab can run: bookworm, trixie, sid"),
        ("{release: 13}", "b: '13' is not a release that a host of a lab can run"),
        ("{releases: sid}", "b: k3s_lab must be a mapping that has the key `release` at most"),
        ("trixie", "b: k3s_lab must be a mapping that has the key `release` at most, not 'trixie'"),
    ],
)
def test_a_release_that_there_is_not_is_refused(tmp_path: Path, setting: str, said: str) -> None:
    config = write(tmp_path, hosts=f"b: {{hostname: 10.99.0.3, data: {{k3s_lab: {setting}}}}}\n")
    with pytest.raises(LabConfigError) as caught:
        load(config)
    assert said in str(caught.value)


def test_keys_have_a_default_path(tmp_path: Path) -> None:
    spec = load(write(tmp_path, defaults="username: ops\n"))
    assert spec.key_file == tmp_path / ".lab/tiny/id_ed25519"
    assert spec.known_hosts == tmp_path / ".lab/tiny/known_hosts"


def test_another_inventory_folder_replaces_the_configs_own(tmp_path: Path) -> None:
    config = write(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "hosts.yaml").write_text("z: {hostname: 10.99.0.9}\n")
    assert [host.name for host in load(config, other).hosts] == ["z"]


def test_the_projects_own_inventory_has_root_sudo_and_sudo_with_a_password() -> None:
    hosts = {host.name: host for host in load(PROJECT / "config.yaml").hosts}
    assert len(hosts) == 8
    assert hosts["a2"].user == "root"
    assert hosts["s3"].sudo_password_file
    assert hosts["s1"].user == "ops"
    assert not hosts["s1"].sudo_password_file


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("", "no hosts"),
        ("a: {hostname: 10.1.2.3}", "10.1.2.3 is not a usable host address of the lab's network 10.99.0.0/24"),
        ("a: {hostname: 10.99.0.255}", "10.99.0.255 is not a usable host address"),
        ("a: {hostname: 10.99.0.1}", "10.99.0.1 is already the address of this machine"),
        ("a: {hostname: 10.99.0.2}\nb: {hostname: 10.99.0.2}", "b: 10.99.0.2 is already the address of a"),
        ("a: {hostname: somewhere.example}", "must be an IPv4 address"),
        ("'a b': {hostname: 10.99.0.2}", "lower-case letters"),
        ("a: {hostname: 10.99.0.2, username: 'x; reboot'}", "'x; reboot' is not a valid user name"),
        ("a: {hostname: 10.99.0.2, username: root, data: {k3s_ssh: {sudo_password: {file: p}}}}", "root needs no sudo"),
        (
            "a: {hostname: 10.99.0.2, connection_options: {netmiko: {extras: {key_file: x}}}}\n"
            "b: {hostname: 10.99.0.3}",
            "must share one key_file",
        ),
    ],
)
def test_problems_are_reported_before_anything_is_created(tmp_path: Path, hosts: str, said: str) -> None:
    with pytest.raises(LabConfigError, match=said):
        load(write(tmp_path, hosts=hosts or "{}"))


@pytest.mark.parametrize("config", ["", "[]", "user_defined: {}", "user_defined: {lab: {name: x}}", "a: ["])
def test_a_config_without_a_lab_is_a_usage_error(tmp_path: Path, config: str) -> None:
    with pytest.raises(LabConfigError):
        load(write(tmp_path, config=config))


def test_missing_files_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(LabConfigError, match="cannot read"):
        load(tmp_path / "config.yaml")
    with pytest.raises(LabConfigError, match="does not exist"):
        load(write(tmp_path), tmp_path / "nowhere")


@pytest.mark.parametrize("network", ["10.99.0.0/33", "10.99.0.5/24", "8.8.8.0/24", "10.99.0.0/30", "nonsense"])
def test_networks_that_cannot_be_a_lab(network: str) -> None:
    assert problems_of("x", network, [LabHost("a", "10.99.0.2")])


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabConfigError) as raised:
        Lab("Bad Name", "10.99.0.0/24", [LabHost("a", "10.1.1.1"), LabHost("b", "x")], tmp_path)
    assert len(raised.value.problems) == 3


def test_names_of_interfaces_do_not_collide() -> None:
    assert short_id("a", "b-c") != short_id("a-b", "c")


def test_an_unknown_host_is_named_with_those_that_exist(tmp_path: Path) -> None:
    lab = Lab("tiny", "10.99.0.0/24", [LabHost("a", "10.99.0.2")], tmp_path)
    with pytest.raises(LabConfigError, match="no host 'q': a"):
        lab.ssh("q")


def test_ssh_refuses_hosts_that_known_hosts_does_not_know(tmp_path: Path) -> None:
    lab = Lab("tiny", "10.99.0.0/24", [LabHost("a", "10.99.0.2", "ops")], tmp_path)
    argv = lab.ssh("a", ["id"])
    assert argv[-2:] == ["ops@10.99.0.2", "id"]
    assert "StrictHostKeyChecking=yes" in argv
    assert f"UserKnownHostsFile={tmp_path}/known_hosts" in argv
