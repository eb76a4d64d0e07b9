"""How hosts are reached and logged in to: keys, agents, passwords, ssh_config and jump hosts, on real sshds."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.errors import AuthenticationFailed, HostKeyError, HostUnreachable
from nornir_k3s.ssh.session import Session
from nornir_k3s.ssh.tunnel import Tunnel

from .conftest import Peer, Sshd, eventually, free_port, keygen, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")
Connect = Callable[..., Peer]
# Of the word "sesame".
HASHED = "$6$nornirk3s$5JtsqrcuIfTn8ankhFlLGnX1Y0sQkU58jOEN9FQYlAdtel4dgf50xRcRFKV9GF7jUwDgL6V5A7/0SWoYPWqeo0"
NO_KEY: dict[str, Any] = {"use_keys": False, "key_file": None}


def hello(s: Session) -> str:
    return s.run("echo hello", what="x", timeout=20).stdout


def works(peer: Peer) -> bool:
    return bool(peer.do(hello) == "hello\n")


@pytest.fixture
def authorize(sshd: Sshd) -> Iterator[Callable[[Path], None]]:
    """Let a further key in."""
    file = sshd.folder / "authorized_keys"
    before = file.read_text()

    def let_in(key: Path) -> None:
        file.write_text(before + key.with_suffix(".pub").read_text())

    yield let_in
    file.write_text(before)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_with_a_passphrase(
    connect: Connect, authorize: Callable[[Path], None], tmp_path: Path, kind: str
) -> None:
    keygen(tmp_path / "key", kind=kind, passphrase="open sesame")
    authorize(tmp_path / "key")
    key = str(tmp_path / "key")
    assert works(connect(key_file=key, passphrase="open sesame"))
    with pytest.raises(AuthenticationFailed, match="passphrase"):
        connect(key_file=key).do(hello)
    with pytest.raises(AuthenticationFailed, match="passphrase"):
        connect(key_file=key, passphrase="wrong").do(hello)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an SSH agent without keys."""
    sock = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
    try:
        eventually(sock.exists)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("use_keys", [False, True])
def test_an_agent(connect: Connect, sshd: Sshd, agent: None, use_keys: bool) -> None:
    """`use_keys` may come from the inventory's defaults: without a key file it is no mistake."""
    peer = connect(key_file=None, use_keys=use_keys, allow_agent=True)
    with pytest.raises(AuthenticationFailed, match="no key and no password"):
        peer.do(hello)
    subprocess.run(["ssh-add", "-q", str(sshd.folder / "id")], check=True)
    assert works(peer)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that takes root's password, in a file system where root has one."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("giving root a password, for one process only, takes a mount namespace")
    folder = tmp_path_factory.mktemp("asking")
    (folder / "shadow").write_text(f"root:{HASHED}:19000:0:99999:7:::\nsshd:!:19000::::::\n")
    script = 'mount --bind "$0" /etc/shadow && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", script, str(folder / "shadow")]
    with serving(folder, more="PasswordAuthentication yes", before=before) as running:
        yield running


def test_a_password(connect: Connect, asking: Sshd) -> None:
    options: dict[str, Any] = asking.extras | NO_KEY | {"port": asking.port, "username": "root"}
    assert works(connect(password="sesame", **options))
    with pytest.raises(AuthenticationFailed, match="refused"):
        connect(password="open", **options).do(hello)


def test_a_password_where_the_defaults_ask_for_keys(connect: Connect, asking: Sshd) -> None:
    options: dict[str, Any] = asking.extras | {"key_file": None, "port": asking.port, "username": "root"}
    assert works(connect(password="sesame", **options))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_user_port_and_identity_of_ssh_config(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    config = write(
        tmp_path / "config",
        f"Host node\n HostName 127.0.0.1\n Port {sshd.port}\n User {getpass.getuser()}\n"
        f" IdentityFile {tmp_path}/none\n IdentityFile {sshd.folder}/id\n",
    )
    for username in (None, ""):
        for port in (None, 22):
            peer = connect(
                hostname="node", port=port, username=username, key_file=None, use_keys=True, ssh_config_file=config
            )
            assert works(peer)


def test_the_inventory_comes_before_ssh_config(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    config = write(
        tmp_path / "config", f"Host *\n Port {free_port()}\n User nobody\n IdentityFile {sshd.folder}/other\n"
    )
    assert works(connect(ssh_config_file=config))


def test_an_ssh_config_that_is_not_there_is_named(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(HostUnreachable, match=f"{tmp_path}/none does not exist"):
        connect(ssh_config_file=str(tmp_path / "none")).do(hello)


def test_lines_that_paramiko_cannot_read_break_nothing(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    """OpenSSH has written them, or takes them; what is revoked is not trusted."""
    line = (sshd.folder / "known_hosts").read_text()
    other = (sshd.folder / "other.pub").read_text()
    odd = f"# mine\n\n@cert-authority *.example.org {other}nonsense\nhost  ssh-ed25519 A\n"
    assert works(connect(alt_key_file=write(tmp_path / "odd", odd + line)))
    revoked = f"@revoked * {line.split(' ', 1)[1]}"
    with pytest.raises(HostKeyError, match="is revoked"):
        connect(alt_key_file=write(tmp_path / "revoked", odd + revoked + line)).do(hello)


def test_strict_without_a_file_means_the_user_s_own(
    connect: Connect, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    peer = connect(alt_key_file="", alt_host_keys=False)
    with pytest.raises(HostKeyError, match="not in known_hosts"):
        peer.do(hello)
    (tmp_path / ".ssh").mkdir()
    write(tmp_path / ".ssh" / "known_hosts", (sshd.folder / "known_hosts").read_text())
    assert works(peer)


# Jump hosts

Jumps = tuple[Sshd, Sshd]
Behind = Callable[[str, str], Peer]


@pytest.fixture(scope="module")
def jumps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jumps]:
    make = tmp_path_factory.mktemp
    with serving(make("jump1")) as first, serving(make("jump2")) as second:
        yield first, second


def known(*servers: Sshd) -> str:
    return "".join((server.folder / "known_hosts").read_text() for server in servers)


@pytest.fixture
def behind(connect: Connect, sshd: Sshd, jumps: Jumps, tmp_path: Path) -> Behind:
    """Make a peer called `node`: with these lines first in its ssh_config, and this in the inventory's known_hosts."""
    folder = tmp_path / "100% mine"  # both signs mean something to ssh
    folder.mkdir()

    def maker(lines: str, keys: str) -> Peer:
        blocks = "".join(
            f"Host {name}\n HostName 127.0.0.1\n Port {jump.port}\n IdentityFile {jump.folder}/id\n"
            for name, jump in zip(("jump1", "jump2"), jumps, strict=True)
        )
        every = "Host *\n IdentitiesOnly yes\n UserKnownHostsFile /dev/null\n"
        node = f"Host node\n HostName 127.0.0.1\n Port {sshd.port}\n"
        config = write(folder / "config", f"{lines}\n{blocks}{node}{every}")
        return connect(hostname="node", port=None, ssh_config_file=config, alt_key_file=write(folder / "known", keys))

    return maker


def tunnel(peer: Peer) -> Tunnel:
    sock = peer.do(lambda s: s.transport.sock)
    assert isinstance(sock, Tunnel)
    return sock


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "lines",
    [
        "Host node\n ProxyJump jump1",
        "Host node\n ProxyJump jump1,jump2",
        "Host node\n ProxyJump jump2\nHost jump2\n ProxyJump jump1",
        "Host node\n ProxyJump ssh://{user}@127.0.0.1:{port}\nHost 127.0.0.1\n IdentityFile {folder}/id",
        "Host node\n ProxyCommand ssh -F '{config}' -o StrictHostKeyChecking=no -W %h:%p jump1 2>/dev/null",
    ],
)
def test_a_host_behind_jump_hosts(behind: Behind, sshd: Sshd, jumps: Jumps, tmp_path: Path, lines: str) -> None:
    lines = lines.format(
        user=getpass.getuser(), port=jumps[0].port, folder=jumps[0].folder, config=tmp_path / "100% mine" / "config"
    ).replace("100% mine", "100%% mine")
    peer = behind(lines, known(sshd, *jumps))
    assert works(peer)
    pid = tunnel(peer).pid
    peer.nr.close_connections()
    eventually(lambda: gone(pid))


@pytest.mark.parametrize("spec", ["jump1", "jump1,jump2", "jump2,jump1"])
@pytest.mark.parametrize("lax", ["", "Host *\n StrictHostKeyChecking no\n"])
def test_a_jump_host_whose_key_is_unknown_is_refused(
    behind: Behind, sshd: Sshd, jumps: Jumps, spec: str, lax: str
) -> None:
    """Whichever of them it is, and whatever ssh_config allows; the error comes at once, without retries."""
    peer = behind(f"{lax}Host node\n ProxyJump {spec}", known(sshd, jumps[1]))
    peer.deadline = 600.0
    with pytest.raises(HostKeyError, match="its jump host is not in known_hosts") as caught:
        peer.do(hello)
    assert str(jumps[0].port) in caught.value.message


def test_a_jump_host_whose_key_has_changed_is_refused(behind: Behind, sshd: Sshd, jumps: Jumps) -> None:
    other = (jumps[0].folder / "other.pub").read_text()
    peer = behind("Host node\n ProxyJump jump1", known(sshd) + f"[127.0.0.1]:{jumps[0].port} {other}")
    with pytest.raises(HostKeyError, match=r"jump host .*has changed"):
        peer.do(hello)


def test_the_host_itself_is_checked_behind_a_jump_host(behind: Behind, jumps: Jumps) -> None:
    with pytest.raises(HostKeyError, match="its SSH host key is not in known_hosts"):
        behind("Host node\n ProxyJump jump1", known(*jumps)).do(hello)


def test_a_jump_host_that_refuses_the_login_is_an_error(behind: Behind, sshd: Sshd, jumps: Jumps) -> None:
    lines = f"Host node\n ProxyJump jump\nHost jump\n HostName 127.0.0.1\n Port {jumps[0].port}\n"
    peer = behind(f"{lines} IdentityFile {jumps[0].folder}/other", known(sshd, *jumps))
    peer.deadline = 600.0
    with pytest.raises(AuthenticationFailed, match=r"its jump host refuses the login: .*Permission denied"):
        peer.do(hello)


def test_the_jump_host_s_error_is_in_the_message(behind: Behind, sshd: Sshd, jumps: Jumps) -> None:
    peer = behind(f"Host node\n ProxyJump jump1\n Port {free_port()}", known(sshd, *jumps))
    peer.deadline = 1.0
    with pytest.raises(HostUnreachable, match=r"through its jump host: .*Connection refused"):
        peer.do(hello)


@pytest.mark.parametrize("line", ["ProxyJump none", "ProxyCommand none"])
def test_none_means_directly(behind: Behind, sshd: Sshd, line: str) -> None:
    peer = behind(f"Host node\n {line}\nHost *\n ProxyJump jump1", known(sshd))
    assert works(peer)
    assert not isinstance(peer.do(lambda s: s.transport.sock), Tunnel)


def test_jumps_in_a_circle_are_an_error(behind: Behind) -> None:
    with pytest.raises(HostUnreachable, match="in a circle: node, jump1, jump2, jump1"):
        behind("Host node\n ProxyJump jump1\nHost jump1\n ProxyJump jump2\nHost jump2\n ProxyJump jump1", "").do(hello)


def test_a_tunnel_that_breaks_is_made_again(behind: Behind, sshd: Sshd, jumps: Jumps) -> None:
    peer = behind("Host node\n ProxyJump jump1", known(sshd, *jumps))
    first = tunnel(peer).pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: gone(first))
    assert works(peer)
    assert tunnel(peer).pid != first


def test_a_ctrl_c_at_the_terminal_does_not_reach_the_tunnel(behind: Behind, sshd: Sshd, jumps: Jumps) -> None:
    """It goes to all processes of the terminal's group, but a running script has to end in an orderly way."""
    pid = tunnel(behind("Host node\n ProxyJump jump1", known(sshd, *jumps))).pid
    assert os.getpgid(pid) != os.getpgid(0)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_that_is_refused(connect: Connect, tmp_path: Path, kind: str) -> None:
    keygen(tmp_path / "key", kind=kind, passphrase="open sesame")
    with pytest.raises(AuthenticationFailed, match="refused"):
        connect(key_file=str(tmp_path / "key"), passphrase="open sesame").do(hello)
