"""Logins: which keys are offered, how often, and what known_hosts says, on real sshds with real agents."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem

from nornir_k3s.errors import AuthenticationFailed, HostKeyError
from nornir_k3s.ssh.known_hosts import KnownHosts
from nornir_k3s.ssh.session import Session

from .conftest import Peer, Sshd, eventually, keygen, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")
Connect = Callable[..., Peer]
Add = Callable[..., None]


def hello(s: Session) -> str:
    return s.run("echo hello", what="x", timeout=20).stdout


def works(peer: Peer) -> bool:
    return bool(peer.do(hello) == "hello\n")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the tester's client an empty ~/.ssh."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    return tmp_path / "home" / ".ssh"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Run an SSH agent, and add keys to it."""

    def put(*keys: Path) -> None:
        subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True)

    sock = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
    try:
        eventually(sock.exists)
        yield put
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def seven(add: Add, tmp_path: Path) -> None:
    """Put seven keys that no host knows into the agent."""
    keys = [tmp_path / f"key{number}" for number in range(7)]
    for key in keys:
        keygen(key)
    add(*keys)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that logs each refused login, with the usual MaxAuthTries."""
    with serving(tmp_path_factory.mktemp("counted"), more="LogLevel VERBOSE\nMaxAuthTries 6", log=True) as running:
        yield running


def refused_logins(sshd: Sshd) -> int:
    """Return how many connections sshd has closed because too much was refused."""
    return (sshd.folder / "log").read_text().count("Disconnecting authenticating user")


@pytest.mark.usefixtures("seven")
def test_too_many_keys_are_one_connection_and_named(connect: Connect, counted: Sshd) -> None:
    before = refused_logins(counted)
    peer = connect(port=counted.port, **counted.extras | {"key_file": None, "use_keys": False, "allow_agent": True})
    peer.deadline = 60.0
    with pytest.raises(AuthenticationFailed, match=r"too many keys offered.*(?s:.*)key_file"):
        peer.do(hello)
    eventually(lambda: refused_logins(counted) > before)  # its log may be behind
    assert refused_logins(counted) == before + 1


@pytest.mark.usefixtures("seven")
def test_a_key_file_is_offered_before_the_agent_s_keys(connect: Connect, counted: Sshd) -> None:
    assert works(connect(port=counted.port, **counted.extras | {"allow_agent": True}))


def test_a_refused_key_or_password_is_one_connection_where_sshd_allows_one_attempt(
    connect: Connect, tmp_path: Path
) -> None:
    with serving(tmp_path / "one", more="MaxAuthTries 1\nLogLevel VERBOSE", log=True) as one:
        before = refused_logins(one)
        peer = connect(port=one.port, **one.extras | {"key_file": str(one.folder / "other")})
        peer.deadline = 60.0
        with pytest.raises(AuthenticationFailed, match="refused"):
            peer.do(hello)
        eventually(lambda: refused_logins(one) > before)
        assert refused_logins(one) == before + 1


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("in_ssh_config", [True, False])
def test_a_public_key_file_means_the_agent_s_key(
    connect: Connect, counted: Sshd, add: Add, tmp_path: Path, in_ssh_config: bool
) -> None:
    add(counted.folder / "id")
    public = tmp_path / "team.pub"
    public.write_text((counted.folder / "id.pub").read_text())
    config = tmp_path / "config"
    config.write_text(f"Host *\n IdentitiesOnly yes\n IdentityFile {public}\n" if in_ssh_config else "")
    file = None if in_ssh_config else str(public)
    options = counted.extras | {"key_file": file, "use_keys": False, "allow_agent": True}
    assert works(connect(port=counted.port, ssh_config_file=str(config), **options))


def test_the_agent_that_ssh_config_names_is_used(
    connect: Connect, counted: Sshd, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(counted.folder / "id")
    agent = os.environ["SSH_AUTH_SOCK"]
    config = tmp_path / "config"
    config.write_text(
        f"Host none\n IdentityAgent none\nHost path\n IdentityAgent {agent}\nHost *\n IdentityAgent $TEAM\n"
    )
    with config.open("a") as file:
        file.write("Host *\n Hostname 127.0.0.1\n")
    options = counted.extras | {"key_file": None, "use_keys": False, "allow_agent": True}

    def peer(name: str) -> Peer:
        return connect(hostname=name, port=counted.port, ssh_config_file=str(config), **options)

    with pytest.raises(AuthenticationFailed):
        peer("none").do(hello)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    monkeypatch.setenv("TEAM", agent)
    assert works(peer("path"))
    assert works(peer("variable"))


@pytest.mark.usefixtures("seven")
def test_a_public_key_that_the_agent_does_not_hold_is_named(connect: Connect, counted: Sshd, tmp_path: Path) -> None:
    public = tmp_path / "team.pub"
    public.write_text((counted.folder / "id.pub").read_text())
    with pytest.raises(AuthenticationFailed, match="does not hold its private key"):
        connect(port=counted.port, **counted.extras | {"key_file": str(public)}).do(hello)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_keys_in_pkcs8(connect: Connect, sshd: Sshd, tmp_path: Path, kind: str, passphrase: str) -> None:
    keygen(tmp_path / "plain", kind=kind)
    key = pkcs8(tmp_path / "plain", passphrase)
    file = sshd.folder / "authorized_keys"
    before = file.read_text()
    file.write_text(before + (tmp_path / "plain.pub").read_text())
    try:
        assert works(connect(key_file=str(key), passphrase=passphrase or None))
        if passphrase:
            with pytest.raises(AuthenticationFailed, match="passphrase"):
                connect(key_file=str(key)).do(hello)
            with pytest.raises(AuthenticationFailed, match="passphrase is wrong"):
                connect(key_file=str(key), passphrase="wrong").do(hello)
    finally:
        file.write_text(before)


def pkcs8(key: Path, passphrase: str) -> Path:
    """Write a key in PKCS#8, and return that file."""
    found = pem.load_ssh_private_key(key.read_bytes(), None)
    how = pem.BestAvailableEncryption(passphrase.encode()) if passphrase else pem.NoEncryption()
    file = key.with_name("pkcs8")
    file.write_bytes(found.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, how))
    return file


def test_an_encrypted_key_that_the_agent_holds_needs_no_passphrase(
    connect: Connect, sshd: Sshd, add: Add, tmp_path: Path
) -> None:
    key = tmp_path / "locked"
    key.write_bytes((sshd.folder / "id").read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(key)], check=True)
    add(sshd.folder / "id")
    assert works(connect(key_file=str(key)))


@pytest.mark.parametrize(
    ("content", "words"), [("PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTY"), ("nonsense\n", "no private key")]
)
def test_a_file_that_is_no_key_is_named(connect: Connect, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(AuthenticationFailed, match=words):
        connect(key_file=str(tmp_path / "key")).do(hello)


def test_without_any_option_the_usual_keys_are_offered(connect: Connect, sshd: Sshd, home: Path) -> None:
    (home / "id_ed25519").write_bytes((sshd.folder / "id").read_bytes())
    assert works(connect(key_file=None, use_keys=None))


@pytest.mark.parametrize("platform", [None, "ubuntu-24-04", "linux"])
@pytest.mark.parametrize("auto_connect", [True, False])
def test_the_platform_may_be_missing_or_another_tool_s(
    connect: Connect, platform: str | None, auto_connect: bool
) -> None:
    peer = connect(auto_connect=auto_connect)
    peer.host.connection_options["netmiko"].platform = platform
    assert works(peer)


# known_hosts


@pytest.mark.parametrize(
    "names", ["[127.0.0.1]:{port}", "[127.0.0.*]:*", "[127.0.0.?]:{port}", "db1,[127.0.*]:{port},!db2", "127.0.0.*"]
)
def test_patterns_in_known_hosts(connect: Connect, sshd: Sshd, tmp_path: Path, names: str) -> None:
    assert works(connect(alt_key_file=known(sshd, tmp_path, names)))


@pytest.mark.parametrize("names", ["[127.0.0.*]:*,![127.0.0.1]:*", "10.*", "[127.0.0.1]:1"])
def test_patterns_that_do_not_match(connect: Connect, sshd: Sshd, tmp_path: Path, names: str) -> None:
    with pytest.raises(HostKeyError, match="not in known_hosts"):
        connect(alt_key_file=known(sshd, tmp_path, names)).do(hello)


def test_a_hashed_name_with_a_port(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    file = known(sshd, tmp_path, f"[127.0.0.1]:{sshd.port}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "|1|" in Path(file).read_text()
    assert works(connect(alt_key_file=file))


def test_another_key_under_a_pattern_is_refused(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"[127.0.0.*]:* {(sshd.folder / 'other.pub').read_text()}")
    with pytest.raises(HostKeyError, match="not the one on record"):
        connect(alt_key_file=str(file)).do(hello)


def test_of_several_keys_of_one_type_any_counts(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    keygen(tmp_path / "old")
    old = f"[127.0.0.1]:{sshd.port} {(tmp_path / 'old.pub').read_text()}"
    new = Path(known(sshd, tmp_path, f"[127.0.0.1]:{sshd.port}")).read_text()
    file = tmp_path / "both"
    file.write_text(old + new)
    assert works(connect(alt_key_file=str(file)))
    file.write_text(f"{old}{new}@revoked {old}")
    assert works(connect(alt_key_file=str(file)))
    file.write_text(f"{old}{new}@revoked {new}")
    with pytest.raises(HostKeyError):
        connect(alt_key_file=str(file)).do(hello)
    file.write_text(old)
    with pytest.raises(HostKeyError, match="not the one on record"):
        connect(alt_key_file=str(file)).do(hello)


def test_a_certificate_authority_is_named(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="@cert-authority"):
        connect(alt_key_file=known(sshd, tmp_path, "@cert-authority [127.*]:*")).do(hello)


def test_a_key_is_revoked_for_the_names_of_its_line() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKMh0ErY1CV5yqYTUa1lEgBgtRfwgxRlpPfmKfs9gYoA"
    file = KnownHosts(f"@revoked old.* {key}\nnew.example.org {key}\n".encode())
    blob = file.keys("new.example.org")["ssh-ed25519"]
    assert (file.revoked(blob, "old.example.org"), file.revoked(blob, "new.example.org")) == (True, False)


def known(sshd: Sshd, folder: Path, names: str) -> str:
    file = folder / "known"
    file.write_text(f"{names.format(port=sshd.port)} {(sshd.folder / 'hostkey.pub').read_text()}")
    return str(file)


@pytest.fixture
def signed(sshd: Sshd, tmp_path: Path) -> Path:
    """A key that the host knows, with a certificate that has ended."""
    key = tmp_path / "signed"
    keygen(tmp_path / "authority")
    for end in ("", ".pub"):
        Path(f"{key}{end}").write_bytes((sshd.folder / f"id{end}").read_bytes())
        Path(f"{key}{end}").chmod(0o600)
    sign = ["ssh-keygen", "-q", "-s", f"{tmp_path}/authority", "-I", "me", "-n", "root", "-V", "-2d:-1d"]
    subprocess.run([*sign, f"{key}.pub"], check=True)
    return key


@pytest.mark.parametrize("end", ["", ".pub", "-cert.pub"])
def test_a_certificate_that_has_ended_does_not_hide_its_key(
    connect: Connect, sshd: Sshd, signed: Path, add: Add, end: str
) -> None:
    if end == ".pub":
        add(signed)
    assert works(connect(**sshd.extras | {"key_file": f"{signed}{end}"}))


def test_a_file_that_is_no_certificate_does_not_hide_its_key(connect: Connect, sshd: Sshd, signed: Path) -> None:
    Path(f"{signed}-cert.pub").write_text("junk")
    assert works(connect(**sshd.extras | {"key_file": str(signed)}))


@pytest.mark.parametrize(
    "command", ["ssh-keygen -q -t dsa -N  -f", "openssl ecparam -name secp256k1 -genkey -noout -out"]
)
def test_keys_that_sshd_does_not_take_are_named(connect: Connect, sshd: Sshd, tmp_path: Path, command: str) -> None:
    key = tmp_path / "old"
    made = subprocess.run([*command.split(" "), str(key)], check=False, capture_output=True)
    if made.returncode != 0 and "dsa" in command:
        pytest.skip("OpenSSH 10 and later make no DSA keys")
    assert made.returncode == 0, made.stderr
    with pytest.raises(AuthenticationFailed, match="a kind of key that sshd does not take"):
        connect(**sshd.extras | {"key_file": str(key)}).do(hello)
