"""Forward: a socket on the controller whose other end is opened by a host, over its own routes and name service."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import paramiko

_BLOCK = 1 << 15


@contextlib.contextmanager
def forward(transport: paramiko.Transport, address: str, port: int, *, timeout: float) -> Iterator[socket.socket]:
    """Give a connected socket to an address that the host reaches; nothing is installed or left there.

    Arguments:
        transport: Of the host's SSH connection (RFC 4254 §7.2, `direct-tcpip`).
        address: A name or an address, as the host knows it.
        port: TCP port.
        timeout: Seconds until the host must have connected, and that one read or write may take.

    Raises:
        paramiko.ChannelException: The host could not connect (code 2), or its sshd forbids forwarding (code 1).
    """
    channel = transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout)
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout)
    pumps = [threading.Thread(target=pump, args=(channel, theirs), daemon=True) for pump in (_down, _up)]
    try:
        for pump in pumps:
            pump.start()
        yield ours
    finally:
        ours.close()
        channel.close()
        for pump in pumps:
            pump.join(5)
        theirs.close()


def _down(channel: paramiko.Channel, end: socket.socket) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(_BLOCK):
            end.sendall(data)
        end.shutdown(socket.SHUT_WR)


def _up(channel: paramiko.Channel, end: socket.socket) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := end.recv(_BLOCK):
            channel.sendall(data)
        channel.shutdown_write()
