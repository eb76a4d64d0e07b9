"""An etcd's JSON gateway in memory, as Debian's etcd 3.4 and 3.5 answer."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any

from nornir_k3s.datastore_copy.etcd import Etcd, Key

LARGEST = 1 << 16  # bytes of a value; that of a real one is 1.5 MiB


@dataclass
class Gateway:
    """What it holds, and what it was asked; `refuses` are paths and what is said then."""

    keys: dict[str, Key] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    revision: int = 1
    compacted: int = 0
    asked: list[str] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    past: dict[int, dict[str, Key]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def does(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            "range": self.range,
            "put": self.put,
            "deleterange": self.deleterange,
            "txn": self.txn,
            "grant": self.grant,
            "timetolive": self.timetolive,
            "compaction": self.compaction,
        }

    def connect(self) -> Etcd:
        """Return a client on a connection of its own."""
        here, there = socket.socketpair()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with gateway.lock:
                    status, found = gateway.answer(self.path, body)
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        def serve() -> None:
            with contextlib.suppress(OSError), there:
                Handler(there, ("", 0), None)  # type: ignore[arg-type]  # it needs no server

        threading.Thread(target=serve, daemon=True).start()
        return Etcd(here, "etcd")

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        try:
            if said := self.refuses.get(path):
                raise ValueError(said)
            found = self.does[path.rpartition("/")[2]](body)
        except ValueError as error:
            return 400, {"error": f"etcdserver: {error}", "message": f"etcdserver: {error}"}
        return 200, {"header": {"revision": str(self.revision)}, **found}

    def change(self, puts: list[dict[str, Any]], gone: list[dict[str, Any]]) -> None:
        """Make one revision of puts and deletions."""
        if any(len(base64.b64decode(one.get("value", ""))) > LARGEST for one in puts):
            raise ValueError("request is too large")
        self.past[self.revision] = dict(self.keys)
        ends = [name for one in gone for name in self.within(one)]
        self.revision += bool(puts or ends)
        for name in ends:
            del self.keys[name]
        for one in puts:
            name, value = base64.b64decode(one["key"]).decode(), base64.b64decode(one.get("value", ""))
            key = self.keys.get(name) or Key(name, b"", self.revision, 0)
            lease = int(one.get("lease", 0))
            self.keys[name] = replace(key, value=value, changed=self.revision, lease=lease)

    def within(self, body: dict[str, Any], keys: dict[str, Key] | None = None) -> list[str]:
        first, end = (base64.b64decode(body.get(one, "")) for one in ("key", "range_end"))
        names = sorted(self.keys if keys is None else keys, key=lambda name: name.encode())
        return [one for one in names if ((one.encode() >= first and end in (b"\0",)) or first <= one.encode() < end)
                or one.encode() == first]  # fmt: skip

    def range(self, body: dict[str, Any]) -> dict[str, Any]:
        at = int(body.get("revision", 0)) or self.revision
        if at < self.compacted:
            raise ValueError("mvcc: required revision has been compacted")
        keys = self.keys if at == self.revision else self.past[at]
        found = [keys[name] for name in self.within(body, keys)]
        found = [one for one in found if one.changed >= int(body.get("min_mod_revision", 0))]
        page = found[: int(body.get("limit", 0)) or None]
        if body.get("count_only"):
            return {"count": str(len(found))}
        return {"kvs": [self.pair(one, body) for one in page], "more": len(page) < len(found), "count": len(found)}

    @staticmethod
    def pair(key: Key, body: dict[str, Any]) -> dict[str, str]:
        found = {"key": base64.b64encode(key.name.encode()).decode()}
        found |= {"create_revision": str(key.created), "mod_revision": str(key.changed)}
        if key.value and not body.get("keys_only"):
            found["value"] = base64.b64encode(key.value).decode()
        return found | ({"lease": str(key.lease)} if key.lease else {})

    def put(self, body: dict[str, Any]) -> dict[str, Any]:
        self.change([body], [])
        return {}

    def deleterange(self, body: dict[str, Any]) -> dict[str, Any]:
        self.change([], [body])
        return {}

    def txn(self, body: dict[str, Any]) -> dict[str, Any]:
        (compare,) = body["compare"]
        if base64.b64decode(compare["key"]).decode() not in self.keys:
            return {}
        done = body["success"]
        gone = [one["request_delete_range"] for one in done if "request_delete_range" in one]
        self.change([one["request_put"] for one in done if "request_put" in one], gone)
        return {"succeeded": True}

    def grant(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.leases) + 7000
        self.leases[number] = int(body["TTL"])
        return {"ID": str(number), "TTL": body["TTL"]}

    def timetolive(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"TTL": str(self.leases.get(int(body["ID"]), -1))}

    def compaction(self, body: dict[str, Any]) -> dict[str, Any]:
        if int(body["revision"]) <= self.compacted:
            raise ValueError("mvcc: required revision has been compacted")
        self.compacted = int(body["revision"])
        return {}

    def expire(self, lease: int) -> None:
        """End a lease: its keys go, in one revision."""
        self.leases.pop(lease)
        self.past[self.revision] = dict(self.keys)
        self.keys = {name: key for name, key in self.keys.items() if key.lease != lease}
        self.revision += 1
