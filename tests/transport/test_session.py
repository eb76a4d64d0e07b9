from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    CommandFailed,
    HostKeyError,
    HostUnreachable,
    Interrupted,
    OutcomeUnknown,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.ssh.session import Session

from .conftest import Peer, Sshd, eventually, free_port, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")
Connect = Callable[..., Peer]


def test_a_script_s_output_status_and_errors_come_back(peer: Peer) -> None:
    result = peer.do(lambda s: s.run("printf abc; echo oops >&2; exit 3", what="x", timeout=20, check=False))
    assert (result.stdout, result.stderr, result.status) == ("abc", "oops\n", 3)


def test_a_bad_status_is_an_error_in_words(peer: Peer) -> None:
    with pytest.raises(CommandFailed, match=r"peer: trying failed with status 3\n +oops"):
        peer.do(lambda s: s.run("echo oops >&2; exit 3", what="trying", timeout=20))


def test_secrets_are_masked_in_errors(peer: Peer) -> None:
    with pytest.raises(CommandFailed) as caught:
        peer.do(lambda s: s.run("echo has hunter2 in it >&2; false", what="x", timeout=20, secrets=[Secret("hunter2")]))
    assert "hunter2" not in str(caught.value)
    assert "********" in str(caught.value)


def test_big_output_on_both_streams_does_not_stall(peer: Peer) -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' o; head -c 5000000 /dev/zero | tr '\\0' e >&2"
    result = peer.do(lambda s: s.run(script, what="x", timeout=60))
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 5_000_000)


def test_a_long_script_with_heredocs_and_many_lines_runs(peer: Peer) -> None:
    script = "cat <<'END'\n" + "x" * 300_000 + "\n$HOME `id`\nEND\n"
    assert peer.do(lambda s: s.run(script, what="x", timeout=30)).stdout.endswith("x\n$HOME `id`\n")


def test_commands_cannot_eat_the_script(peer: Peer) -> None:
    assert peer.do(lambda s: s.run("cat; read -r x || echo empty\necho still here", what="x", timeout=20)).stdout == (
        "empty\nstill here\n"
    )


def test_the_script_is_not_in_argv(peer: Peer) -> None:
    script = "m=needle-in-argv; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    assert "needle-in-argv" not in peer.do(lambda s: s.run(script, what="x", timeout=20)).stdout


def test_a_child_left_behind_does_not_hold_the_result(peer: Peer) -> None:
    begin = time.monotonic()
    result = peer.do(lambda s: s.run("sleep 30 & echo done", what="x", timeout=60))
    assert result.stdout == "done\n"
    assert time.monotonic() - begin < 20


def test_a_deadline_ends_the_script_on_the_far_side_too(peer: Peer, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with pytest.raises(OutcomeUnknown, match="did not end in time"):
        peer.do(lambda s: s.run(f"echo $$ >{mark}; sleep 300", what="sleeping", timeout=1))
    pid = mark.read_text().strip()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the script goes on after its deadline")


def test_a_connection_lost_in_the_middle_is_outcome_unknown(peer: Peer) -> None:
    script = "kill -9 $(ps -o ppid= -p $PPID); sleep 30"
    with pytest.raises(OutcomeUnknown):
        peer.do(lambda s: s.run(script, what="x", timeout=20))
    assert peer.do(lambda s: s.run("echo again", what="x", timeout=20)).stdout == "again\n"


def test_a_stop_ends_a_running_script_at_once(peer: Peer) -> None:
    peer.do(lambda s: s.run("true", what="x", timeout=20))
    threading.Timer(0.5, peer.stop.set).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        peer.do(lambda s: s.run("sleep 60", what="x", timeout=90))
    assert time.monotonic() - begin < 30


def test_round_trips_are_counted(peer: Peer) -> None:
    peer.do(lambda s: [s.run("true", what="x", timeout=20) for _ in range(3)])
    assert peer.do(lambda s: s.round_trips) == 3


def test_nagle_is_off(peer: Peer) -> None:
    def option(session: Session) -> int:
        sock = session.transport.sock
        assert isinstance(sock, socket.socket)
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert peer.do(option) != 0


def test_a_connection_that_netmiko_prepared_itself_works_too(connect: Connect) -> None:
    peer = connect(auto_connect=True)
    assert peer.do(lambda s: s.run("echo hi", what="x", timeout=20)).stdout == "hi\n"


def test_a_file_is_put_with_its_mode_and_only_when_whole(peer: Peer, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(os.urandom(20_000_000))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    sent: list[int] = []
    peer.do(lambda s: s.push(source, str(target), sha256=digest, mode=0o750, timeout=60, on_bytes=sent.append))
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o750
    assert sum(sent) == 20_000_000
    with pytest.raises(ArtifactError, match="was damaged on the way"):
        peer.do(lambda s: s.push(source, str(target), sha256="0" * 64, timeout=60))
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    assert [p.name for p in target.parent.iterdir()] == ["target"]


def test_an_unknown_host_key_is_refused(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("")
    with pytest.raises(HostKeyError, match="not in known_hosts"):
        connect(alt_key_file=str(tmp_path / "known_hosts")).do(lambda s: s)


def test_a_changed_host_key_is_refused(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    other = (sshd.folder / "other.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    with pytest.raises(HostKeyError, match="not the one on record"):
        connect(alt_key_file=str(tmp_path / "known_hosts")).do(lambda s: s)


def test_a_wrong_key_is_an_authentication_failure(connect: Connect, sshd: Sshd) -> None:
    with pytest.raises(AuthenticationFailed, match="refused"):
        connect(key_file=str(sshd.folder / "other")).do(lambda s: s)


def test_a_missing_key_file_is_named(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(HostUnreachable, match="nowhere"):
        connect(key_file=str(tmp_path / "nowhere")).do(lambda s: s)


def test_a_closed_port_is_tried_until_the_deadline(connect: Connect) -> None:
    peer = connect(port=free_port(), ssh_strict=False)
    peer.deadline = 2.0
    with pytest.raises(HostUnreachable, match="refuses connections"):
        peer.do(lambda s: s)


def test_a_host_that_comes_up_late_is_waited_for(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    port = free_port()
    config = (sshd.folder / "config").read_text().replace(f"Port {sshd.port}", f"Port {port}")
    (tmp_path / "config").write_text(config)
    late: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        late.append(subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(tmp_path / "config")]))

    threading.Timer(1.0, start).start()
    peer = connect(port=port, ssh_strict=False)
    peer.deadline = 60.0
    try:
        assert peer.do(lambda s: s.run("echo up", what="x", timeout=20)).stdout == "up\n"
    finally:
        for process in late:
            process.terminate()
            process.wait(10)


def test_the_fast_ciphers_are_preferred_and_a_peer_without_them_is_no_problem(
    sshd: Sshd, connect: Connect, tmp_path: Path
) -> None:
    fast = connect()
    assert "gcm" in fast.do(lambda s: vars(s.transport)["remote_cipher"])
    with serving(tmp_path / "old", more="Ciphers aes256-ctr") as old:
        extras = {"key_file": str(old.folder / "id"), "alt_key_file": str(old.folder / "known_hosts")}
        peer = connect(port=old.port, **extras)
        assert peer.do(lambda s: s.run("echo hello", what="x", timeout=20)).stdout == "hello\n"
        assert peer.do(lambda s: vars(s.transport)["remote_cipher"]) == "aes256-ctr"


def test_no_login_shell_is_started_beside_the_scripts(connect: Connect, sshd: Sshd) -> None:
    profile, trace = sshd.folder / ".profile", sshd.folder / "somebody-logged-in"
    profile.write_text(f"touch {trace}\n")
    try:
        connect().do(lambda s: s.run("true", what="x", timeout=30))
        assert not trace.exists()
        # The trap works: where netmiko connects by itself, it opens one.
        connect(auto_connect=True).do(lambda s: s.run("sleep 0.2", what="x", timeout=30))
        eventually(trace.exists)
    finally:
        profile.unlink()
