"""TLS on a port, a thread per connection, client certificates asked for but not demanded."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What is sent back; with `tunnel` the connection is then kept, and given to it; with `stream` the body comes in pieces.

    `stream` gets a function that sends a piece, and one that tells whether the client has gone.
    """

    code: int
    kind: str
    body: bytes
    tunnel: Callable[[socket.socket], None] | None = None
    stream: Callable[[Callable[[bytes], None], Callable[[], bool]], None] | None = None


class Request:
    """What a handler gets."""

    def __init__(
        self, method: str, target: str, version: str, headers: Any, body: bytes, peer: Any, client: str
    ) -> None:
        self.method, self.version, self.headers, self.body, self.client = method, version, headers, body, client
        path, _, self.query_text = target.partition("?")
        self.path = unquote(path)
        self.query = dict(parse_qsl(self.query_text, keep_blank_values=True))
        subject: dict[str, list[str]] = {}
        for part in (peer or {}).get("subject", ()):
            for key, value in part:
                subject.setdefault(str(key), []).append(str(value))
        self.user = subject.get("commonName", [""])[-1]
        self.groups = subject.get("organizationName", [])


def json_answer(data: Any, code: int = 200, *, newline: bool = False) -> Answer:
    """Return JSON."""
    return Answer(code, JSON, json.dumps(data, separators=(",", ":")).encode() + (b"\n" if newline else b""))


def text_answer(text: str, code: int = 200, kind: str = TEXT) -> Answer:
    """Return text."""
    return Answer(code, kind, text.encode())


def status(code: int, message: str, reason: str, *, version: bool = True, details: Any = None) -> Answer:
    """Return Kubernetes' Status object for a failure; K3s' own have no apiVersion."""
    body: dict[str, Any] = {"kind": "Status"} | ({"apiVersion": "v1"} if version else {})
    body |= {"metadata": {}, "status": "Failure", "message": message, "reason": reason}
    body |= ({"details": details} if details else {}) | {"code": code}
    return Answer(code, JSON, json.dumps(body, indent=2).encode())


class Server(ThreadingHTTPServer):
    """The listener; the handshake happens in the connection's own thread."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, address: str, port: int, context: Callable[[], ssl.SSLContext], route: Callable[[Request], Answer]
    ) -> None:
        self.context, self.route = context, route
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(90)  # as kube-apiserver closes idle connections (pkg/server/secure_serving.go)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            wrapped = self.context().wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        wrapped.settimeout(600)
        try:
            Handler(wrapped, client_address, self)
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError, ValueError):
                wrapped.unwrap()
            wrapped.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is nothing to tell."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """K3s does not log requests."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        address, port = self.client_address[:2]
        client = f"{address.removeprefix('::ffff:')}:{port}"
        request = Request(self.command, self.path, self.request_version, self.headers, body, peer, client)
        answer = self.server.route(request)
        self.send_response(answer.code)
        if answer.tunnel is not None:
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.close_connection = True
            answer.tunnel(self.connection)
            return
        self.send_header("Content-Type", answer.kind)
        if answer.stream is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            answer.stream(self._piece, self._gone)
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _gone(self) -> bool:
        """Tell whether the client has closed the connection: it sends nothing while it watches."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(0))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve
