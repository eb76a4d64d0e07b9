"""The runbook that collects host keys, on real sshds, as people start it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest

from nornir_k3s.errors import UsageError
from nornir_k3s.ssh import known_hosts
from nornir_k3s.ssh.hostkeys import KeyState, compare_keys, fetch_keys
from nornir_k3s.ssh.known_hosts import HostKey, change

from .conftest import Peer, Sshd, free_port, keygen, serving

RUNBOOK = Path(__file__).resolve().parents[2] / "runbooks" / "hostkeys.py"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd with three kinds of keys."""
    with serving(tmp_path_factory.mktemp("three"), kinds=("ed25519", "ecdsa", "rsa")) as running:
        yield running


def public(server: Sshd, name: str = "hostkey") -> str:
    """Return a key of an sshd as it stands in known_hosts: kind and text."""
    return (server.folder / f"{name}.pub").read_text().rsplit(" ", 1)[0]


def keys_of(server: Sshd) -> list[str]:
    return [public(server, path.stem) for path in sorted(server.folder.glob("hostkey*.pub"))]


def lines_of(server: Sshd) -> set[str]:
    return {f"[127.0.0.1]:{server.port} {key}" for key in keys_of(server)}


@dataclass
class Done:
    status: int
    out: str
    err: str


@dataclass
class Site:
    """An inventory, its known_hosts, and the runbook on it."""

    folder: Path
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=lambda: {"ssh_strict": True, "alt_key_file": "keys/known_hosts"})

    @property
    def file(self) -> Path:
        return self.folder / "inventory" / "keys" / "known_hosts"

    @property
    def lines(self) -> set[str]:
        return set(self.file.read_text().splitlines())

    def record(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text)

    def add(self, name: str, port: int | None, hostname: str = "127.0.0.1") -> Site:
        self.hosts[name] = {"hostname": hostname, "port": port}
        return self

    def run(self, *arguments: str, answer: str | None = None) -> Done:
        """Run it; with an answer it has a terminal on which that is typed."""
        inventory = self.folder / "inventory"
        inventory.mkdir(exist_ok=True)
        defaults = {"connection_options": {"netmiko": {"platform": "linux", "extras": self.extras}}}
        # JSON is YAML, too.
        (inventory / "hosts.yaml").write_text(json.dumps(self.hosts))
        (inventory / "groups.yaml").write_text("{}")
        (inventory / "defaults.yaml").write_text(json.dumps(defaults))
        config = {
            "inventory": {"plugin": "SimpleInventory", "transform_function": "k3s_credentials"},
            "runner": {"plugin": "k3s_runner"},
        }
        (self.folder / "config.yaml").write_text(json.dumps(config))
        argv = [sys.executable, str(RUNBOOK), "--config", str(self.folder / "config.yaml")]
        argv += ["--inventory", str(inventory), *arguments]
        master, slave = pty.openpty()
        try:
            os.write(master, (answer or "").encode())
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL if answer is None else slave,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                env=os.environ | {"HOME": str(self.folder)},
            )
        finally:
            os.close(master)
            os.close(slave)
        assert "Traceback" not in done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def states(done: Done, host: str) -> list[str]:
    """Return the last column of a host's rows."""
    rows = re.findall(rf"^│ {re.escape(host)} .*│ (\S+) +│$", done.out, re.MULTILINE)
    return [str(state) for state in rows]


# Collecting


def test_without_a_terminal_all_is_shown_and_nothing_is_changed(site: Site, three: Sshd) -> None:
    done = site.add("s1", three.port).run()
    assert done.status == 1
    assert states(done, "s1") == ["new", "new", "new"]
    assert f"127.0.0.1:{three.port}" in done.out
    for name in ("hostkey", "hostkey_ecdsa", "hostkey_rsa"):
        listed = subprocess.check_output(["ssh-keygen", "-lf", str(three.folder / name)], text=True)
        assert listed.split()[1] in done.out
    assert not site.file.exists()
    assert not site.file.parent.exists()


def test_yes_adds_them_to_a_file_that_only_its_owner_reads(site: Site, three: Sshd, sshd: Sshd) -> None:
    site.add("s1", three.port).add("s2", sshd.port)
    assert site.run("--yes").status == 0
    assert site.lines == lines_of(three) | lines_of(sshd)
    assert site.file.stat().st_mode & 0o777 == 0o600
    assert site.file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in site.file.parent.iterdir()] == ["known_hosts"]
    before = site.file.read_bytes()
    again = site.run()
    assert again.status == 0
    assert states(again, "s2") == ["known"]
    assert site.file.read_bytes() == before


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)])
def test_on_a_terminal_it_asks_once(site: Site, three: Sshd, sshd: Sshd, answer: str, status: int) -> None:
    done = site.add("s1", three.port).add("s2", sshd.port).run(answer=answer)
    assert done.status == status
    assert done.out.count("[y/N]") == 1
    assert "add 4 new keys? [y/N]" in done.out
    assert site.file.exists() == (status == 0)


def test_what_was_collected_is_what_connections_trust(site: Site, three: Sshd, connect: Callable[..., Peer]) -> None:
    assert site.add("s1", three.port).run("--yes").status == 0
    key = str(three.folder / "id")
    peer = connect(port=three.port, key_file=key, alt_key_file=str(site.file))
    assert peer.do(lambda s: s.alive)


def test_nothing_in_the_file_is_lost(site: Site, three: Sshd, sshd: Sshd) -> None:
    """A comment in another encoding, hashes, markers, patterns, and a last line without its end."""
    hashed = paramiko.HostKeys.hash_host(f"[127.0.0.1]:{sshd.port}")
    other = public(sshd, "other")
    before = (
        f"# m\xfcll\n\n@cert-authority *.example.org {other} ca\n@revoked * {public(three, 'other')}\r\n"
        f"*.example.org,!x {other}\n{hashed} {public(sshd)}\nnonsense\nold.example.org {other} a comment"
    ).encode("latin-1")
    site.file.parent.mkdir(parents=True)
    real = site.folder / "elsewhere"
    real.write_bytes(before)
    real.chmod(0o644)
    site.file.symlink_to(real)
    done = site.add("s1", three.port).add("s2", sshd.port).run("--yes")
    assert done.status == 0
    assert states(done, "s2") == ["known"]
    after = site.file.read_bytes()
    assert after.startswith(before + b"\n")
    assert set(after[len(before) + 1 :].decode().splitlines()) == lines_of(three)
    assert site.file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o644


def test_a_host_that_is_known_by_one_kind_is_known(site: Site, three: Sshd) -> None:
    site.record(f"[127.0.0.1]:{three.port} {public(three, 'hostkey_rsa')}\n")
    done = site.add("s1", three.port).run()
    assert done.status == 0
    assert states(done, "s1") == ["known"]


def test_of_several_keys_of_one_kind_any_is_known(site: Site, sshd: Sshd) -> None:
    name = f"[127.0.0.1]:{sshd.port}"
    site.record(f"{name} {public(sshd, 'other')}\n{name} {public(sshd)}\n")
    done = site.add("s1", sshd.port).run()
    assert (done.status, states(done, "s1")) == (0, ["known"])


def test_a_kind_that_is_never_asked_for_says_nothing_about_the_others(site: Site, sshd: Sshd) -> None:
    site.record(f"[127.0.0.1]:{sshd.port} ssh-dss AAAAB3NzaC1kc3M=\n")
    done = site.add("s1", sshd.port).run()
    assert (done.status, states(done, "s1")) == (1, ["new"])


def test_without_a_file_in_the_inventory_it_is_the_user_s_own(site: Site, three: Sshd) -> None:
    site.extras = {"ssh_strict": True}
    assert site.add("s1", three.port).run("--yes").status == 0
    assert set((site.folder / ".ssh" / "known_hosts").read_text().splitlines()) == lines_of(three)


# Keys that are not as they were


@pytest.mark.parametrize("hashed", [False, True])
def test_a_changed_key_stays_until_its_host_is_named(site: Site, three: Sshd, sshd: Sshd, hashed: bool) -> None:
    name = f"[127.0.0.1]:{three.port}"
    old = f"{paramiko.HostKeys.hash_host(name) if hashed else name + ',alias'} {public(three, 'other')}\n"
    site.record("# mine\n" + old)
    site.add("s1", three.port).add("s2", sshd.port)
    done = site.run("--yes")
    assert done.status == 1
    assert states(done, "s1") == ["CHANGED", "CHANGED", "CHANGED"]
    assert f"s1: its key is not the one on record in {site.file}" in done.out
    assert site.lines == {"# mine", old.strip()} | lines_of(sshd)
    for arguments, answer in ((["--replace", "s2"], "y\n"), (["--replace", "s1"], "n\n"), (["--replace", "s1"], None)):
        assert site.run(*arguments, answer=answer).status == 1
        assert old.strip() in site.lines
    done = site.run("--replace", "s1", answer="y\n")
    assert done.status == 0
    assert "replace what is on record for s1? [y/N]" in done.out
    kept = set() if hashed else {f"alias {public(three, 'other')}"}
    assert site.lines == {"# mine"} | kept | lines_of(three) | lines_of(sshd)


def test_replace_and_yes_ask_nothing(site: Site, three: Sshd) -> None:
    site.record(f"[127.0.0.1]:{three.port} {public(three, 'other')}\n")
    assert site.add("s1", three.port).run("--replace", "s1", "--yes").status == 0
    assert site.lines == lines_of(three)


def test_another_kind_of_key_is_no_way_around_the_one_on_record(site: Site, sshd: Sshd, tmp_path: Path) -> None:
    """A man in the middle offers a key type that the host has never offered."""
    keygen(tmp_path / "rsa", kind="rsa")
    site.record(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'rsa.pub').read_text()}")
    done = site.add("s1", sshd.port).run("--yes")
    assert done.status == 1
    assert states(done, "s1") == ["CHANGED"]


def test_a_revoked_key_is_never_added(site: Site, sshd: Sshd) -> None:
    line = f"@revoked * {public(sshd)}\n"
    site.record(line)
    done = site.add("s1", sshd.port).run("--yes", "--replace", "s1")
    assert done.status == 1
    assert states(done, "s1") == ["REVOKED"]
    assert site.file.read_text() == line


# Trouble


def test_hosts_that_cannot_be_reached_do_not_stop_the_others(site: Site, three: Sshd) -> None:
    done = site.add("away", free_port()).add("s1", three.port).add("who", 22, hostname="no such name").run("--yes")
    assert done.status == 4
    assert states(done, "away") == ["unreachable"]
    assert "refuses connections" in done.out
    assert "cannot be resolved" in done.out
    assert site.lines == lines_of(three)


def test_a_host_name_that_is_not_there_is_a_usage_error(site: Site, sshd: Sshd) -> None:
    done = site.add("s1", sshd.port).run("--yes", "--replace", "s9")
    assert done.status == 2
    assert "s9: there is no such host" in done.err
    assert not site.file.exists()


def test_a_mistake_in_ssh_config_is_an_error_of_the_host(site: Site, sshd: Sshd) -> None:
    config = site.folder / "ssh_config"
    config.write_text("Port 22\nBogus yes\n")
    site.extras["ssh_config_file"] = str(config)
    done = site.add("s1", sshd.port).run("--yes")
    assert done.status == 4
    assert (
        f"s1: ssh_config cannot be used: `ssh -G -F {config} -p {sshd.port} -- 127.0.0.1` failed with status 255: "
        in (done.out)
    )
    assert "line 2: Bad configuration option: bogus" in done.out


def test_a_folder_in_the_file_s_place_is_a_usage_error(site: Site, sshd: Sshd) -> None:
    site.file.mkdir(parents=True)
    done = site.add("s1", sshd.port).run("--yes")
    assert done.status == 2
    assert f"{site.file} cannot be used: Is a directory" in done.err


def test_a_file_that_cannot_be_made_is_a_usage_error(site: Site, sshd: Sshd) -> None:
    site.extras["alt_key_file"] = "/proc/known_hosts"
    done = site.add("s1", sshd.port).run("--yes")
    assert done.status == 2
    assert "/proc/known_hosts cannot be used" in done.err


# Behind a jump host


@pytest.fixture
def behind(site: Site, sshd: Sshd, three: Sshd) -> Site:
    """A host `s1`, the sshd with three kinds, behind the jump host `gate`."""
    (site.folder / "ssh_config").write_text(
        f"Host node\n HostName 127.0.0.1\n Port {three.port}\n ProxyJump gate\n"
        f"Host gate\n HostName 127.0.0.1\n Port {sshd.port}\n"
        f"Host *\n IdentityFile {sshd.folder}/id\n IdentitiesOnly yes\n UserKnownHostsFile /dev/null\n"
    )
    site.extras["ssh_config_file"] = "../ssh_config"
    return site.add("s1", None, hostname="node")


def test_the_jump_host_s_key_comes_first(behind: Site, sshd: Sshd, three: Sshd) -> None:
    done = behind.run()
    assert done.status == 4
    assert (states(done, "s1"), states(done, "gate")) == (["unreachable"], ["new"])
    assert not behind.file.exists()
    done = behind.run("--yes")
    assert done.status == 0
    assert states(done, "s1") == ["unreachable", "new", "new", "new"]
    assert behind.lines == lines_of(sshd) | lines_of(three)


def test_no_key_comes_through_a_jump_host_that_has_changed(behind: Site, sshd: Sshd, three: Sshd) -> None:
    old = f"[127.0.0.1]:{sshd.port} {public(sshd, 'other')}\n"
    behind.record(old)
    done = behind.run("--yes")
    assert done.status == 4
    assert (states(done, "s1"), states(done, "gate")) == (["unreachable"], ["CHANGED"])
    assert behind.file.read_text() == old
    assert behind.run("--yes", "--replace", "gate").status == 0
    assert behind.lines == lines_of(sshd) | lines_of(three)


def test_a_jump_host_that_the_user_knows_otherwise_has_changed(behind: Site, sshd: Sshd) -> None:
    (behind.folder / ".ssh").mkdir()
    own = behind.folder / ".ssh" / "known_hosts"
    own.write_text(f"[127.0.0.1]:{sshd.port} {public(sshd, 'other')}\n")
    assert states(behind.run("--yes"), "gate") == ["CHANGED"]
    assert not behind.file.exists()


# The file


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    keys = [HostKey(f"h{number}", "ssh-ed25519", bytes([number])) for number in range(40)]
    threads = [threading.Thread(target=change, args=(file, [key])) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read_bytes().splitlines(keepends=True)) == sorted(key.line for key in keys)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").symlink_to("elsewhere")
    for number in b"12":
        change(tmp_path / "known_hosts", [HostKey("h", f"kind{number}", b"1")])
    assert (tmp_path / "known_hosts").is_symlink()
    assert len((tmp_path / "elsewhere").read_bytes().splitlines()) == 2


def test_a_file_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hosts, "LOCK_DEADLINE", 0.3)
    file = tmp_path / "known_hosts"
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="locked by another process"):
            change(file, [HostKey("h", "ssh-ed25519", b"1")])
    change(file, [HostKey("h", "ssh-ed25519", b"1")])


def test_a_key_that_another_run_has_added_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    change(file, [HostKey("h", "ssh-ed25519", b"1")])
    change(file, [HostKey("h", "ssh-ed25519", b"1")])
    with pytest.raises(UsageError, match="another run added a different key for h"):
        change(file, [HostKey("g", "ssh-ed25519", b"3"), HostKey("h", "ssh-ed25519", b"2")])
    assert file.read_bytes() == HostKey("h", "ssh-ed25519", b"1").line


def test_a_file_that_cannot_be_replaced_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "known_hosts"
    file.write_text("# mine\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        change(file, [HostKey("h", "ssh-ed25519", b"1")])
    with pytest.raises(UsageError, match="No space left"):
        change(tmp_path / "new", [HostKey("h", "ssh-ed25519", b"1")])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("known_hosts", "# mine\n")]


# Which keys are requested, and how they compare with known_hosts


ED, EC, RSA = (HostKey("h", kind, kind.encode()) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa"))


@pytest.mark.parametrize(
    ("known", "shown", "times"),
    [
        ({}, [ED, EC, RSA], 3),
        ({RSA.kind: RSA.blob}, [RSA], 1),
        ({RSA.kind: RSA.blob, ED.kind: ED.blob}, [RSA, ED], 2),
        ({RSA.kind: b"old"}, [RSA, ED, EC], 3),
    ],
)
def test_only_what_is_needed_is_asked(known: dict[str, bytes], shown: list[HostKey], times: int) -> None:
    asked: list[list[str]] = []

    def ask(kinds: Any) -> HostKey:
        asked.append(list(kinds))
        has = {ED.kind: ED, EC.kind: EC, "rsa-sha2-512": RSA, RSA.kind: RSA}
        return next(has[kind] for kind in kinds if kind in has)

    assert fetch_keys(known, ask) == shown
    assert len(asked) == times


@pytest.mark.parametrize(
    ("known", "revoked", "expected"),
    [
        ({}, b"", [KeyState.NEW, KeyState.NEW]),
        ({ED.kind: ED.blob}, b"", [KeyState.KNOWN, KeyState.NEW]),
        ({ED.kind: b"old"}, b"", [KeyState.CHANGED, KeyState.CHANGED]),
        ({EC.kind: b"old"}, b"", [KeyState.CHANGED, KeyState.CHANGED]),
        ({ED.kind: ED.blob, RSA.kind: b"old"}, b"", [KeyState.KNOWN, KeyState.CHANGED]),
        ({}, ED.blob, [KeyState.REVOKED, KeyState.CHANGED]),
    ],
)
def test_a_kind_is_new_only_where_nothing_contradicts(
    known: dict[str, bytes], revoked: bytes, expected: list[KeyState]
) -> None:
    assert compare_keys([ED, RSA], known, lambda blob: blob == revoked) == expected
