"""Requests through the VIP, at a fixed rate, for as long as something else goes on: how many of them are lost."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nornir_k3s.run.kubeconfig_probe import Access, access

from .conftest import Site

EVERY = 0.1  # seconds between the beginnings of two requests
MOMENT = 3  # requests
PATH = "/api/v1/namespaces/default"
PATIENCE = 60  # seconds; what is late on a busy machine is not lost


@dataclass(frozen=True)
class Lost:
    """A request that got no answer, or a refusal."""

    number: int
    at: str
    after: float
    why: str


class Asked:
    """Asks with the kubeconfig of the beginning what only the datastore knows, each time on a new connection."""

    def __init__(self, site: Site) -> None:
        self.count, self.lost, self.last, self._site = 0, list[Lost](), 0.0, site
        self._to: Access = access(site.kubeconfig)
        self._ended, self._pool = threading.Event(), ThreadPoolExecutor(64)
        self._ticker = threading.Thread(target=self._tick)

    def __enter__(self) -> Asked:
        self._before = self._disturbances()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        self._pool.shutdown()

    def lost_none(self) -> None:
        """Nothing was lost, unless a machine that is too busy has moved the VIP, or a server has lost its leases."""
        assert self.count
        assert not self.lost or self._disturbances() != self._before, self

    def lost_few(self) -> None:
        """The API was never away for longer than a moment: a request may be on its way to a server that stops."""
        numbers = {one.number for one in self.lost}
        assert self.count
        assert not [n for n in numbers if numbers.issuperset(range(n, n + MOMENT))], self

    def _disturbances(self) -> list[str]:
        count = {
            "lb1": "journalctl -t nornir-k3s -o cat | grep -c 'the VIP'",
            "s1": "journalctl -u k3s -o cat | grep -c 'leaderelection lost'",
        }
        same = {"lb2": "lb1", "s2": "s1", "s3": "s1"}
        hosts = (*count, *same)
        return [self._site.lab.exec(n, ["sh", "-c", count[same.get(n, n)]], check=False).stdout for n in hosts]

    def __repr__(self) -> str:
        return f"{len(self.lost)} of {self.count} lost: {self.lost[:5]}"

    def _tick(self) -> None:
        begin = time.monotonic()
        for number in itertools.count(1):
            if self._ended.wait(max(0.0, begin + number * EVERY - time.monotonic())):
                return
            self._pool.submit(self._one, number)

    def _one(self, number: int) -> None:
        at, begin = time.strftime("%T"), time.monotonic()
        why = self._ask()
        self.count += 1
        if why:
            self.lost.append(Lost(number, at, round(time.monotonic() - begin, 2), why))
        else:
            self.last = time.time()

    def _ask(self) -> str:
        """Return why there was no answer."""
        connection = http.client.HTTPSConnection(
            self._to.host, self._to.port, timeout=PATIENCE, context=self._to.context
        )
        try:
            connection.request("GET", PATH)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return "" if answer.status == 200 else f"status {answer.status}"
