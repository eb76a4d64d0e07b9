"""An external etcd, without kine between: the same keys through its JSON gateway."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from k3s_standin.datastore_sql import client_context, dial_words
from k3s_standin.endpoint import Endpoint
from k3s_standin.log import Fatal, log
from k3s_standin.process import setting
from k3s_standin.store import Entry, Expired, Feed, Store, StoreError


def _encode(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def _entry(pair: dict[str, str]) -> Entry:
    return Entry(base64.b64decode(pair.get("value", "")), int(pair["mod_revision"]))


class EtcdStore(Store):
    """Keys and values as etcd has them; the members are asked in turn, on connections that are kept.

    One that did not answer is asked last for a while (etcd's client: round robin, and a back-off for lost connections).
    """

    LOST = 10.0  # seconds
    PATIENCE = 1.0  # seconds until the next member is asked

    def __init__(self, urls: list[str], context: ssl.SSLContext | None) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        self.context = context or ssl.create_default_context()
        self._lock = threading.Lock()
        self._idle: list[tuple[str, http.client.HTTPConnection]] = []
        self._lost = dict.fromkeys(self.urls, 0.0)
        self._turn = itertools.count()
        self.oldest = 0  # what the API server's cache knows: from its start on

    def feed(self, prefix: str, revision: int) -> Feed:
        """Refuse what is older than the cache, as `apiserver/pkg/storage/cacher` does."""
        if 0 < revision < self.oldest:
            raise Expired(revision, self.oldest)
        return super().feed(prefix, revision)

    def _call(self, path: str, body: dict[str, Any], timeout: float = 5) -> dict[str, Any]:
        said = ""
        members = self._members()
        for url in members:
            patience = timeout if url is members[-1] else min(timeout, self.PATIENCE)
            try:
                return self._ask(url, path, json.dumps(body), patience)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._lost[url] = time.monotonic()
                said = self._words(error, url)
        raise StoreError(f"context deadline exceeded: {said}")

    def _members(self) -> list[str]:
        first, now = next(self._turn) % len(self.urls), time.monotonic()
        members = self.urls[first:] + self.urls[:first]
        return sorted(members, key=lambda url: now - self._lost[url] < self.LOST)

    def _ask(self, url: str, path: str, body: str, timeout: float) -> dict[str, Any]:
        """Ask one member; where a kept connection was lost meanwhile, once more on another."""
        while True:
            kept = self._kept(url)
            connection = kept or self._new(url)
            connection.timeout = timeout
            if connection.sock:
                connection.sock.settimeout(timeout)
            try:
                connection.request("POST", path, body)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise
            with self._lock:
                self._idle.append((url, connection))
            if answer.status >= 400:
                raise OSError(f"HTTP Error {answer.status}: {answer.reason}")
            found: dict[str, Any] = json.loads(text)
            return found

    def _kept(self, url: str) -> http.client.HTTPConnection | None:
        with self._lock:
            for index, (member, _) in enumerate(self._idle):
                if member == url:
                    return self._idle.pop(index)[1]
        return None

    def _new(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname or "", parts.port, context=self.context)
        return http.client.HTTPConnection(parts.hostname or "", parts.port)

    @staticmethod
    def _words(error: Exception, url: str) -> str:
        host, _, port = url.split("//")[1].rpartition(":")
        said = dial_words(error, host, int(port)) if port.isdigit() else None
        return f"connection error: desc = {json.dumps(said or str(error))}"

    def get(self, key: str) -> Entry | None:
        found = self._call("/v3/kv/range", {"key": _encode(key)}).get("kvs")
        return _entry(found[0]) if found else None

    def list(self, prefix: str) -> list[tuple[str, Entry]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._call("/v3/kv/range", {"key": _encode(prefix), "range_end": _encode(end)}).get("kvs", [])
        return [(base64.b64decode(pair["key"]).decode(), _entry(pair)) for pair in found]

    def _put_if(self, compare: dict[str, str], key: str, value: bytes) -> bool:
        put = {"request_put": {"key": _encode(key), "value": _encode(value)}}
        question = {"compare": [{"key": _encode(key), "result": "EQUAL"} | compare], "success": [put]}
        return bool(self._call("/v3/kv/txn", question).get("succeeded"))

    def create(self, key: str, value: bytes) -> bool:
        return self._put_if({"target": "VERSION", "version": "0"}, key, value)

    def swap(self, key: str, value: bytes, revision: int) -> bool:
        return self._put_if({"target": "MOD", "mod_revision": str(revision)}, key, value)

    def delete(self, key: str) -> bool:
        return bool(int(self._call("/v3/kv/deleterange", {"key": _encode(key)}).get("deleted", 0)))

    def revision(self) -> int:
        found = self._call("/v3/kv/range", {"key": _encode("/registry/health"), "count_only": True})
        return int(found["header"]["revision"])

    def probe(self) -> None:
        self._call("/v3/kv/range", {"key": _encode("/registry/health")}, timeout=2)


def open_etcd(endpoint: Endpoint, files: dict[str, str]) -> Store:
    """Open it: it is fatal when no member answers for a while."""
    store = EtcdStore(endpoint.urls, client_context(files))
    deadline = time.monotonic() + setting("ETCD_PATIENCE", 60)
    while True:
        try:
            store.probe()
        except StoreError as error:
            log("warning", f"Failed to test etcd connection: failed to get etcd status: {error}")
            if time.monotonic() > deadline:
                raise Fatal(str(error)) from None
            time.sleep(2)
        else:
            store.oldest = store.revision()
            return store
