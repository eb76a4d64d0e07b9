"""What a reset does on a host: in a real shell, with programs that only note how they were called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nornir_k3s import shell


def script(folder: Path, lines: str, before: str = "", **programs: str) -> subprocess.CompletedProcess[str]:
    """Run lines of a reset with programs that only note how they were called.

    Arguments:
        before: The host's note of what it had.
    """
    state = folder / "state"
    state.mkdir(exist_ok=True)
    (state / "pending").mkdir(exist_ok=True)
    (state / "before").write_text(before)
    fakes = {
        "systemctl": "",
        "apt-get": "",
        "dpkg": "",
        "dpkg-query": "echo ii",
        "getent": "",
        "userdel": "",
        "groupdel": "",
    }
    for name, text in (fakes | {"ip": "", "nft": "", "setsebool": "", "dnf": ""} | programs).items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/log\n{text}\n')
        (folder / name).chmod(0o755)
    sources = [shell.source(f"apply/{name}.sh") for name in ("steps", "rollback", "removal", "reset")]
    text = "".join(sources).replace("/usr/local/bin", str(folder))
    for path in ("/etc/", "/var/lib/", "/var/log/", "/run/"):
        text = text.replace(f"{path}", f"{folder}{path}")
    head = f'set -eu\nSTATE={state} PREVIOUS={state}/previous STEP=x\nsay() {{ echo "$@"; }}\n'
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh"], input=head + text + lines, env=environ, capture_output=True, text=True, check=False)


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


ROUTES = """case $* in
  'route show root 10.42.0.0/16')
    echo '10.42.1.0/24 via 10.0.0.13 dev eth0'
    echo '10.42.9.0/24 via 10.9.9.9 dev eth0' ;;
esac"""


def test_what_k3s_own_script_leaves_goes(tmp_path: Path) -> None:
    for path in (
        "etc/rancher/node",
        "var/lib/rancher/k3s/agent",
        "var/log/containers",
        "var/log/pods",
        "var/lib/kubelet",
        "var/lib/cni",
    ):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "etc/rancher/node/password").touch()
    image = tmp_path / "var/lib/rancher/k3s/agent/k3s.tar"
    image.touch()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "receipts").write_text(f"{image}\t1 2 3 4\tsum\n")
    before = f"path {tmp_path}/var/lib/cni\npath {tmp_path}/var/log/containers\n"
    done = script(tmp_path, "reset_k3s 10.42.0.0/16 '10.0.0.12 10.0.0.13' yes\n", before, ip=ROUTES)
    assert (done.stdout, done.stderr) == ("did x changed\n", "")
    assert (tmp_path / "etc/rancher/node/password").exists(), "the data stay, and know this password"
    assert not (tmp_path / "var/log/pods").exists()
    assert (tmp_path / "var/log/containers").exists(), "it was there before"
    assert not (tmp_path / "var/lib/kubelet").exists()
    assert (tmp_path / "var/lib/cni").exists(), "it was there before"
    assert not (tmp_path / "var/lib/rancher").exists(), "K3s was never installed, and its artefacts were pushed"
    assert [one for one in log(tmp_path) if "del" in one] == [
        "ip route del 10.42.1.0/24 via 10.0.0.13",
        "nft delete table ip kube-proxy",
        "nft delete table ip6 kube-proxy",
    ]
    assert script(tmp_path, "reset_k3s '' '' no\n", before).returncode == 0
    assert not (tmp_path / "etc/rancher").exists()


def test_files_come_back_and_notes_go(tmp_path: Path) -> None:
    ours, copy = tmp_path / "ours", tmp_path / "copy"
    for path in (ours, copy):
        path.with_name(f"{path.name}.before-nornir-k3s").write_text("old")
    ours.write_text("new")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "files").write_text(f"{ours}\n{tmp_path}/other\n")
    lines = f"give_back_file {ours}\ngive_back_copy {copy}\ngive_back_copy {copy}\n"
    assert script(tmp_path, lines).returncode == 0
    assert (ours.read_text(), copy.read_text()) == ("old", "old")
    assert (tmp_path / "state" / "files").read_text() == f"{tmp_path}/other\n"


REMOVES = {
    "all": 'for name; do case $name in a | b) echo "Purg $name [1]";; esac; done',
    "some": "for name; do case $name in a) echo 'Purg a 1'; echo 'Remv theirs 1';; b) echo 'Purg b 1';; esac; done",
}


@pytest.mark.parametrize(("removes", "purged", "stays"), [("all", "a b", ""), ("some", "b", "stays a\n")])
def test_packages_go_unless_others_need_them(tmp_path: Path, removes: str, purged: str, stays: str) -> None:
    done = script(tmp_path, "purge apt a b gone\n", **{
        "apt-get": f'case $1 in -s) {REMOVES[removes]} ;; esac',
        "dpkg-query": 'for name; do :; done; case $name in gone) exit 1 ;; *) echo ii ;; esac',
    })  # fmt: skip
    assert done.stdout == f"{stays}did x changed\n", done.stderr
    (call,) = (one for one in log(tmp_path) if one.startswith("apt-get -qy"))
    assert call.endswith(f" purge {purged}")


def test_a_locale_that_others_have_set_stays(tmp_path: Path) -> None:
    """Debian's `locales` deletes it when it is purged; a run may be killed right after that."""
    link, conf = tmp_path / "etc/default/locale", tmp_path / "etc/locale.conf"
    link.parent.mkdir(parents=True)
    link.symlink_to("../locale.conf")
    conf.write_text("LANG=C.UTF-8\n")
    killed = {"apt-get": f"case $1 in -qy*) rm -f {link} {conf}; exit 1 ;; esac"}
    assert script(tmp_path, "purge apt locales\n", f"path {conf}\n", **killed).returncode != 0
    assert not link.is_symlink()
    gone = {"dpkg-query": "exit 1"}
    assert script(tmp_path, "purge apt locales\n", **gone).stdout == "did x changed\n"
    assert (str(link.readlink()), conf.read_text()) == ("../locale.conf", "LANG=C.UTF-8\n")
    for path in (link, *(tmp_path / "state/locale").iterdir()):
        path.unlink()
    assert script(tmp_path, "purge apt locales\n", **gone).stdout == "did x changed\n"
    assert not link.is_symlink(), "there was none"


def test_an_account_stays_with_the_package_of_its_name(tmp_path: Path) -> None:
    installed = {"dpkg-query": 'for name; do :; done; [ "$name" = ssl-cert ] && echo ii'}
    assert script(tmp_path, "drop_traces apt postgresql '' 'postgres ssl-cert'\n", "path x\n", **installed).stdout
    assert [one for one in log(tmp_path) if "del" in one] == ["userdel postgres", "groupdel postgres"]


def test_nothing_is_purged_twice(tmp_path: Path) -> None:
    done = script(tmp_path, "purge apt a\npurge dnf a\n", **{"dpkg-query": "exit 1", "rpm": "exit 1"})
    assert done.stdout == "did x changed\ndid x changed\n"
    assert not [one for one in log(tmp_path) if one.startswith(("apt-get", "dnf"))]
    script(tmp_path, "purge dnf a b\n", rpm="")
    assert "dnf -qy remove a b" in log(tmp_path)


def test_packages_of_rhel_stay_that_others_need(tmp_path: Path) -> None:
    """Those that only other packages of this tool need go."""
    dnf = """case "$*" in *repoquery*" a") printf 'b\\n\\n' ;; *repoquery*" b") printf 'a\\ntheirs\\n' ;; esac"""
    done = script(tmp_path, "purge dnf a b\n", rpm="", dnf=dnf)
    assert "stays b\n" in done.stdout
    assert "dnf -qy remove a" in log(tmp_path)


def test_only_what_is_new_is_removed_after_the_packages(tmp_path: Path) -> None:
    for name in ("mysql", "theirs"):
        (tmp_path / "var/lib" / name).mkdir(parents=True)
    before = f"path {tmp_path}/var/lib/theirs\nuser theirs\ngroup theirs\n"
    lines = f"drop_traces apt mysql '{tmp_path}/var/lib/mysql {tmp_path}/var/lib/theirs' 'mysql theirs'\n"
    gone = {"dpkg-query": "exit 1"}
    assert script(tmp_path, lines, before).stdout == "did x same\n"
    assert len([*(tmp_path / "var/lib").iterdir()]) == 2, "others need the package, and what is its"
    written = [tmp_path / f"etc/{name}/rt_addrprotos.d/keepalived.conf" for name in ("iproute2", "theirs")]
    for one in written:
        one.parent.mkdir(parents=True)
        one.touch()
    before += f"path {tmp_path}/etc/theirs\n"
    lines = lines.replace("var/lib/theirs'", f"var/lib/theirs {written[0]} {written[1]}'")
    assert script(tmp_path, lines, before, **gone).stdout == "did x changed\n"
    assert [path.name for path in (tmp_path / "etc").rglob("*")] == ["theirs"], "folders that are new go, too"
    assert [path.name for path in (tmp_path / "var/lib").iterdir()] == ["theirs"]
    assert [one for one in log(tmp_path) if "del" in one] == ["userdel mysql", "groupdel mysql"]
    (tmp_path / "var/lib/mysql").mkdir()
    assert script(tmp_path, lines, **gone).returncode == 0
    assert (tmp_path / "var/lib/mysql").exists(), "nobody has noted what there was before"


@pytest.mark.parametrize(
    ("before", "calls"),
    [
        ("enabled x.service\nactive x.service\n", ["enable -q x.service", "restart x.service"]),
        ("enabled y.service\n", ["disable -q x.service", "stop x.service"]),
        ("", ["restart x.service"]),
    ],
)
def test_a_unit_of_others_gets_its_state_back(tmp_path: Path, before: str, calls: list[str]) -> None:
    lines = "leave_unit x.service stop\nas_before x.service\nrefuse a\n"
    done = script(tmp_path, lines, before, systemctl="case $1 in show) echo loaded ;; esac")
    assert done.stdout == "did x changed\n" * 3, done.stderr
    said = [one.removeprefix("systemctl ") for one in log(tmp_path)]
    assert "disable -q --now x.service" in said
    assert [one for one in said if one in calls] == calls
    assert (tmp_path / "state" / "stopped").read_text() == ""
    assert "setsebool -P a off" in log(tmp_path)


def test_a_datastore_with_data_of_others_goes_on(tmp_path: Path) -> None:
    done = script(tmp_path, "leave_unit x.service run\nkeep_running x.service\n", "user x\n")
    assert done.stdout == "did x changed\n" * 2, done.stderr
    said = [one.removeprefix("systemctl ") for one in log(tmp_path)]
    assert "restart x.service" in said
    assert not [one for one in said if one.startswith(("stop", "disable"))]
    assert (tmp_path / "state" / "shared").read_text() == "x.service\n", "for a run that goes on from here"


def test_the_notes_of_a_datastore_that_stays_are_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    script(tmp_path, ":\n")
    for name, text in {"packages": "mariadb-server\nhaproxy\n", "files": "/etc/x\n", "receipts": "x\n"}.items():
        (state / name).write_text(text)
    (state / "datastore-keys.json").write_text("the CA of a datastore that stays")
    (state / "dumps").mkdir()
    gone = {"dpkg-query": "for name; do :; done; [ $name = haproxy ] || echo ii"}
    done = script(tmp_path, "forget_all apt keep\n", "user x\n", **gone)
    assert done.stdout == "did x changed\n", done.stderr
    kept = ["before", "datastore-keys.json", "dumps", "files", "packages", "pending"]
    assert sorted(path.name for path in state.iterdir()) == kept
    assert (state / "packages").read_text() == "mariadb-server\n"
    script(tmp_path, "remove_dumps\n")
    assert not (state / "dumps").exists()
    script(tmp_path, "forget_all apt ''\n")
    assert not state.exists()


def test_the_password_of_a_node_goes_later(tmp_path: Path) -> None:
    (tmp_path / "etc/rancher/node").mkdir(parents=True)
    assert script(tmp_path, "forget_password\n").stdout == "did x changed\n"
    assert not (tmp_path / "etc/rancher").exists()
    assert not (tmp_path / "state").exists()


def test_a_host_notes_what_it_had_before_once(tmp_path: Path) -> None:
    lines = shell.source("apply/prelude.sh").partition("note_before")
    text = f"STATE={tmp_path}\n{lines[1]}{lines[2]}"
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for unit in ("first.service", "second.service"):
        (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho '{unit} enabled'\n")
        (tmp_path / "systemctl").chmod(0o755)
        subprocess.run(["sh", "-eu"], input=text, env=environ, check=True, text=True)
    noted = (tmp_path / "before").read_text().splitlines()
    assert {"user root", "group root", "path /var/lib/dpkg", "enabled first.service", "active first.service"} <= set(
        noted
    )
    (tmp_path / "before").unlink()
    (tmp_path / "files").write_text("/etc/x\n")
    subprocess.run(["sh", "-eu"], input=text, env=environ, check=True, text=True)
    assert not (tmp_path / "before").exists(), "an earlier version was here first"


def test_packages_that_come_along_are_noted_before_they_are_installed(tmp_path: Path) -> None:
    told = "echo 'Inst liblua (5.3 Debian)'; echo 'Inst old [1.0] (1.1 Debian)'; echo 'Conf liblua (5.3 Debian)'"
    (tmp_path / "state").mkdir()
    script(
        tmp_path,
        "install_packages apt haproxy\n",
        **{"apt-get": f"case $1 in -s) {told} ;; esac", "dpkg-query": "exit 1"},
    )
    assert (tmp_path / "state" / "packages").read_text() == "haproxy\nliblua\n"


def test_folders_that_are_made_are_noted(tmp_path: Path) -> None:
    assert script(tmp_path, f"folder {tmp_path}/a/b\nfolder {tmp_path}/a/c\n").returncode == 0
    noted = (tmp_path / "state" / "folders").read_text().splitlines()
    assert sorted(noted) == [f"{tmp_path}/a", f"{tmp_path}/a/b", f"{tmp_path}/a/c"]


def test_the_unit_of_another_s_k3s_is_kept_before_it_is_written(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "k3s.service").write_text("ExecStart=k3s server --debug\n")
    (units / "k3s.service").chmod(0o644)
    (units / "k3s.service.env").write_text("K3S_TOKEN=x\n")
    (units / "k3s.service.env").chmod(0o600)
    installer = tmp_path / "install.sh"
    installer.write_text(f"echo ours >{units}/k3s.service; : >{units}/k3s.service.env")
    call = shell.call("run_installer", installer, "server", "mark", "k3s.service")
    done = script(tmp_path, f"mkdir -p $PREVIOUS\n: >$PREVIOUS/list\n{call}\n{call}\n")
    assert done.returncode == 0, done.stderr
    kept = units / "k3s.service.env.before-nornir-k3s"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("K3S_TOKEN=x\n", 0o600)
    assert "--debug" in (units / "k3s.service.before-nornir-k3s").read_text()
    done = script(tmp_path, "restore k3s.service yes\n", systemctl="exit 0")
    assert done.returncode == 0, done.stderr
    assert "--debug" in (units / "k3s.service").read_text()
    assert "systemctl daemon-reload" in log(tmp_path), "it starts with its own flags again"
    assert not (tmp_path / "state/installed").exists(), "it is another's again"
    give = shell.call("give_back_copy", units / "k3s.service")
    kept = units / "k3s.service.before-nornir-k3s"
    assert kept.stat().st_mode & 0o777 == 0o600, "a token may be among its flags"
    (units / "k3s.service").unlink()
    assert script(tmp_path, give).returncode == 0
    assert "--debug" in (units / "k3s.service").read_text()
    assert (units / "k3s.service").stat().st_mode & 0o777 == 0o644, "as it was"


def test_what_a_process_has_already_is_noted_once_a_file(tmp_path: Path) -> None:
    for started in (1, 2):
        assert script(tmp_path, shell.call("note_same", "/etc/a", "0a", started)).returncode == 0
    assert (tmp_path / "state/same").read_text() == f"{tmp_path}/etc/a\t0a\t2\n".replace(str(tmp_path), "")
