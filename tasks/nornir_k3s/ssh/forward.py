"""Forwarding: a socket on the controller that a host connects to an address that only the host may reach."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import paramiko

_BLOCK = 1 << 15


@contextlib.contextmanager
def forward(transport: paramiko.Transport, address: str, port: int, *, timeout: float) -> Iterator[socket.socket]:
    """Yield a socket connected to an address by way of the host; nothing is installed or left there.

    Arguments:
        transport: Of the host's SSH connection (RFC 4254 §7.2, `direct-tcpip`).
        address: A name or an address, which the host resolves.
        port: TCP port.
        timeout: Seconds until the host must have connected, and that one read or write may take.

    Raises:
        paramiko.ChannelException: The host could not connect (code 2), or its sshd forbids forwarding (code 1).
    """
    channel = transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout)
    local, remote = socket.socketpair()
    local.settimeout(timeout)
    threads = [threading.Thread(target=copy, args=(channel, remote), daemon=True) for copy in (_receive, _send)]
    try:
        for thread in threads:
            thread.start()
        yield local
    finally:
        local.close()
        channel.close()
        with contextlib.suppress(OSError):
            remote.shutdown(socket.SHUT_RDWR)  # the caller may have a copy of the other end, such as a TLS socket
        for thread in threads:
            thread.join(5)
        remote.close()


def _receive(channel: paramiko.Channel, end: socket.socket) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(_BLOCK):
            end.sendall(data)
        end.shutdown(socket.SHUT_WR)


def _send(channel: paramiko.Channel, end: socket.socket) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := end.recv(_BLOCK):
            channel.sendall(data)
        # No end of file is sent here: paramiko could send it after the other thread's `close` has sent its message, and
        # sshd ends the whole connection at a message for a channel that is closed.
