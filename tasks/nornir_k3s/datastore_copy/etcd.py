"""Etcd: the keys of an etcd through its JSON gateway, read in pages and written one revision each.

Sources: etcd `Documentation/dev-guide/api_grpc_gateway.md` (paths; bytes are base64, 64-bit numbers text),
`api/etcdserverpb/rpc.proto` (ranges, leases, compaction), `op-guide/configuration.md` (limits of a request); RFC 9112
§9.3.2 (pipelining: Go's `net/http` answers in order).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nornir_k3s.errors import K3sError

ALL = "\0"  # as the first key and as the end: every key
_KEYS, _BYTES = 200, 1 << 20  # of one page; of the requests that are under way at once
_ANSWERS = 128  # requests under way at once: their answers fit into the sockets' buffers


@dataclass(frozen=True)
class Key:
    """A key with its value, as etcd has it.

    Arguments:
        created, changed: The revisions of its first and its last put.
        lease: The lease that it ends with; 0 for none.
    """

    name: str
    value: bytes
    created: int
    changed: int
    lease: int = 0


@dataclass(frozen=True)
class Put:
    """A key to be written."""

    name: str
    value: bytes
    lease: int = 0

    @property
    def body(self) -> dict[str, Any]:
        """Return it as the gateway takes it."""
        found = {"key": _encoded(self.name), "value": base64.b64encode(self.value).decode()}
        return found | ({"lease": str(self.lease)} if self.lease else {})


class Etcd:
    """An etcd on one connection to a member.

    Arguments:
        sock: Connected, with TLS where the endpoint has it; `close` closes it.
        host: Its name, for the requests' header.
    """

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._sock, self._host, self._reader = sock, host, _Kept(sock.makefile("rb"))
        self.name = "the datastore"

    def close(self) -> None:
        """Close the connection."""
        self._reader.end()
        self._sock.close()

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request, and return the answer.

        Raises:
            K3sError: etcd refuses it, or does not answer.
        """
        return self.ask_all([(path, body)])[0]

    def ask_all(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Send requests without waiting in between, and return their answers; etcd carries them out in this order.

        Raises:
            K3sError: As `ask`; others may have been carried out.
        """
        try:
            self._sock.sendall(b"".join(self._request(path, body) for path, body in requests))
            answers = [self._answer() for _ in requests]
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise K3sError(f"{self.name}: etcd's JSON gateway does not answer: {_why(error)}") from None
        for status, found in answers:
            if status != http.HTTPStatus.OK:
                reason = str(found.get("message") or found.get("error") or f"HTTP {status}")
                raise K3sError(f"{self.name}: {reason.removeprefix('etcdserver: ')}", hint=_hint(reason))
        return [found for _, found in answers]

    def _request(self, path: str, body: dict[str, Any]) -> bytes:
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text

    def _answer(self) -> tuple[int, dict[str, Any]]:
        response = http.client.HTTPResponse(self._reader, method="POST")  # type: ignore[arg-type]  # only its `makefile`
        response.begin()
        found = json.loads(response.read() or b"{}")
        return response.status, found if isinstance(found, dict) else {}

    def revision(self) -> int:
        """Return the revision of the newest change."""
        found = self.ask("/v3/kv/range", {"key": _encoded(ALL), "count_only": True})
        return int(found["header"]["revision"])

    def read(self, first: str = ALL, *, at: int = 0, since: int = 0, values: bool = True) -> Iterator[Key]:
        """Yield keys by their names, in pages.

        Arguments:
            first: All that begin with it; by default every key.
            at: As they were at this revision; by default as they are when the first page is read.
            since: Only those that were put at this revision or later.
            values: False leaves the values empty.
        """
        end = ALL if first == ALL else _after(first)
        body: dict[str, Any] = {"key": _encoded(first), "range_end": _encoded(end), "limit": str(_KEYS)}
        body |= {"keys_only": True} if not values else {}
        body |= {"min_mod_revision": str(since)} if since else {}
        while True:
            found = self.ask("/v3/kv/range", body | ({"revision": str(at)} if at else {}))
            at = at or int(found["header"]["revision"])
            pairs = found.get("kvs", [])
            for pair in pairs:
                yield self._key(pair)
            if not found.get("more") or not pairs:
                return
            body["key"] = base64.b64encode(base64.b64decode(pairs[-1]["key"]) + b"\0").decode()

    def _key(self, pair: dict[str, str]) -> Key:
        name = base64.b64decode(pair["key"])
        try:
            text = name.decode()
        except UnicodeDecodeError:
            hint = "K3s has no such keys, and needs an etcd of its own"
            raise K3sError(f"{self.name}: the key {name[:40]!r} is not text", hint=hint) from None
        value, numbers = base64.b64decode(pair.get("value", "")), ("create_revision", "mod_revision", "lease")
        return Key(text, value, *(int(pair.get(one, 0)) for one in numbers))

    def remaining(self, lease: int) -> int:
        """Return the seconds that a lease still has; 0 if it has ended."""
        return max(0, int(self.ask("/v3/lease/timetolive", {"ID": str(lease)}).get("TTL", 0)))

    def grant(self, seconds: int) -> int:
        """Return a new lease of so many seconds; it counts from now on."""
        return int(self.ask("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def write(self, puts: Iterable[Put]) -> Iterator[int]:
        """Write keys in this order, and yield the revision of each; many are under way at once."""
        batch, size = list[tuple[str, dict[str, Any]]](), 0
        for one in puts:
            batch.append(("/v3/kv/put", one.body))
            size += len(one.value)
            if len(batch) == _ANSWERS or size >= _BYTES:
                yield from self._revisions(batch)
                batch, size = [], 0
        if batch:
            yield from self._revisions(batch)

    def _revisions(self, batch: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
        return [int(found["header"]["revision"]) for found in self.ask_all(batch)]

    def swap(self, old: str, puts: Sequence[Put]) -> bool:
        """Remove a key and write others in one revision; False if it is not there, and nothing was changed."""
        there = {"key": _encoded(old), "target": "VERSION", "result": "GREATER", "version": "0"}
        success = [{"request_delete_range": {"key": _encoded(old)}}, *({"request_put": one.body} for one in puts)]
        return bool(self.ask("/v3/kv/txn", {"compare": [there], "success": success}).get("succeeded"))

    def delete(self, first: str, *, prefix: bool = False) -> None:
        """Remove a key, or all that begin with it."""
        body = {"key": _encoded(first)} | ({"range_end": _encoded(_after(first))} if prefix else {})
        self.ask("/v3/kv/deleterange", body)

    def compact(self, revision: int) -> None:
        """Forget what was before a revision: who watches from there on is told to read everything again."""
        status = "required revision has been compacted"
        try:
            self.ask("/v3/kv/compaction", {"revision": str(revision)})
        except K3sError as error:
            if status not in error.message:
                raise


class _Kept:
    """What is read from a connection, for one response after the other: the end of one does not close it."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - a buffered reader
        self._file = file

    def makefile(self, *_: object) -> _Kept:
        return self

    def close(self) -> None:
        pass

    def end(self) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the reader
        return getattr(self._file, name)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _after(first: str) -> str:
    """Return the end of the range of all keys that begin so."""
    return first[:-1] + chr(ord(first[-1]) + 1)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _hint(reason: str) -> str:
    if "space" in reason:
        return "etcd's quota is used up: raise --quota-backend-bytes, compact, defragment, `etcdctl alarm disarm`"
    if "user name is empty" in reason or "permission denied" in reason:
        return "etcd's authentication is on, and its JSON gateway knows no user by certificate: turn it off meanwhile"
    return "raise --max-request-bytes of etcd" if too_large(reason) else ""


def too_large(reason: str) -> bool:
    """Return whether etcd refuses a request for its size: by its own limit, or 512 KiB above that by gRPC's."""
    return "too large" in reason or "larger than max" in reason
