"""The lab itself: its hosts are real Linux, and removing them leaves nothing on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nornir_k3s_lab import Lab, LabError, cgroups, network
from nornir_k3s_lab.kernel_settings import LEAST
from nornir_k3s_lab.lab import RUNTIME, SETTINGS
from nornir_k3s_lab.mounts import mount_points

from .conftest import eventually

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(900),
]

PROJECT = Path(__file__).resolve().parents[2]
NAME = f"t{os.getpid()}"
PREFIX = f"10.{80 + os.getpid() % 100}.{os.getpid() // 100 % 250}"


@dataclass
class Traces:
    """What a running lab has created on this machine, to be searched for when it is removed."""

    processes: set[tuple[int, str]] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    taken: int = 0  # when the youngest process started, in clock ticks as in /proc/PID/stat

    @classmethod
    def of(cls, lab: Lab) -> Traces:
        found = cls()
        for pid in cgroups.members(lab.name):
            found.processes.add((pid, _started(pid)))
            found.namespaces |= _namespaces(Path(f"/proc/{pid}"))
        found.namespaces -= _namespaces(Path("/proc/self"))
        found.taken = max(int(started) for _, started in found.processes)
        assert len(found.processes) >= 4 * len(lab.hosts)
        assert len(found.namespaces) >= 4 * len(lab.hosts)
        return found


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _namespaces(process: Path) -> set[str]:
    try:
        return {str((process / "ns" / kind).readlink()) for kind in ("net", "mnt", "pid", "uts", "ipc", "cgroup")}
    except OSError:
        return set()


def assert_nothing_left(lab: Lab, traces: Traces) -> None:
    # A process that has ended is in /proc until init has waited for it.
    deadline = time.monotonic() + 30
    while left := {(pid, started) for pid, started in traces.processes if _started(pid) == started}:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    # Only older processes count: the kernel reuses the numbers of namespaces.
    for process in Path("/proc").glob("[0-9]*"):
        started = _started(int(process.name))
        if started and int(started) <= traces.taken:
            assert not traces.namespaces & _namespaces(process), process
    assert not mount_points(RUNTIME / lab.name)
    kept = Path("/proc/self/mountinfo").read_text()
    assert not [name for name in traces.namespaces if name in kept]
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert network.bridge_name(lab.name)[:7] not in links
    assert f"lab {lab.name}" not in links
    assert not (RUNTIME / lab.name).exists()
    assert not [point for point, _ in cgroups.hierarchies() if (point / cgroups.ROOT / lab.name).exists()]
    assert not list(Path("/run/systemd/nspawn").glob(f"*/{lab.name}-*"))
    assert not lab.spec.known_hosts.exists()


def settings() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text().strip() for name in LEAST}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "inventory").mkdir()
    names = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}
    options = {option: f"inventory/{name}" for option, name in names.items()}
    password = {"k3s_ssh": {"sudo_password": {"file": "../secret/sudo"}}}
    hosts = {
        "plain": {"hostname": f"{PREFIX}.11", "username": "ops"},
        "asks": {"hostname": f"{PREFIX}.12", "username": "ops", "data": password, "groups": ["new"]},
        "super": {"hostname": f"{PREFIX}.13", "username": "root", "data": {"k3s_lab": {"release": "sid"}}},
    }
    lab = {"name": NAME, "network": f"{PREFIX}.0/24"}
    yaml = YAML()
    yaml.dump({"inventory": {"options": options}, "user_defined": {"lab": lab}}, folder / "config.yaml")
    yaml.dump(hosts, folder / "inventory/hosts.yaml")
    yaml.dump({"new": {"data": {"k3s_lab": {"release": "trixie"}}}}, folder / "inventory/groups.yaml")
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def machine() -> dict[str, str]:
    """The machine's settings before the first lab, which may be up already."""
    with contextlib.suppress(FileNotFoundError):
        kept: dict[str, str] = json.loads((RUNTIME / SETTINGS).read_text())
        return {name: kept[name] for name in LEAST}
    return settings()


@pytest.fixture(scope="module")
def lab(config: Path, machine: dict[str, str]) -> Iterator[Lab]:
    lab = Lab.from_inventory(config)
    try:
        assert sorted(lab.up()) == ["asks", "plain", "super"]
        yield lab
    finally:
        lab.down()


def ssh(lab: Lab, host: str, command: str, *, text: str = "") -> subprocess.CompletedProcess[str]:
    argv = lab.ssh(host, [command])
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=120, check=False)


def runbook(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(PROJECT / "runbooks/lab.py"), "--config", str(config), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, cwd="/")


def test_root_sudo_and_sudo_with_a_password(lab: Lab) -> None:
    assert ssh(lab, "plain", "id -un; sudo -n id -un").stdout.split() == ["ops", "root"]
    assert ssh(lab, "super", "id -un").stdout.split() == ["root"]
    refused = ssh(lab, "asks", "sudo -n id -un")
    assert refused.returncode != 0
    assert "password is required" in refused.stderr
    file = next(host.sudo_password_file for host in lab.hosts if host.name == "asks")
    assert file
    assert file.stat().st_mode & 0o777 == 0o600
    assert ssh(lab, "asks", "sudo -S -p '' id -un", text=file.read_text()).stdout.split() == ["root"]
    assert ssh(lab, "asks", "sudo -S -p '' id -un", text="wrong\n").returncode != 0


def test_logins_without_the_key_are_rejected(lab: Lab) -> None:
    argv = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=yes"]
    words = lab.ssh("plain", ["true"])
    refused = subprocess.run([words[0], *argv, *words[1:]], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_hosts_are_plain_debian_of_their_release_without_python(lab: Lab) -> None:
    for host in lab.hosts:
        release = {"asks": "trixie", "super": "sid"}.get(host.name, "bookworm")
        # Debian's unstable suite calls itself by the next release, too.
        assert release in lab.exec(host.name, ["cat", "/etc/os-release"]).stdout
        assert lab.exec(host.name, ["systemctl", "is-system-running"]).stdout.strip() == "running"
        assert lab.exec(host.name, ["hostname"]).stdout.strip() == host.name
        found = lab.exec(host.name, ["sh", "-c", "command -v python python2 python3"], check=False)
        assert found.stdout == ""
        assert lab.exec(host.name, ["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    ids = {lab.exec(host.name, ["cat", "/etc/machine-id"]).stdout for host in lab.hosts}
    assert len(ids) == len(lab.hosts)


def test_hosts_reach_each_other_and_this_machine_and_nothing_else(lab: Lab) -> None:
    for near in (f"{PREFIX}.1", f"{PREFIX}.13"):
        lab.exec("plain", ["ping", "-c1", "-W5", near])
    assert lab.exec("plain", ["ping", "-c1", "-W1", "198.51.100.1"], check=False).returncode


def test_plain_apt_installs_packages(lab: Lab) -> None:
    done = ssh(lab, "plain", "sudo apt-get update && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y haproxy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.exec("plain", ["systemctl", "is-active", "haproxy"]).stdout.strip() == "active"
    sources = lab.exec(
        "plain", ["sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null"], check=False
    )
    assert sources.stdout == "deb [trusted=yes] file:/srv/lab-packages ./\n"


def test_hosts_have_what_containers_need(lab: Lab) -> None:
    script = """
    set -e
    cd /var/lib/rancher && mkdir lower upper work merged
    mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work x merged && umount merged
    rmdir lower upper merged && rm -r work
    sysctl -q -w net.ipv4.ip_forward=1
    test -c /dev/kmsg
    test "$(cat /proc/sys/fs/inotify/max_user_instances)" -ge 8192
    findmnt -n -o PROPAGATION / | grep -q shared
    if [ -d /sys/fs/cgroup/memory ]; then cd /sys/fs/cgroup/memory; else cd /sys/fs/cgroup; fi
    mkdir lab-try && rmdir lab-try
    ip link add v0 type vxlan id 1 dev eth0 dstport 8472 && ip link delete v0
    iptables -t nat -L -n >/dev/null
    """
    lab.exec("plain", ["sh"], input=script)


def test_a_second_up_changes_nothing(lab: Lab, config: Path) -> None:
    before = {one.host.name: one.init for one in lab.status()}
    known = lab.spec.known_hosts.read_text()
    done = runbook(config, "up")
    assert done.returncode == 0, done.stderr
    assert "0 booted now" in done.stdout
    assert {one.host.name: one.init for one in lab.status()} == before
    assert lab.spec.known_hosts.read_text() == known


def test_cut_and_heal_disconnect_and_connect_the_cable(lab: Lab) -> None:
    lab.cut("super")
    with pytest.raises(OSError, match=r"timed out|No route|unreachable"):
        socket.create_connection((f"{PREFIX}.13", 22), timeout=1)
    lab.heal("super")
    socket.create_connection((f"{PREFIX}.13", 22), timeout=20).close()


def test_a_host_keeps_its_disk_when_it_is_off_and_loses_it_in_a_reset(lab: Lab) -> None:
    lab.exec("super", ["sh", "-c", "echo kept > /root/file; ip address add 10.255.0.1/32 dev eth0"])
    for hard in (False, True):
        lab.poweroff("super", hard=hard)
        assert [one.state for one in lab.status()] == ["running", "running", "off"]
        lab.poweron("super")
        assert ssh(lab, "super", "cat file").stdout == "kept\n"
        assert "10.255.0.1" not in lab.exec("super", ["ip", "address"]).stdout
    lab.reset("super")
    assert ssh(lab, "super", "cat file").returncode == 1


def test_a_host_can_reboot_itself(lab: Lab) -> None:
    boot = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = lab.exec("super", boot).stdout
    lab.exec("super", ["sh", "-c", "ip link add br9 type bridge; systemctl reboot"], check=False)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(LabError):
            if lab.exec("super", boot).stdout != before:
                break
        assert time.monotonic() < deadline, "the host does not come back"
        time.sleep(0.2)
    lab.poweron("super")  # it runs: this waits until it accepts logins
    assert "br9" not in ssh(lab, "super", "ip link").stdout


def test_commands_in_a_host_have_input_status_and_timeout(lab: Lab) -> None:
    assert lab.exec("plain", ["cat"], input="hello").stdout == "hello"
    assert lab.exec("plain", ["sh", "-c", "exit 7"], check=False).returncode == 7
    with pytest.raises(LabError, match="failed with status 7"):
        lab.exec("plain", ["sh", "-c", "exit 7"])
    with pytest.raises(LabError, match=r"plain: sleep 4321 timed out after 0\.5 s"):
        lab.exec("plain", ["sleep", "4321"], timeout=0.5)
    assert "4321" not in lab.exec("plain", ["ps", "-eo", "args"]).stdout


def test_a_changed_inventory_is_rejected_while_the_lab_is_up(lab: Lab, config: Path) -> None:
    hosts = config.parent / "inventory/hosts.yaml"
    old = hosts.read_text()
    hosts.write_text(old.replace(f"{PREFIX}.13", f"{PREFIX}.14"))
    try:
        done = runbook(config, "up")
        assert done.returncode == 1
        assert "different inventory; hosts that differ: super" in done.stderr
    finally:
        hosts.write_text(old)


def test_a_second_lab_must_have_a_network_of_its_own(lab: Lab, tmp_path: Path) -> None:
    other = Lab(f"{NAME}-b", lab.spec.network, lab.hosts, tmp_path)
    try:
        with pytest.raises(LabError, match="overlaps the route"):
            other.up()
    finally:
        other.down()


def test_down_leaves_nothing(lab: Lab, config: Path) -> None:
    traces = Traces.of(lab)
    done = runbook(config, "down")
    assert done.returncode == 0, done.stderr
    assert_nothing_left(lab, traces)
    assert [one.state for one in lab.status()] == ["absent"] * 3


def test_the_machine_s_settings_are_put_back_by_the_last_lab(lab: Lab, machine: dict[str, str]) -> None:
    lab.down()

    def put_back() -> None:
        assert settings() == machine or RUNTIME.exists()  # another lab is up, or comes up just now

    eventually(put_back, 20)


def test_down_after_the_programs_were_killed_leaves_nothing(config: Path) -> None:
    lab = Lab.from_inventory(config)
    argv = [sys.executable, str(PROJECT / "runbooks/lab.py"), "--config", str(config), "up"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        deadline = time.monotonic() + 120
        while not cgroups.init_of(f"{NAME}/asks"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        up.send_signal(signal.SIGKILL)
    lab.up()
    traces = Traces.of(lab)
    for pid in cgroups.members(f"{NAME}/plain"):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd-nspawn":
            os.kill(pid, signal.SIGKILL)
    lab.down()
    assert_nothing_left(lab, traces)
