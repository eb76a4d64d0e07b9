"""Requests to the API, each on a new connection: from the controller, or from a host through its SSH connection.

TLS ends in this process: a host that passes the connection on gets no credential, and needs no program for it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import paramiko

from nornir_k3s.errors import K3sError
from nornir_k3s.run.kubeconfig_probe import Access
from nornir_k3s.ssh.forward import forward

TIMEOUT = 3.0  # seconds until a request has failed
Dial = Callable[[], AbstractContextManager[socket.socket]]


class RequestFailed(Exception):
    """There was no answer, or not the one that was wanted; in a few words.

    Arguments:
        status: Of the answer, or 0.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def from_here(to: Access) -> Dial:
    """Return what connects from the controller."""

    @contextlib.contextmanager
    def dial() -> Iterator[socket.socket]:
        with socket.create_connection((to.host, to.port), timeout=TIMEOUT) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock

    return dial


def from_host(to: Access, transport: Callable[[], paramiko.Transport]) -> Dial:
    """Return what connects from a host.

    Arguments:
        transport: Returns the host's SSH connection.
    """

    def dial() -> AbstractContextManager[socket.socket]:
        return forward(transport(), to.host, to.port, timeout=TIMEOUT)

    return dial


class Connection(http.client.HTTPSConnection):
    """An HTTPS connection over a socket that is connected already."""

    def __init__(self, to: Access, sock: socket.socket) -> None:
        super().__init__(to.host, to.port, context=to.context)
        self._to, self._raw = to, sock

    def connect(self) -> None:
        """Do the TLS handshake."""
        self.sock = self._to.context.wrap_socket(self._raw, server_hostname=self._to.host)


class Client:
    """The API from one place.

    Arguments:
        to: Where it is.
        dial: Connects to it.
    """

    def __init__(self, to: Access, dial: Dial) -> None:
        self.to, self.dial = to, dial

    def ask(self, method: str, path: str, body: object = None, *, patience: float = TIMEOUT) -> dict[str, Any]:
        """Return the answer of one request on a new connection.

        Arguments:
            patience: Seconds that the answer may take.

        Raises:
            RequestFailed: With the reason.
        """
        with self.open(method, path, body, patience=patience) as answer:
            text = answer.read()
        try:
            found = json.loads(text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @contextlib.contextmanager
    def open(
        self, method: str, path: str, body: object = None, *, patience: float = TIMEOUT
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer of one request, with its body unread.

        Arguments:
            patience: Seconds that the answer, and then each piece of its body, may take.

        Raises:
            RequestFailed: With the reason; also for what fails while the body is read.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            with self.dial() as sock:
                connection = Connection(self.to, sock)
                try:
                    connection.connect()
                    connection.sock.settimeout(patience)
                    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                    answer = connection.getresponse()
                    if answer.status >= 400:
                        raise RequestFailed(f"status {answer.status}", answer.status)
                    yield answer
                finally:
                    connection.close()
        except RequestFailed:
            raise
        except TimeoutError:
            raise RequestFailed("timed out") from None
        except (OSError, EOFError, http.client.HTTPException, paramiko.SSHException, K3sError) as error:
            raise RequestFailed(_words(error)) from None

    def insist(
        self, method: str, path: str, body: object = None, *, accept: tuple[int, ...] = (), patience: float = 30
    ) -> dict[str, Any]:
        """Return the answer of a request that is repeated for a while until it gets one.

        Arguments:
            accept: Statuses that are as good: a repeated request may have been done the first time.
            patience: Seconds that each answer may take.

        Raises:
            RequestFailed: Of the last try.
        """
        until = time.monotonic() + 30
        while True:
            try:
                return self.ask(method, path, body, patience=patience)
            except RequestFailed as error:
                if error.status in accept:
                    return {}
                if time.monotonic() > until or error.status in (404, 422):
                    raise
                threading.Event().wait(0.5)


def _words(error: Exception) -> str:
    if isinstance(
        error, http.client.RemoteDisconnected | ConnectionError | EOFError | ssl.SSLEOFError
    ) and not isinstance(error, ConnectionRefusedError):
        return "connection closed"
    if isinstance(error, paramiko.ChannelException):
        forbidden = error.code == 1  # RFC 4254 section 5.1: administratively prohibited
        return "sshd forbids it: AllowTcpForwarding" if forbidden else "the host could not connect"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower().splitlines()[0][:80]
