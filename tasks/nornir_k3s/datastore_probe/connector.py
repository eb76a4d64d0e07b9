"""Connector: how a datastore is reached, as often as its client needs a connection."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from nornir_k3s.datastore_probe.tls import Context


@dataclass(frozen=True)
class Connector:
    """The way to one address of a datastore.

    Arguments:
        connect: Gives a new connected socket, which is closed when the asking has ended.
        address: Name or address that its certificate must have.
        context: Its TLS; None without.
        tries: Whether rights may be tried out, and undone; otherwise it is only read.
    """

    connect: Callable[[], socket.socket]
    address: str
    context: Context | None
    tries: bool = True
