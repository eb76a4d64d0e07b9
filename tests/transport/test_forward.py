"""Connections that a host makes for the controller: many at once, on one SSH connection."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nornir_k3s.ssh.forward import forward
from nornir_k3s.ssh.session import Session

from .conftest import Peer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says everything again, and closes when its client has ended."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_the_ends_of_many_connections_do_not_end_the_one_they_go_through(peer: Peer, echo: int) -> None:
    """Ended at both sides at once: sshd ends the whole SSH connection at a message for a channel that is closed."""

    def work(session: Session) -> bool:
        transport = session.transport

        def once(number: int) -> bytes:
            with forward(transport, "127.0.0.1", echo, timeout=20) as sock:
                word = b"%d" % number
                sock.sendall(word)
                answer = sock.recv(100)
                sock.shutdown(socket.SHUT_WR)  # the server ends its side while this one is closed here
            return answer

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(once, range(300))) == [b"%d" % number for number in range(300)]
        return transport.is_active() and session.transport is transport

    assert peer.do(work)


def test_a_copy_of_the_socket_does_not_hold_the_end_up(connect: Callable[..., Peer], echo: int) -> None:
    def work(session: Session) -> bytes:
        with forward(session.transport, "127.0.0.1", echo, timeout=20) as sock:
            copy = sock.dup()
        with copy:
            return copy.recv(100)  # it has ended, too

    assert connect().do(work) == b""
