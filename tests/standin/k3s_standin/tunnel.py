"""The connection an agent holds to every server directly (pkg/agent/tunnel)."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from k3s_standin.datastore_sql import dial_words
from k3s_standin.log import log

PING_EVERY = 5
PATIENCE = 15


class Tunnels:
    """One tunnel for each server that the cluster names, held until the server is gone from the list."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self.context = context
        self.wanted: set[str] = set()
        self.open: set[str] = set()

    def want(self, servers: list[str]) -> None:
        """Open what is new; what is no longer named ends by itself."""
        new = set(servers) - self.wanted
        self.wanted = set(servers)
        for address in sorted(new):
            threading.Thread(target=self._hold, args=(address,), daemon=True).start()

    def missing(self) -> str:
        """Return in words which servers cannot be reached."""
        lost = sorted(self.wanted - self.open)
        return f"no tunnel to server {', '.join(lost)}: agents need every server directly" if lost else ""

    def _hold(self, address: str) -> None:
        url = f"wss://{address}/v1-k3s/connect"
        while address in self.wanted:
            log("info", "Connecting to proxy", url=url)
            try:
                self._once(address, url)
            except OSError as error:
                host, _, port = address.rpartition(":")
                text = dial_words(error, host, int(port)) or str(error)
                log("error", "Remotedialer proxy error; reconnecting...", error=text, url=url)
            finally:
                self.open.discard(address)
            time.sleep(1)

    def _once(self, address: str, url: str) -> None:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as raw:
            connection = self.context().wrap_socket(raw, server_hostname=host.strip("[]"))
            key = base64.b64encode(os.urandom(16)).decode()
            connection.sendall(
                f"GET /v1-k3s/connect HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            first = connection.recv(4096).split(b"\r\n", 1)[0].decode(errors="replace")
            if " 101 " not in f"{first} ":
                raise OSError(f"websocket: bad handshake: {first}")
            log("info", "Connected to proxy", url=url)
            log("info", "Remotedialer connected to proxy", url=url)
            self.open.add(address)
            self._keep(connection, address)

    def _keep(self, connection: ssl.SSLSocket, address: str) -> None:
        connection.settimeout(PING_EVERY)
        heard = time.monotonic()
        while address in self.wanted:
            try:
                if not connection.recv(64):
                    raise OSError("websocket: close 1006 (abnormal closure): unexpected EOF")
                heard = time.monotonic()
            except TimeoutError:
                if time.monotonic() - heard > PATIENCE:
                    raise
                connection.sendall(struct.pack("!BB", 0x89, 0x80) + os.urandom(4))
