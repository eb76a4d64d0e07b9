"""The lab's dealings with the machine, as far as they need neither root nor hosts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nornir_k3s_lab import LabError, cgroups, guest, image, keys, network, system

MOUNTINFO = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
50 27 0:40 / /var/lib/a\\040b rw - overlay lab rw
51 27 0:41 / /run rw - tmpfs tmpfs rw
"""


def test_mounts_are_read_with_their_blanks() -> None:
    assert (Path("/var/lib/a b"), "overlay") in system.mounts(MOUNTINFO)


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount() -> None:
    assert system.mount_type(Path("/run/systemd/nspawn"), MOUNTINFO) == "tmpfs"
    assert system.mount_type(Path("/var/lib/a b/root"), MOUNTINFO) == "overlay"
    assert system.mount_type(Path("/var/lib"), MOUNTINFO) == "ext4"


def test_control_groups_of_a_hybrid_machine() -> None:
    found = cgroups.hierarchies(MOUNTINFO)
    assert found == [(Path("/sys/fs/cgroup/cpu"), "cgroup"), (Path("/sys/fs/cgroup/unified"), "cgroup2")]


def test_settings_are_raised_never_lowered_and_put_back(tmp_path: Path) -> None:
    proc, record = tmp_path / "sys", tmp_path / "record.json"
    before = {"fs/inotify/max_user_instances": "128", "fs/inotify/max_user_watches": "9999999", "kernel/panic": "0"}
    for name, value in before.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(value + "\n")
    system.raise_settings(record, proc)
    (proc / "kernel/panic").write_text("10\n")  # as the kubelet does
    system.raise_settings(record, proc)  # a second `up` must not take the raised values for the old ones
    assert int((proc / "fs/inotify/max_user_instances").read_text()) >= 8192
    assert (proc / "fs/inotify/max_user_watches").read_text() == "9999999\n"
    system.restore_settings(record, proc)
    assert {name: (proc / name).read_text().strip() for name in before} == before
    assert not record.exists()


def test_a_lock_keeps_others_out_and_survives_the_removal_of_its_folder(tmp_path: Path) -> None:
    folder, waiting, order = tmp_path / "x", threading.Event(), []

    def second() -> None:
        with system.locked(folder, lambda _: waiting.set()):
            order.append("second")
            assert folder.exists()

    with system.locked(folder):
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(20)
        folder.rmdir()
        order.append("first")
    other.join(20)
    assert order == ["first", "second"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from nornir_k3s_lab.system import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    with system.locked(tmp_path):
        pass
    holder.communicate()


def test_programs_that_fail_say_why() -> None:
    with pytest.raises(LabError, match=r"failed with status 3\nwhat a pity"):
        system.run(["sh", "-c", "echo what a pity >&2; exit 3"])
    with pytest.raises(LabError, match="is not installed"):
        system.run(["no-such-program-anywhere"])
    with pytest.raises(LabError, match="did not end within"):
        system.run(["sleep", "60"], timeout=0.1)


def test_a_wait_that_ends_badly_names_its_condition() -> None:
    with pytest.raises(LabError, match="in vain: the moon is full"):
        system.wait_until(lambda: False, "the moon is full", 0.05, every=0.01)


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        system.require_root()


def test_missing_programs_on_a_machine_without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("systemd-nspawn", "apt-get") else f"/bin/{name}")
    with pytest.raises(LabError, match="lacks systemd-container"):
        system.require_programs(lambda _: None)


def test_a_range_that_is_routed_elsewhere_is_refused() -> None:
    routes = [{"dst": "default", "dev": "eth0"}, {"dst": "10.99.0.0/16", "dev": "tun0"}, {"dst": "10.98.0.0/24"}]
    with pytest.raises(LabError, match=r"routes 10\.99\.0\.0/16 to tun0"):
        network.refuse_taken("x", "10.99.4.0/24", routes)
    network.refuse_taken("x", "10.97.0.0/24", routes)
    network.refuse_taken("x", "10.99.0.0/24", [{"dst": "10.99.0.0/24", "dev": network.bridge_name("x")}])


def test_interface_names_fit_into_the_kernels_fifteen_characters() -> None:
    assert len(network.link_name("l" * 32, "h" * 32)) <= 15
    assert len(network.bridge_name("l" * 32)) <= 15
    assert network.link_name("a", "s1") != network.link_name("b", "s1")


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "k" / "id"
    public = keys.ensure_key(file)
    assert public.startswith("ssh-ed25519 ")
    assert keys.ensure_key(file) == public
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "k" / "id.pub").read_text() == public + "\n"


def test_a_private_file_is_replaced_at_once_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "file").symlink_to("other")
    system.write_private(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnicodeEncodeError):
        system.write_private(tmp_path / "file", "\ud800")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "new", "other": "other"}


def test_a_lock_is_kept_by_a_child_that_outlives_its_process(tmp_path: Path) -> None:
    with system.locked(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[lock])
    waits = threading.Event()

    def free(_: str) -> None:
        waits.set()
        child.kill()
        child.wait()

    with system.locked(tmp_path, free):
        assert waits.is_set()


def test_passwords_are_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "pw"
    assert keys.ensure_password(file) == keys.ensure_password(file) != ""
    assert file.stat().st_mode & 0o777 == 0o600


def test_known_hosts_keeps_the_lines_of_others(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("github.example ssh-ed25519 AAA\n10.0.0.1 ssh-ed25519 OLD\n")
    keys.update_known_hosts(file, {"10.0.0.1": "ssh-ed25519 NEW", "10.0.0.2": "ssh-ed25519 TWO"})
    assert file.read_text().splitlines() == [
        "github.example ssh-ed25519 AAA",
        "10.0.0.1 ssh-ed25519 NEW",
        "10.0.0.2 ssh-ed25519 TWO",
    ]
    keys.update_known_hosts(file, {"10.0.0.1": None, "10.0.0.2": None})
    assert file.read_text() == "github.example ssh-ed25519 AAA\n"
    keys.update_known_hosts(file, {"github.example": None})
    assert not file.exists()
    keys.update_known_hosts(file, {"10.0.0.1": None})


def test_another_recipe_is_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.image_folder(tmp_path)
    assert image.image_folder(tmp_path) == before
    monkeypatch.setattr(image, "EXTRA", [*image.EXTRA, "hello"])
    assert image.image_folder(tmp_path) != before


def test_an_image_that_exists_is_not_built_again(tmp_path: Path) -> None:
    image.image_folder(tmp_path).mkdir()
    assert image.ensure_image(tmp_path, pytest.fail) == image.image_folder(tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_the_repository_index_tells_what_is_in_the_folder(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    tree.chmod(0o755)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nPriority: required\nMaintainer: x <x@x>\nDescription: x\n y: z\n"
    )
    packages = tmp_path / "packages"
    packages.mkdir()
    subprocess.run(["dpkg-deb", "--build", tree, packages / "tiny.deb"], check=True, capture_output=True)
    image.write_index(packages)
    entry = (packages / "Packages").read_text()
    assert f"SHA256: {hashlib.sha256((packages / 'tiny.deb').read_bytes()).hexdigest()}" in entry
    assert "Filename: ./tiny.deb" in entry
    assert hashlib.sha256(entry.encode()).hexdigest() in (packages / "Release").read_text()
    assert image.required_packages(packages) == ["tiny"]


def test_scripts_for_hosts_are_plain_shell() -> None:
    for script in (guest.FILES["usr/lib/lab/boot"][1], guest.prepare_script("ops", "ssh-ed25519 AAA", "")):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_values_reach_the_preparing_script_whole() -> None:
    password = 'it\'s $HOME `id` "x"\\n'
    script = guest.prepare_script("ops", "key", password).partition("set -eu")[0] + 'printf %s "$PASSWORD"'
    assert subprocess.run(["sh"], input=script, text=True, capture_output=True, check=True).stdout == password


def test_a_host_knows_itself() -> None:
    files = guest.identity_files("s1", "10.9.0.5", "10.9.0.1/24", "0" * 32)
    assert "10.9.0.5 s1\n" in files["etc/hosts"]
    assert files[guest.NETWORK_FILE] == "ADDRESS=10.9.0.5/24\nGATEWAY=10.9.0.1\n"
    assert json.dumps(files).count("s1") == 2
