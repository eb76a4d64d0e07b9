"""TLS on a port, a thread per connection, client certificates asked for but not demanded."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, bytes]


class Request:
    """What a handler gets."""

    def __init__(
        self, method: str, path: str, headers: Any, body: bytes, subject: dict[str, list[str]], client: str
    ) -> None:
        self.method, self.headers, self.body, self.subject, self.client = method, headers, body, subject, client
        self.path, _, self.query = path.partition("?")


def status(code: int, message: str, reason: str, *, full: bool = True) -> Answer:
    """Return Kubernetes' Status object."""
    body: dict[str, Any] = {"kind": "Status"}
    if full:
        body["apiVersion"] = "v1"
    body |= {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}
    return code, "application/json", json.dumps(body, indent=2).encode()


class Server(ThreadingHTTPServer):
    """The listener; the handshake happens in the connection's own thread."""

    daemon_threads = True
    request_queue_size = 128
    address_family = socket.AF_INET6
    allow_reuse_address = True

    def __init__(self, port: int, context: Callable[[], ssl.SSLContext], route: Callable[[Request], Answer]) -> None:
        self.context, self.route = context, route
        super().__init__(("::", port), Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(30)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            wrapped = self.context().wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        try:
            self.RequestHandlerClass(wrapped, client_address, self)
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
        subject: dict[str, list[str]] = {}
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        for part in (peer or {}).get("subject", ()):
            for key, value in part:
                subject.setdefault(str(key), []).append(str(value))
        request = Request(self.command, self.path, self.headers, body, subject, self.client_address[0])
        code, kind, data = self.server.route(request)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve
