"""An external etcd, without kine between: the same keys through its JSON gateway."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from k3s_standin.datastore_sql import client_context, dial_words
from k3s_standin.endpoint import Endpoint
from k3s_standin.log import Fatal, log
from k3s_standin.process import setting
from k3s_standin.store import Entry, Store, StoreError


def _encode(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def _entry(pair: dict[str, str]) -> Entry:
    return Entry(base64.b64decode(pair.get("value", "")), int(pair["mod_revision"]))


class EtcdStore(Store):
    """Keys and values as etcd has them; the first member that answers is asked."""

    def __init__(self, urls: list[str], context: ssl.SSLContext | None) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        handler = urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
        # No proxy: etcd's own client has none either.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)

    def _call(self, path: str, body: dict[str, Any], timeout: float = 5) -> dict[str, Any]:
        said = ""
        for index, url in enumerate(self.urls):
            request = urllib.request.Request(url + path, json.dumps(body).encode())
            try:
                with self.opener.open(request, timeout=timeout) as answer:
                    found: dict[str, Any] = json.load(answer)
            except (OSError, ValueError) as error:
                said = self._words(error, url)
            else:
                self.urls.insert(0, self.urls.pop(index))
                return found
        raise StoreError(f"context deadline exceeded: {said}")

    @staticmethod
    def _words(error: Exception, url: str) -> str:
        host, _, port = url.split("//")[1].rpartition(":")
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        said = dial_words(cause, host, int(port)) if isinstance(cause, Exception) and port.isdigit() else None
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
            return store
