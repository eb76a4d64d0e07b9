"""What goes wrong on the way to a host and back, on a real sshd."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nornir_k3s.errors import (
    AuthenticationFailed,
    CommandFailed,
    HostUnreachable,
    Interrupted,
    OutcomeUnknown,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.ssh import session as session_module
from nornir_k3s.ssh.session import Session

from .conftest import Peer, eventually, free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")
Connect = Callable[..., Peer]
SSHD_OF_THIS_CONNECTION = """pid=$PPID
while [ "$(cat /proc/$pid/comm)" != sshd ]; do pid=$(awk '{print $4}' /proc/$pid/stat); done
echo $pid"""


def server_pid(s: Session) -> int:
    return int(s.run(SSHD_OF_THIS_CONNECTION, what="x", timeout=20).stdout)


@pytest.mark.parametrize("status", [76, 77, 124, 137])
def test_a_script_s_own_status_is_never_taken_for_ours(peer: Peer, status: int) -> None:
    with pytest.raises(CommandFailed) as caught:
        peer.do(lambda s: s.run(f"exit {status}", what="x", timeout=20))
    assert caught.value.status == status


def test_what_was_said_before_the_deadline_is_told(peer: Peer) -> None:
    with pytest.raises(OutcomeUnknown, match=r"sleeping did not end in time \(1 s\) and was stopped\n +so far"):
        peer.do(lambda s: s.run("echo so far >&2; sleep 300", what="sleeping", timeout=1))


def test_lines_come_while_the_script_runs_and_without_secrets(peer: Peer, tmp_path: Path) -> None:
    """The script goes on only when its first line has been seen."""
    go = tmp_path / "go"
    lines: list[str] = []

    def seen(line: str) -> None:
        lines.append(line)
        go.touch()
        raise ValueError("a display error does no harm")

    script = f"echo first hunter2; while [ ! -e {go} ]; do sleep 0.1; done; echo second; printf rest"
    result = peer.do(lambda s: s.run(script, what="x", timeout=60, secrets=[Secret("hunter2")], on_line=seen))
    assert lines == ["first ********", "second"]
    assert result.stdout == "first hunter2\nsecond\nrest"


def test_a_script_that_closes_its_streams_is_waited_for_without_effort(peer: Peer) -> None:
    peer.do(lambda s: s.run("true", what="x", timeout=20))
    before, begin = time.process_time(), time.monotonic()
    result = peer.do(lambda s: s.run("exec >&- 2>&-; sleep 3; exit 4", what="x", timeout=60, check=False))
    assert result.status == 4
    assert time.process_time() - before < (time.monotonic() - begin) / 3


def test_a_connection_lost_between_two_calls_is_made_again(peer: Peer) -> None:
    def work(s: Session) -> str:
        os.kill(server_pid(s), signal.SIGKILL)
        return s.run("echo here", what="x", timeout=20).stdout

    assert peer.do(work) == "here\n"
    assert peer.do(lambda s: s.round_trips) >= 2


def test_a_closed_session_opens_again(peer: Peer) -> None:
    def work(s: Session) -> list[str]:
        first = s.run("echo one", what="x", timeout=20).stdout
        s.close()
        assert not s.alive
        return [first, s.run("echo two", what="x", timeout=20).stdout]

    assert peer.do(work) == ["one\n", "two\n"]


def test_closing_nornir_s_connections_takes_the_session_along(peer: Peer) -> None:
    first = peer.do(lambda s: s)
    peer.nr.close_connections()
    assert not first.alive
    assert not peer.host.connections
    assert peer.do(lambda s: s) is not first


def test_a_connection_that_was_opened_by_another_is_used(peer: Peer) -> None:
    connection = peer.host.get_connection("netmiko", peer.nr.config)
    connection.establish_connection()
    assert peer.do(lambda s: s.transport) is connection.remote_conn.get_transport()


def test_threads_of_one_host_share_its_connection(peer: Peer) -> None:
    """More at once than sshd's MaxSessions, which is 10 with netmiko's shell among them."""

    def work(number: int) -> str:
        return str(peer.do(lambda s: s.run(f"sleep 1; echo {number}", what="x", timeout=60)).stdout)

    peer.deadline = 60
    with ThreadPoolExecutor(14) as pool:
        assert list(pool.map(work, range(14))) == [f"{n}\n" for n in range(14)]
    assert peer.do(lambda s: s.round_trips) == 14


@pytest.fixture
def freeze() -> Iterator[Callable[[Session], None]]:
    """Put the sshd of a session's connection to sleep: it takes packets and answers none."""
    pids: list[int] = []

    def freezer(s: Session) -> None:
        pids.append(server_pid(s))
        os.kill(pids[-1], signal.SIGSTOP)

    yield freezer
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_host_that_froze_is_left_for_a_new_connection(
    peer: Peer, freeze: Callable[[Session], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "OPEN_DEADLINE", 1.0)
    peer.do(freeze)
    assert peer.do(lambda s: s.run("echo awake", what="x", timeout=20)).stdout == "awake\n"


def test_a_host_that_freezes_within_a_script_is_given_up(
    peer: Peer, freeze: Callable[[Session], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session_module, "GRACE", 1.0)
    began = tmp_path / "began"

    def when_it_began(s: Session) -> None:
        eventually(began.exists)
        freeze(s)

    def work(s: Session) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(when_it_began, s)
            s.run(f"touch {began}; sleep 300", what="sleeping", timeout=3)

    with pytest.raises(OutcomeUnknown, match="sleeping did not end in time, and the host does not answer"):
        peer.do(work)


def test_a_stop_ends_connecting_to_a_host_that_does_not_answer(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = connect(port=silent.getsockname()[1], ssh_strict=False)
        peer.deadline = 60
        threading.Timer(0.5, peer.stop.set).start()
        begin = time.monotonic()
        with pytest.raises(Interrupted):
            peer.do(lambda s: s)
        assert time.monotonic() - begin < 9  # netmiko itself would wait for 10 and more


def test_a_stop_ends_a_transfer_and_leaves_nothing(peer: Peer, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    with source.open("wb") as file:
        file.truncate(2_000_000_000)
    threads: list[int] = []

    def stop(size: int) -> None:
        threads.append(size)
        if len(threads) == 20:
            peer.stop.set()

    with pytest.raises(Interrupted):
        peer.do(lambda s: s.push(source, str(folder / "target"), sha256="0" * 64, timeout=600, on_bytes=stop))
    eventually(lambda: not list(folder.iterdir()))


def test_a_file_that_cannot_be_written_says_why(peer: Peer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5_000_000)
    with pytest.raises(CommandFailed, match=r"File exists|Not a directory"):
        peer.do(lambda s: s.push(source, str(source / "below a file"), sha256="0" * 64, timeout=60))


def test_a_sudo_password_of_two_lines_never_reaches_a_shell(connect: Connect, tmp_path: Path) -> None:
    peer = connect(secret=f"one\ntouch {tmp_path}/it-ran\n")
    with pytest.raises(AuthenticationFailed, match="more than one line"):
        peer.do(lambda s: s.run("true", what="x", timeout=20))
    assert not (tmp_path / "it-ran").exists()


def test_a_password_is_not_in_argv_or_environment(connect: Connect) -> None:
    peer = connect(secret="needle-in-haystack")
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || true"
    assert "needle-in-haystack" not in peer.do(lambda s: s.run(script, what="x", timeout=20)).stdout


def test_many_open_files_do_no_harm_and_none_is_left_open(peer: Peer) -> None:
    """A run over hundreds of hosts has descriptors beyond 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        peer.do(lambda s: s.run("true", what="x", timeout=20))
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - opens no more
        for _ in range(20):
            peer.do(lambda s: s.run("true", what="x", timeout=20))
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - opens no more
    finally:
        for descriptor in kept:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_unreachable_host_says_so_where_a_script_was_to_run(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host goes away between two calls and does not come back."""

    def work(s: Session) -> None:
        os.kill(server_pid(s), signal.SIGKILL)
        peer.host.port = free_port()
        s.deadline = 1.0
        s.run("echo here", what="x", timeout=20)

    with pytest.raises(HostUnreachable, match="refuses connections"):
        peer.do(work)
