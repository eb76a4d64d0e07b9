"""The data files of the lab: what the image gets, and the scripts that prepare and start hosts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from nornir_k3s_lab import files, host_files, system


def test_the_image_gets_every_file_of_the_package_with_its_mode() -> None:
    found = host_files.image_files()
    assert {name: mode for name, (mode, _) in found.items()} == {
        "usr/lib/lab/boot.sh": 0o755,
        "etc/systemd/system/lab-boot.service": 0o644,
        "etc/systemd/journald.conf.d/lab.conf": 0o644,
        "etc/ssh/sshd_config.d/lab.conf": 0o644,
        "etc/apt/sources.list": 0o644,
    }
    assert "ExecStart=/usr/lib/lab/boot.sh\n" in found["etc/systemd/system/lab-boot.service"][1]


@pytest.mark.parametrize("name", ["rootfs/usr/lib/lab/boot.sh", "create_user.sh", "start_container.sh"])
def test_scripts_are_plain_shell(name: str) -> None:
    subprocess.run(["sh", "-n"], input=files.package_file(name), text=True, check=True)


def create_user(tmp_path: Path, *arguments: str, password: str = "") -> list[str]:
    """Run the script with stubs for all that would change this machine; return how these were called."""
    calls, commands = tmp_path / "calls", tmp_path / "bin"
    commands.mkdir()
    calls.touch()
    stubs = {
        **dict.fromkeys(("useradd", "usermod", "chown"), f'echo "${{0##*/}} $*" >> {calls}'),
        "chpasswd": f"cat > {tmp_path}/chpasswd",
        "id": "exit 1",
        "getent": f"echo $2:x:0:0::{tmp_path}/home:/bin/sh",
    }
    for name, text in stubs.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    script = files.package_file("create_user.sh")
    assert script.count("/etc/") == 1
    script = script.replace("/etc/sudoers.d/lab", f"{tmp_path}/sudoers")
    env = {"PATH": f"{commands}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", script, "create_user.sh", *arguments], input=password, text=True, env=env, check=True)
    return calls.read_text().splitlines()


def test_a_user_is_created_with_its_key_and_its_password_unchanged(tmp_path: Path) -> None:
    password, key = 'it\'s $HOME `id` "x"\\n', "ssh-ed25519 AAA it's \\n $me"
    calls = create_user(tmp_path, "ops", key, password=password)
    assert calls == ["useradd --create-home --shell /bin/bash ops", f"chown -R ops: {tmp_path}/home/.ssh"]
    assert (tmp_path / "chpasswd").read_text() == f"ops:{password}\n"
    assert (tmp_path / "sudoers").read_text() == "ops ALL=(ALL:ALL) ALL\n"
    assert (tmp_path / "sudoers").stat().st_mode & 0o777 == 0o440
    assert (tmp_path / "home/.ssh/authorized_keys").read_text() == key + "\n"
    assert (tmp_path / "home/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "home/.ssh").stat().st_mode & 0o777 == 0o700


def test_a_user_without_a_password_gets_sudo_that_does_not_ask(tmp_path: Path) -> None:
    assert "usermod --password * ops" in create_user(tmp_path, "ops", "key")
    assert (tmp_path / "sudoers").read_text() == "ops ALL=(ALL:ALL) NOPASSWD: ALL\n"


def test_root_gets_the_key_only(tmp_path: Path) -> None:
    assert create_user(tmp_path, "root", "key", password="not used") == [f"chown -R root: {tmp_path}/home/.ssh"]
    assert not (tmp_path / "sudoers").exists()
    assert not (tmp_path / "chpasswd").exists()


def test_a_container_joins_its_groups_and_starts_again_for_a_reboot(tmp_path: Path) -> None:
    groups = [tmp_path / "a b", tmp_path / "c"]
    for group in groups:
        group.mkdir()
    command = tmp_path / "command"
    command.write_text(
        f"""#!/bin/sh
        echo "$$ $*" >> {tmp_path}/log
        [ "$(wc -l < {tmp_path}/log)" -gt 2 ] || exit 133
        touch {tmp_path}/ended
        """
    )
    command.chmod(0o755)
    script = files.package_file("start_container.sh")
    argv = ["sh", "-c", script, "start_container.sh", *map(str, groups), "--", str(command), "--", "x y"]
    subprocess.run(argv, check=True)
    system.wait_until((tmp_path / "ended").exists, "no third run", 20, every=0.01)
    assert [line.partition(" ")[2] for line in (tmp_path / "log").read_text().splitlines()] == ["-- x y"] * 3
    assert len({(group / "cgroup.procs").read_text() for group in groups}) == 1


def test_a_container_that_cannot_join_its_group_does_not_start(tmp_path: Path) -> None:
    argv = ["sh", "-c", files.package_file("start_container.sh"), "start_container.sh", str(tmp_path / "gone"), "--"]
    assert subprocess.run([*argv, "touch", str(tmp_path / "x")], check=False, capture_output=True).returncode
    assert not (tmp_path / "x").exists()


def test_the_files_that_differ_from_host_to_host() -> None:
    own = host_files.identity_files("s1", "10.9.0.5", "10.9.0.1/24", "0" * 32)
    assert "10.9.0.5 s1\n" in own["etc/hosts"]
    assert own[host_files.NETWORK_FILE] == "ADDRESS=10.9.0.5/24\nGATEWAY=10.9.0.1\n"
    assert json.dumps(own).count("s1") == 2


def test_generators_that_have_nothing_to_do_in_a_container_are_masked(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/system-generators"
    folder.mkdir(parents=True)
    for name in ("systemd-sysv-generator", "systemd-gpt-auto-generator", "of-a-package"):
        (folder / name).touch()
    host_files.mask_generators(tmp_path)
    (mask,) = (tmp_path / "etc/systemd/system-generators").iterdir()
    assert (mask.name, str(mask.readlink())) == ("systemd-gpt-auto-generator", "/dev/null")
