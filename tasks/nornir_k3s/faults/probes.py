"""Probes: requests at a fixed rate, whether or not earlier ones have been answered; and one long watch."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from nornir_k3s.faults.client import Client, RequestFailed
from nornir_k3s.faults.measure import Sample
from nornir_k3s.faults.objects import Objects

PATIENCE = 10  # seconds of requests that may be under way: connect, TLS and answer may each take as long as a time-out


class Probe:
    """Requests of one kind from one place.

    Arguments:
        place: Its name.
        call: Makes one request; it gets a number and returns the name of what it wrote, or nothing.
        rate: Requests a second.
    """

    def __init__(self, place: str, kind: Literal["read", "write"], call: Callable[[int], str], rate: float) -> None:
        self.place, self.kind, self._call, self._rate = place, kind, call, rate
        self.samples: list[Sample] = []
        self.begin = self.counted = self.end = 0.0  # what was asked before `counted` does not count
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(int(rate * PATIENCE) + 4, thread_name_prefix=f"{kind}-{place}")
        self._ticker = threading.Thread(target=self._tick, name=f"probe-{kind}-{place}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self.begin = self.counted = time.monotonic()
        self._ticker.start()

    def stop(self) -> None:
        """Ask nothing more."""
        self.end = time.monotonic()
        self._stop.set()

    def wait(self) -> None:
        """Return when all is answered, or has failed."""
        self._ticker.join()
        self._pool.shutdown()

    def _tick(self) -> None:
        for number in itertools.count():
            wait = self.begin + number / self._rate - time.monotonic()
            if self._stop.wait(max(0.0, wait)):
                return
            self._pool.submit(self._one, number)

    def _one(self, number: int) -> None:
        begin, name, error = time.monotonic(), "", ""
        try:
            name = self._call(number)
        except RequestFailed as failed:
            error = str(failed)
        self.samples.append(Sample(begin, time.monotonic(), error, name))


def reader(place: str, client: Client, rate: float) -> Probe:
    """Return the probe that reads: an authenticated request that asks the datastore."""

    def read(number: int) -> str:  # noqa: ARG001 - each is alike
        client.ask("GET", "/api/v1/namespaces/default")
        return ""

    return Probe(place, "read", read, rate)


def writer(place: str, client: Client, rate: float, objects: Objects) -> Probe:
    """Return the probe that writes a new object with each request."""

    def write(number: int) -> str:
        name = f"{objects.tag}-{place}-{number}"
        objects.create(client, name)
        return name

    return Probe(place, "write", write, rate)


class Watch:
    """One long watch of the objects, made again where it ends.

    Arguments:
        client: Of the place it is made from.
    """

    SILENCE = 8.0  # seconds; there is an event every few milliseconds as long as writes are answered

    def __init__(self, client: Client, objects: Objects) -> None:
        self._client, self._objects = client, objects
        self.seen: set[str] = set()
        self.events = self.connections = 0
        self._revision = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="probe-watch", daemon=True)

    def start(self) -> None:
        """Begin at the objects that are there."""
        self._list()
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(2 * self.SILENCE)

    def _list(self) -> None:
        names, self._revision = self._objects.names(self._client)
        self.seen |= names

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._revision:
                    self._list()
                self._watch()
            except RequestFailed as error:
                if error.status == 410:  # the revision is compacted
                    self._revision = ""
            self._stop.wait(0.05)

    def _watch(self) -> None:
        self.connections += 1
        with self._client.open("GET", self._objects.watch_path(self._revision), patience=self.SILENCE) as answer:
            while not self._stop.is_set() and (line := answer.readline()):
                self._event(line)

    def _event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind, meta = event["type"], event["object"].get("metadata", {})
        except (ValueError, KeyError, AttributeError):
            raise RequestFailed("the watch ended within an event") from None
        if kind == "ERROR":
            raise RequestFailed("the watch ended", int(event["object"].get("code", 0)))
        self._revision = str(meta.get("resourceVersion") or self._revision)
        if kind in ("ADDED", "MODIFIED"):
            self.events += 1
            self.seen.add(str(meta["name"]))
