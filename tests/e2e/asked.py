"""Requests through the VIP, at a fixed rate, for as long as something else goes on: how many of them are lost."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nornir_k3s.run.kubeconfig_probe import Access, access

from .conftest import Site

EVERY = 0.1
MOMENT = 3  # requests
PATH = "/api/v1/namespaces/default"
PATIENCE = 120  # seconds; what is late on a busy machine is not lost: with a load of 60, handshakes took over a minute
LEASE = 12  # seconds without the datastore after which a server that leads ends, and what it was asked ends with it
MOVED = 3  # seconds that a move of the VIP, and the note of it in the journal, take on a busy machine


@dataclass(frozen=True)
class Lost:
    """A request that got no answer, or a refusal; when it began and ended, in seconds since the epoch."""

    number: int
    begin: float
    end: float
    why: str

    def __repr__(self) -> str:
        at = f"{time.strftime('%T', time.localtime(self.begin))}.{int(self.begin % 1 * 10)}"
        return f"at {at}, after {self.end - self.begin:.1f} s: {self.why}"

    def during(self, disturbance: Disturbance) -> bool:
        """Return whether the request was under way in that time."""
        return self.begin <= disturbance.end and disturbance.begin <= self.end


@dataclass(frozen=True)
class Disturbance:
    """Something that a machine which is too busy does to any request, and no deploy."""

    what: str
    begin: float
    end: float


def moves(holder: str, notes: Iterable[tuple[float, str]], left: Iterable[tuple[float, str]] = ()) -> list[Disturbance]:
    """Return the moves of the VIP; a holder that says again that it has it has not moved it.

    Arguments:
        holder: Who had it before.
        notes: When a load balancer has noted that the VIP is there, and which one, in any order.
        left: The same for that it is not there. One that had it all the time, too, does not note that it is back.
    """
    found = []
    for at, host, here in sorted([*((*one, True) for one in notes), *((*one, False) for one in left)]):
        if here and host != holder:
            found.append(Disturbance(f"the VIP went from {holder} to {host}", at - MOVED, at + MOVED))
            holder = host
        elif not here and host == holder:
            found.append(Disturbance(f"the VIP left {host}", at - MOVED, at + MOVED))
            holder = "another"
    return found


def unexplained(lost: Iterable[Lost], disturbances: Sequence[Disturbance]) -> list[Lost]:
    """Return the requests that were lost outside of all disturbances."""
    return [one for one in lost if not any(one.during(disturbance) for disturbance in disturbances)]


class Asked:
    """Asks with the kubeconfig of the beginning what only the datastore knows, each time on a new connection.

    Arguments:
        every: Seconds between the beginnings of two requests.
        pause: Seconds between a connection and its request: as if the server took that long.
    """

    def __init__(self, site: Site, *, every: float = EVERY, pause: float = 0) -> None:
        self.count, self.lost, self.last, self._site = 0, list[Lost](), 0.0, site
        self._every, self._pause = every, pause
        self.disturbances: list[Disturbance] = []
        self._to: Access = access(site.kubeconfig)
        self._ended, self._pool = threading.Event(), ThreadPoolExecutor(64)
        self._ticker = threading.Thread(target=self._tick)

    def __enter__(self) -> Asked:
        self._holder, self._begin = "", time.time()
        with contextlib.suppress(AssertionError):  # it moves just now, or the address is not ours
            self._holder = self._site.holder()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        self._pool.shutdown()
        notes, left = (self._said(("-t", "nornir-k3s"), text, "lb1", "lb2") for text in ("is here", "is not here"))
        self.disturbances = [*moves(self._holder, notes, left), *self._ended_k3s()]

    def lost_none(self) -> None:
        """Nothing was lost, but while a machine that is too busy moved the VIP, or took the leases from a server."""
        assert self.count
        assert not unexplained(self.lost, self.disturbances), self

    def lost_few(self) -> None:
        """The API was never away for longer than a moment: a request may be on its way to a server that stops."""
        numbers = {one.number for one in self.lost}
        assert self.count
        assert not [n for n in numbers if numbers.issuperset(range(n, n + MOMENT))], self

    def _ended_k3s(self) -> list[Disturbance]:
        notes = self._said(("-u", "k3s"), "leaderelection lost for", "s1", "s2", "s3")
        return [Disturbance(f"K3s lost its leases on {host}", at - LEASE, at + 1) for at, host in notes]

    def _said(self, of: Sequence[str], text: str, *hosts: str) -> list[tuple[float, str]]:
        """Return when these hosts have logged a text since the beginning, and which one did."""
        command = ["journalctl", *of, "-o", "short-unix", "--no-pager", "--since", f"@{self._begin:.0f}"]
        found = {host: self._site.lab.exec(host, command, check=False).stdout for host in hosts}
        return [(float(line.split()[0]), h) for h, said in found.items() for line in said.splitlines() if text in line]

    def __repr__(self) -> str:
        unclear = unexplained(self.lost, self.disturbances)
        told = f"{len(self.lost)} of {self.count} lost, {len(unclear)} of them without a reason: {unclear[:5]}"
        return f"{told}; disturbances: {self.disturbances}"

    def _tick(self) -> None:
        begin = time.monotonic()
        for number in itertools.count(1):
            if self._ended.wait(max(0.0, begin + number * self._every - time.monotonic())):
                return
            self._pool.submit(self._one, number)

    def _one(self, number: int) -> None:
        begin = time.time()
        why = self._ask()
        self.count += 1
        if why:
            self.lost.append(Lost(number, begin, time.time(), why))
        else:
            self.last = time.time()

    def _ask(self) -> str:
        """Return why there was no answer."""
        connection = http.client.HTTPSConnection(
            self._to.host, self._to.port, timeout=PATIENCE, context=self._to.context
        )
        try:
            connection.connect()
            time.sleep(self._pause)
            connection.request("GET", PATH)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return "" if answer.status == 200 else f"status {answer.status}"
