"""An agent's way to the servers: all it knows, the registration address last (pkg/agent/loadbalancer)."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

from k3s_standin.credentials import load_balancer
from k3s_standin.log import log

Failure = (OSError, http.client.HTTPException)


class Balancer:
    """The servers, and one that is used until it fails."""

    def __init__(self, agent: Path, url: str, default: str, port: int) -> None:
        self.agent, self.url, self.default = agent, url, default
        self.servers = self._saved()
        log("info", f"Updated load balancer k3s-agent-load-balancer default server: {default}")
        shown = " ".join(self.servers)
        log("info", f"Running load balancer k3s-agent-load-balancer 127.0.0.1:{port} -> [{shown}] [default: {default}]")

    def _saved(self) -> list[str]:
        """Return the servers of an earlier start, if it had the same registration address."""
        try:
            kept = json.loads((self.agent / "etc" / "k3s-agent-load-balancer.json").read_text())
        except (OSError, ValueError):
            return []
        return list(kept.get("ServerAddresses") or []) if kept.get("ServerURL") == self.url else []

    def learn(self, servers: list[str]) -> None:
        """Keep the servers that the cluster named."""
        if servers and sorted(servers) != sorted(self.servers):
            self.servers = sorted(servers)
            log("info", f"Updated load balancer k3s-agent-load-balancer server addresses -> [{' '.join(self.servers)}]")
        load_balancer(self.agent, self.url, self.servers)

    def ask(self, method: str, path: str, **how: Any) -> tuple[int, bytes]:
        """Ask the first server that answers."""
        last: Exception = OSError("no server")
        for address in [*self.servers, self.default]:
            try:
                code, body = ask(address, method, path, **how)
            except Failure as error:
                last = error
            else:
                if address in self.servers:
                    self.servers.insert(0, self.servers.pop(self.servers.index(address)))
                return code, body
        raise last


def context(ca: Path | None, client: Path | None = None) -> ssl.SSLContext:
    """Return TLS settings; without an authority nothing is verified, and names never are.

    K3s goes through 127.0.0.1:6444 to whatever server, so the name it verifies is always in the certificate.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED
    if ca is not None:
        made.load_verify_locations(ca)
    if client is not None:
        made.load_cert_chain(client.with_suffix(".crt"), client.with_suffix(".key"))
    return made


def ask(
    address: str,
    method: str,
    path: str,
    *,
    tls: ssl.SSLContext,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = 10,
) -> tuple[int, bytes]:
    """Ask one server."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=timeout, context=tls)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def words(error: Exception, port: int) -> str:
    """Return a failure as seen through the local load balancer."""
    if isinstance(error, (ConnectionRefusedError, TimeoutError)) or (
        isinstance(error, OSError) and not isinstance(error, (ssl.SSLError, ConnectionResetError))
    ):
        own = socket.socket()
        own.bind(("127.0.0.1", 0))
        number = own.getsockname()[1]
        own.close()
        return f"read tcp 127.0.0.1:{number}->127.0.0.1:{port}: read: connection reset by peer"
    return "EOF"
