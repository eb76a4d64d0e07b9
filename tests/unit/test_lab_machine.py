"""How the lab works on this machine, as far as that needs neither root nor hosts."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nornir_k3s_lab import (
    RELEASES,
    LabError,
    cgroups,
    files,
    image,
    kernel_settings,
    keys,
    mounts,
    network,
    packages,
    system,
)

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
    assert (Path("/var/lib/a b"), "overlay") in mounts.mounts(MOUNTINFO)


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount() -> None:
    assert mounts.mount_type(Path("/run/systemd/nspawn"), MOUNTINFO) == "tmpfs"
    assert mounts.mount_type(Path("/var/lib/a b/root"), MOUNTINFO) == "overlay"
    assert mounts.mount_type(Path("/var/lib"), MOUNTINFO) == "ext4"


def test_control_groups_of_a_hybrid_machine() -> None:
    found = cgroups.hierarchies(MOUNTINFO)
    assert found == [(Path("/sys/fs/cgroup/cpu"), "cgroup"), (Path("/sys/fs/cgroup/unified"), "cgroup2")]


def test_settings_are_raised_never_lowered_and_put_back(tmp_path: Path) -> None:
    proc, record = tmp_path / "sys", tmp_path / "record.json"
    before = {"fs/inotify/max_user_instances": "128", "fs/inotify/max_user_watches": "9999999", "kernel/panic": "0"}
    for name, value in before.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(value + "\n")
    kernel_settings.raise_settings(record, proc)
    (proc / "kernel/panic").write_text("10\n")  # as the kubelet does
    kernel_settings.raise_settings(record, proc)  # a second `up` must not record the raised values as the old ones
    assert int((proc / "fs/inotify/max_user_instances").read_text()) >= 8192
    assert (proc / "fs/inotify/max_user_watches").read_text() == "9999999\n"
    kernel_settings.restore_settings(record, proc)
    assert {name: (proc / name).read_text().strip() for name in before} == before
    assert not record.exists()


def test_a_lock_keeps_others_out_and_survives_the_removal_of_its_folder(tmp_path: Path) -> None:
    folder, waiting, order = tmp_path / "x", threading.Event(), []

    def second() -> None:
        with files.locked(folder, lambda _: waiting.set()):
            order.append("second")
            assert folder.exists()

    with files.locked(folder):
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
from nornir_k3s_lab.files import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    with files.locked(tmp_path):
        pass
    holder.communicate()


def test_programs_that_fail_say_why() -> None:
    with pytest.raises(LabError, match=r"failed with status 3\nwhat a pity"):
        system.run(["sh", "-c", "echo what a pity >&2; exit 3"])
    with pytest.raises(LabError, match="is not installed"):
        system.run(["no-such-program-anywhere"])
    with pytest.raises(LabError, match=r"sleep 60 timed out after 0\.1 s"):
        system.run(["sleep", "60"], timeout=0.1)


def test_a_wait_that_times_out_says_what_is_wrong() -> None:
    with pytest.raises(LabError, match=r"timed out after 0\.05 s: the door is open"):
        system.wait_until(lambda: False, "the door is open", 0.05, every=0.01)


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        system.require_root()


def test_missing_programs_on_a_machine_without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("systemd-nspawn", "apt-get") else f"/bin/{name}")
    with pytest.raises(LabError, match=r"missing on this machine: systemd-container; .* Debian only"):
        system.require_programs(lambda _: None)


def test_a_network_with_another_route_is_rejected() -> None:
    routes = [{"dst": "default", "dev": "eth0"}, {"dst": "10.99.0.0/16", "dev": "tun0"}, {"dst": "10.98.0.0/24"}]
    with pytest.raises(LabError, match=r"overlaps the route of this machine to 10\.99\.0\.0/16 by tun0"):
        network.check_free("x", "10.99.4.0/24", routes)
    network.check_free("x", "10.97.0.0/24", routes)
    network.check_free("x", "10.99.0.0/24", [{"dst": "10.99.0.0/24", "dev": network.bridge_name("x")}])


def test_interface_names_fit_into_the_kernels_fifteen_characters() -> None:
    assert len(network.link_name("l" * 32, "h" * 32)) <= 15
    assert len(network.bridge_name("l" * 32)) <= 15
    assert network.link_name("a", "s1") != network.link_name("b", "s1")


def test_keys_are_created_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "k" / "id"
    public = keys.ensure_key(file)
    assert public.startswith("ssh-ed25519 ")
    assert keys.ensure_key(file) == public
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "k" / "id.pub").read_text() == public + "\n"


def test_a_private_file_is_replaced_at_once_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "file").symlink_to("other")
    files.write_private(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnicodeEncodeError):
        files.write_private(tmp_path / "file", "\ud800")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "new", "other": "other"}


def test_a_lock_is_kept_by_a_child_that_outlives_its_process(tmp_path: Path) -> None:
    with files.locked(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[lock])
    waits = threading.Event()

    def free(_: str) -> None:
        waits.set()
        child.kill()
        child.wait()

    with files.locked(tmp_path, free):
        assert waits.is_set()


def test_passwords_are_created_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "pw"
    assert keys.ensure_password(file) == keys.ensure_password(file) != ""
    assert file.stat().st_mode & 0o777 == 0o600


def test_known_hosts_keeps_the_lines_of_other_hosts(tmp_path: Path) -> None:
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
    before = {release: image.image_folder(tmp_path, release) for release in RELEASES}
    assert len(set(before.values())) == len(RELEASES)
    assert image.image_folder(tmp_path, "trixie") == before["trixie"]
    monkeypatch.setitem(packages.EXTRA, "trixie", [*packages.EXTRA["trixie"], "hello"])
    assert image.image_folder(tmp_path, "trixie") != before["trixie"]
    assert image.image_folder(tmp_path, "bookworm") == before["bookworm"]


def test_an_image_that_exists_is_not_built_again_and_no_other_is_built(tmp_path: Path) -> None:
    folder = image.image_folder(tmp_path, "trixie")
    folder.mkdir()
    assert image.ensure_images(tmp_path, ["trixie"], pytest.fail) == {"trixie": folder}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_image_leaves_those_of_other_releases_and_of_running_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("image-000000000000", "image-111111111111", "building-image-222222222222"):
        (tmp_path / name).mkdir()
    used, trixie = tmp_path / "image-111111111111", image.image_folder(tmp_path, "trixie")
    trixie.mkdir()
    monkeypatch.setattr(packages, "targets", str)
    monkeypatch.setattr(packages, "sources", lambda *_: "")
    monkeypatch.setattr(image, "_build", lambda folder, *_: folder.mkdir())
    made = image.ensure_images(tmp_path, ["bookworm", "trixie"], lambda _: None, [used])
    assert set(tmp_path.iterdir()) == {used, *made.values()}


TARGETS = """\
bookworm http://mirror.example/debian/ main
bookworm http://mirror.example/debian/ contrib
bookworm-updates http://mirror.example/debian/ main
bookworm-security http://mirror.example/debian-security/ main
nodistro https://elsewhere.example/node main
"""


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
def test_packages_of_a_release_come_from_the_archives_of_this_machine() -> None:
    found = {release: packages.sources(release, "bookworm", TARGETS).splitlines() for release in RELEASES}
    assert [line.partition("] ")[2] for line in found["trixie"]][::3] == [
        "http://mirror.example/debian/ trixie main",
    ]
    assert {line.partition("] ")[2] for line in found["trixie"]} == {
        "http://mirror.example/debian/ trixie main",
        "http://mirror.example/debian/ trixie-updates main",
        "http://mirror.example/debian-security/ trixie-security main",
    }
    assert [line.partition("] ")[2] for line in found["sid"]] == ["http://mirror.example/debian/ sid main"]
    old = {release for release, lines in found.items() if any("check-valid-until=no" in line for line in lines)}
    assert old == {"sid"}, "only a copy of sid may be too old"
    with pytest.raises(LabError, match="apt on this machine knows no packages of trixie"):
        packages.sources("sid", "trixie", TARGETS)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_the_repository_index_lists_the_packages_of_the_folder(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    tree.chmod(0o755)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nPriority: required\nMaintainer: x <x@x>\nDescription: x\n y: z\n"
    )
    folder = tmp_path / "packages"
    folder.mkdir()
    subprocess.run(["dpkg-deb", "--build", tree, folder / "tiny.deb"], check=True, capture_output=True)
    packages.write_index(folder)
    entry = (folder / "Packages").read_text()
    assert f"SHA256: {hashlib.sha256((folder / 'tiny.deb').read_bytes()).hexdigest()}" in entry
    assert "Filename: ./tiny.deb" in entry
    assert hashlib.sha256(entry.encode()).hexdigest() in (folder / "Release").read_text()
    assert packages.required_packages(folder) == ["tiny"]


def test_a_timeout_ends_the_children_of_a_program_in_its_own_session(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(LabError, match=r"a long sleep timed out after 0\.5 s"):
        system.run(["sh", "-c", script], timeout=0.5, new_session=True, title="a long sleep")
    child = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")

    def ended() -> bool:
        return not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"

    system.wait_until(ended, "the child is still running", 20)
