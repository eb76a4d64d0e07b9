"""What ssh_config says about a host is what the installed OpenSSH says: `ssh -G` is run for real."""

from __future__ import annotations

import getpass
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nornir.core.configuration import Config, SSHConfig
from nornir.core.inventory import ConnectionOptions, Host

from nornir_k3s.errors import HostUnreachable
from nornir_k3s.ssh import ssh_config
from nornir_k3s.ssh.classify import Target, classify, is_transient
from nornir_k3s.ssh.route import Route, resolve_route
from nornir_k3s.ssh.ssh_config import HostConfig, SSHConfigError, lookup

from .conftest import Peer, Sshd, eventually

HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)  # as OpenSSH finds it
ME = pwd.getpwuid(os.getuid()).pw_name
NAME = "node"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def ask(file: Path) -> Callable[..., HostConfig]:
    """Look a host up in an ssh_config with these lines."""

    def asker(lines: str, name: str = NAME, **given: Any) -> HostConfig:
        file.write_text(lines.replace("FOLDER", str(file.parent)) + "\n")
        ssh_config._ask_once.cache_clear()
        return lookup(file, name, **given)

    return asker


Ask = Callable[..., HostConfig]


def route(file: Path | None, *, hostname: str = NAME, port: int | None = None, username: str | None = None) -> Route:
    options = ConnectionOptions(extras={"ssh_config_file": str(file) if file else None})
    host = Host("h1", hostname=hostname, port=port, username=username, connection_options={"netmiko": options})
    return resolve_route(host, None)


# Include


def test_included_files_count_nested_and_by_pattern(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.conf").write_text(f"Include {tmp_path}/deep\nHost other\n Port 1\n")
    (tmp_path / "conf.d" / "20.conf").write_text("Host node\n Port 2020\n User second\n")
    (tmp_path / "deep").write_text("Host node\n Port 1010\n")
    found = ask("Include FOLDER/conf.d/*.conf FOLDER/is-not-there\nHost node\n Port 3030\n HostName 10.0.0.1")
    assert found == HostConfig("10.0.0.1", 1010, "second")


def test_an_include_within_a_host_block_counts_for_that_host(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("Port 2020\n")
    lines = "Host other\n Include FOLDER/part"
    assert (ask(lines).port, ask(lines, "other").port) == (22, 2020)


def test_a_host_behind_an_included_file_is_reached(connect: Callable[..., Peer], sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(f"Host node\n HostName 127.0.0.1\n Port {sshd.port}\n")
    (tmp_path / "config").write_text(f"Include {tmp_path}/hosts\n")
    peer = connect(hostname=NAME, port=None, ssh_config_file=str(tmp_path / "config"))
    assert peer.do(lambda s: s.alive)


IN_NAMESPACE = """
set -e
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/dot-ssh" "$2"
exec "$3" -c 'import sys; from pathlib import Path; from nornir_k3s.ssh.ssh_config import lookup
for name in sys.argv[2:]: print(lookup(Path(sys.argv[1]), name))' "$1/config" web deep
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[str], list[str]]:
    """Look up `web` and `deep` where ~/.ssh and /etc/hosts are other ones."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("another ~/.ssh, for one process only, takes a mount namespace")
    if not (HOME / ".ssh").is_dir():
        pytest.skip("there is no ~/.ssh that another can be mounted over")
    (tmp_path / "dot-ssh").mkdir()
    # OpenSSH asks for canonical names with the dot at their end.
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n10.9.8.7 web.canonical.test web.canonical.test.\n")

    def run(lines: str) -> list[str]:
        (tmp_path / "config").write_text(lines)
        argv = ["unshare", "--mount", "sh", "-c", IN_NAMESPACE, "sh", str(tmp_path), str(HOME / ".ssh"), sys.executable]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert not done.stderr
        return done.stdout.splitlines()

    return run


def test_a_relative_include_is_relative_to_the_users_ssh_folder(
    elsewhere: Callable[[str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "dot-ssh" / "work").write_text("Host web\n Port 2020\n")
    (tmp_path / "dot-ssh" / "more").write_text("Host deep\n Port 3030\n")
    assert elsewhere("Include work\nInclude ~/.ssh/mor?\n") == [
        str(HostConfig("web", 2020, ME)),
        str(HostConfig("deep", 3030, ME)),
    ]


def test_canonical_names(elsewhere: Callable[[str], list[str]]) -> None:
    lines = (
        "CanonicalizeHostname yes\nCanonicalDomains canonical.test\n"
        "Match canonical host *.canonical.test\n Port 2020\nMatch final all\n User last\n"
    )
    assert elsewhere(lines) == [
        str(HostConfig("web.canonical.test", 2020, "last")),
        str(HostConfig("deep", 22, "last")),
    ]


# Match, patterns, order


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("Match host node,x\n Port 2020", 2020),
        ("Match host !node,*\n Port 2020", 22),
        ("Match originalhost node\n Port 2020", 2020),
        ("HostName real\nMatch host real\n Port 2020", 2020),
        ("Match user ops\n Port 2020", 2020),
        ("Match user root\n Port 2020", 22),
        (f"Match localuser {ME}\n Port 2020", 2020),
        ('Match exec "test %h-%n-%r = node-node-ops"\n Port 2020', 2020),
        ('Match exec "false"\n Port 2020', 22),
        ("Match final host node\n Port 2020", 2020),
        ("Match all\n Port 2020", 2020),
        ("Host n?de !x\n Port 2020", 2020),
        ("Host * !node\n Port 2020", 22),
        ("Host node\n Port 2020\nHost *\n Port 3030", 2020),
    ],
)
def test_blocks(ask: Ask, lines: str, port: int) -> None:
    assert ask(lines, user="ops").port == port


def test_match_exec_has_no_terminal_and_no_input(ask: Ask) -> None:
    lines = 'Match exec "! read -r line && ! (: </dev/tty) 2>/dev/null"\n Port 2020'
    assert ask(lines).port == 2020


def test_the_inventory_comes_before_ssh_config_in_tokens_too(ask: Ask) -> None:
    found = ask("Host *\n Port 1\n User nobody\n ProxyCommand connect %r %h %p %n %%", port=2200, user="ops")
    assert (found.port, found.user) == (2200, "ops")
    assert found.proxy_command == "connect ops node 2200 node %"


def test_the_usual_port_of_the_inventory_leaves_it_to_ssh_config(file: Path) -> None:
    file.write_text("Port 2020\n")
    assert [route(file, port=port).port for port in (22, None, 2200)] == [2020, 2020, 2200]


# Tokens, names


def test_tokens(ask: Ask) -> None:
    found = ask("Host node\n HostName %h.example.org\n Port 2020\n User ops\n ProxyJump gate-%n,%r@%h\n")
    assert found == HostConfig("node.example.org", 2020, "ops", proxy_jump="gate-node,ops@node.example.org")
    found = ask("HostKeyAlias alias\nProxyCommand nc %k '%h' %p")
    assert found.proxy_command == "nc alias 'node' 22"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~/keys/id", "HOME/keys/id"),
        ('"~/a key"', "HOME/a key"),
        ("%d/%n-%h-%p-%r", "HOME/node-real-2020-ops"),
        ("%u/%i/100%%", f"{ME}/{os.getuid()}/100%"),
        ("${KEYS}/id", "/from/environment/id"),
        ("~root/id", f"{pwd.getpwnam('root').pw_dir}/id"),
        ("/plain", "/plain"),
    ],
)
def test_identity_files(ask: Ask, monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/is/not/asked")
    monkeypatch.setenv("KEYS", "/from/environment")
    found = ask(f"HostName real\nPort 2020\nUser ops\nIdentityFile none\nIdentityFile {text}\nIdentityFile /other")
    assert found.identities == (expected.replace("HOME", str(HOME)), "/other")


def test_only_keys_that_ssh_config_names_count(ask: Ask) -> None:
    assert ask("Host other\n IdentityFile /key").identities == ()
    assert ask("IdentityFile ~/.ssh/id_ed25519").identities == (f"{HOME}/.ssh/id_ed25519",)


@pytest.mark.parametrize(("name", "address"), [("2001:db8::1", "2001:db8::1"), ("Node.Example", "Node.Example")])
def test_addresses_are_those_of_the_inventory(ask: Ask, name: str, address: str) -> None:
    """known_hosts is searched for a name as the inventory spells it."""
    assert ask("", name).address == address


# Jumps


@pytest.mark.parametrize(
    ("lines", "jump", "command"),
    [
        ("ProxyJump a\nProxyCommand b", "a", ""),
        ("ProxyCommand b\nProxyJump a", "", "b"),
        ("ProxyJump none\nHost *\n ProxyJump a", "", ""),
        ("ProxyCommand none\nHost *\n ProxyCommand b", "", ""),
        ("ProxyJump a,me@[2001:db8::1]:33", "a,me@[2001:db8::1]:33", ""),
        ("ProxyJump ssh://me@a:33", "me@a:33", ""),
    ],
)
def test_proxies(ask: Ask, lines: str, jump: str, command: str) -> None:
    found = ask(lines)
    assert (found.proxy_jump, found.proxy_command) == (jump, command)


def test_jump_hosts_are_looked_up_and_checked_strictly(file: Path) -> None:
    file.write_text(
        "Host node\n ProxyJump me@a:33,[2001:db8::1]\nHost a\n HostName 10.0.0.1\n StrictHostKeyChecking no\n"
        "Host 2001:db8::1\n Port 44\n"
    )
    there = route(file)
    assert [(jump.address, jump.port, jump.user) for jump in there.jumps] == [
        ("2001:db8::1", 44, ME),
        ("10.0.0.1", 33, "me"),
    ]
    assert there.proxy[:3] == ("ssh", "-F", str(file))
    assert "StrictHostKeyChecking=yes" in there.proxy
    assert "BatchMode=yes" in there.proxy
    assert any("ProxyCommand=" in word and "StrictHostKeyChecking=yes" in word for word in there.proxy)
    assert there.proxy[-4:] == ("-W", "[node]:22", "--", "2001:db8::1")


# Which file


def test_without_a_file_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    config = Config(ssh=SSHConfig(config_file=str(tmp_path / "none")))
    for number in range(500):
        assert resolve_route(Host(f"h{number}"), config) == Route(
            f"h{number}", 22, getpass.getuser(), Path("~/.ssh/known_hosts").expanduser()
        )
    assert route(None).address == NAME


def test_nornir_s_file_counts_and_the_host_s_own_comes_first(file: Path, tmp_path: Path) -> None:
    file.write_text("Port 2020\n")
    config = Config(ssh=SSHConfig(config_file=str(file)))
    assert resolve_route(Host("h1"), config).port == 2020
    (tmp_path / "own").write_text("Port 3030\n")
    for own, port in ((str(tmp_path / "own"), 3030), (None, 22), ("", 22)):
        options = ConnectionOptions(extras={"ssh_config_file": own})
        assert resolve_route(Host("h1", connection_options={"netmiko": options}), config).port == port


# Trouble


def message(file: Path) -> str:
    """Return the error of a host, as a run reports it."""
    with pytest.raises(SSHConfigError) as caught:
        route(file)
    assert not is_transient(caught.value)
    told = classify(Target("h1"), caught.value)
    assert type(told) is HostUnreachable
    assert told.message.startswith("h1: ssh_config cannot be used: ")
    assert "ssh_config_file: null" in told.hint
    return told.message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("Port 22\nBogus yes", "line 2: Bad configuration option: bogus"),
        ("Port many", "line 1: Bad "),
        ("Match nonsense\n Port 1", "Bad Match condition"),
        ("Include FILE", "Too many recursive configuration includes"),
        ("ProxyCommand nc %x", "ProxyCommand has an unknown token: nc %x"),
        ("ProxyCommand nc %", "ProxyCommand has an unknown token: nc %"),
        ("IdentityFile /keys/%x", "failed with status 255: "),
        ("ProxyJump node", "jumphost loop via node"),
    ],
)
def test_a_mistake_is_told_with_the_command_that_shows_it(file: Path, lines: str, words: str) -> None:
    file.write_text(lines.replace("FILE", str(file)) + "\n")
    told = message(file)
    assert words in told
    if "Bad" in words:
        assert f"`ssh -G -F {file} -- node` failed with status 255: " in told


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"ssh_config_file {tmp_path}/none does not exist" in message(tmp_path / "none")


def test_without_ssh_the_error_says_what_is_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("Port 2020\n")
    monkeypatch.setenv("PATH", "/is/not/there")
    assert "`ssh`, which reads it, cannot be started: No such file or directory" in message(file)


def test_an_included_file_that_cannot_be_opened_is_named(file: Path, tmp_path: Path) -> None:
    """By nobody: a file without permissions would be read by root."""
    (tmp_path / "loop").symlink_to("loop")
    file.write_text(f"Include {tmp_path}/loop\n")
    assert f"{tmp_path}/loop: Too many levels of symbolic links" in message(file)


def test_a_command_that_hangs_is_ended_with_all_it_has_started(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_config, "DEADLINE", 1.0)
    file.write_text(f'Match exec "echo $$ >{tmp_path}/pid; sleep 300; true"\n Port 2020\n')
    assert "took longer than 1 s" in message(file)
    pid = (tmp_path / "pid").read_text().strip()
    eventually(lambda: not Path(f"/proc/{pid}").exists())


# Cost


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count how often `ssh` is started."""
    wrapper, calls = tmp_path / "bin" / "ssh", tmp_path / "calls"
    wrapper.parent.mkdir()
    real = subprocess.check_output(["/bin/sh", "-c", "command -v ssh"], text=True).strip()
    wrapper.write_text(f'#!/bin/sh\necho >>{calls}\nexec {real} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return lambda: len(calls.read_text().splitlines())


def test_hosts_that_share_a_jump_host_ask_for_it_once(file: Path, counted: Callable[[], int]) -> None:
    file.write_text('Host h*\n ProxyJump gate\nMatch host gate exec "sleep 0.2"\n Port 2020\n')
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: route(file, hostname=f"h{number}"), range(8)))
    assert {there.jump.port for there in found if there.jump} == {2020}
    assert counted() == 8 + 1
    route(file, hostname="h1")
    assert counted() == 8 + 1


def test_a_change_of_the_file_is_noticed_after_a_while(
    file: Path, counted: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("Port 2020\n")
    assert route(file).port == 2020
    file.write_text("Port 3030\n")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + ssh_config.CACHE_SECONDS)
    assert route(file).port == 3030
