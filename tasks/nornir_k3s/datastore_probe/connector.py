"""Connector: opens connections to one address of a datastore."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from nornir_k3s.datastore_probe.tls import Context


@dataclass(frozen=True)
class Connector:
    """Connections to one address of a datastore.

    Arguments:
        connect: Returns a new connected socket; the probe closes it at its end.
        address: Name or address that the certificate must contain.
        context: The TLS context; None without TLS.
        version: Of K3s.
        test_rights: Whether to test rights with statements that are undone; otherwise the probe only reads.
    """

    connect: Callable[[], socket.socket]
    address: str
    context: Context | None
    version: str
    test_rights: bool = True
