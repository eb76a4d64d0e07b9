"""A mirror of K3s releases on a loopback port that can misbehave in the ways real ones do."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

VERSION = "v1.34.9+k3s1"
FOLDER = "/v1.34.9%2Bk3s1"


@dataclass
class Reply:
    """One answer: `cut` ends the connection after so many bytes, `gate` holds the body back until it is set."""

    body: bytes = b""
    status: int = 200
    cut: int | None = None
    ranges: bool = True
    gate: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.removeprefix(FOLDER + "/")
        self.server.requests.append((name, dict(self.headers)))
        replies = self.server.replies.get(name, [Reply(b"no such file", 404)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        status, begin = self.range_of(reply)
        body = reply.body[begin:]
        self.send_response(status)
        headers = {"Content-Length": str(len(body))} | reply.headers
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{len(reply.body) - 1}/{len(reply.body)}"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if reply.gate:
            self.server.reached.set()
            reply.gate.wait(60)
        self.close_connection = reply.cut is not None
        self.wfile.write(body if reply.cut is None else body[: reply.cut])

    def range_of(self, reply: Reply) -> tuple[int, int]:
        wanted = self.headers.get("Range")
        if not wanted or not reply.ranges or reply.status != 200:
            return reply.status, 0
        return 206, int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *args: Any) -> None:
        pass


class Mirror(http.server.ThreadingHTTPServer):
    """Serves `replies` by name, the last one for good, and keeps what it was asked in `requests`."""

    daemon_threads = True

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.reached = threading.Event()
        self.scheme = "https" if trust else "http"
        if trust:
            self.socket = trust.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    def asked(self, name: str, header: str = "Range") -> list[str | None]:
        """Return a header of each request for a file."""
        return [headers.get(header) for asked, headers in self.requests if asked == name]

    def publish(self, **files: bytes) -> None:
        """Serve a release: `k3s`, `images` and `installer`, and the lists of their hashes."""
        names = {"k3s": "k3s", "images": "k3s-airgap-images-amd64.tar.zst", "installer": "install.sh"}
        for key, body in files.items():
            self.replies[names[key]] = [Reply(body)]
        hashes = {names[key]: hashlib.sha256(body).hexdigest() for key, body in files.items()}
        lines = {name: f"{digest}  {name}\n" for name, digest in hashes.items()}
        self.replies["install.sh.sha256sum"] = [Reply(lines.pop("install.sh").encode())]
        self.replies["sha256sum-amd64.txt"] = [Reply("".join(lines.values()).encode())]

    def handle_error(self, *args: Any) -> None:
        """Say nothing where a client went away: that is what is tested."""

    def close(self) -> None:
        for reply in [reply for replies in self.replies.values() for reply in replies]:
            if reply.gate:
                reply.gate.set()
        self.shutdown()
        self.thread.join()
        self.server_close()
