"""What tests see of HAProxy on the load balancers: states of the servers, and connections that are held."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .conftest import VIP, Site

BALANCERS = ("lb1", "lb2")
# The second socket is that of the RHEL family.
STAT = """use IO::Socket::UNIX; my $s;
$s ||= IO::Socket::UNIX->new(Peer => $_) for '/run/haproxy/admin.sock', '/var/lib/haproxy/stats'; $s or exit;
print $s "show stat\\n"; while (<$s>) { @w = split /,/; print "$w[1] $w[17]\\n" if $w[1] =~ /^s\\d$/ }"""


def states(site: Site, balancer: str) -> set[tuple[str, str]]:
    """Return each server's states in this HAProxy, one a backend."""
    lines = site.lab.exec(balancer, ["perl", "-e", STAT], check=False).stdout.splitlines()
    return {(name, state) for name, _, state in (line.partition(" ") for line in lines)}


def away(site: Site, balancer: str) -> set[str]:
    return {name for name, state in states(site, balancer) if not state.startswith(("UP", "no check"))}


def drained(site: Site, balancer: str) -> set[str]:
    return {name for name, state in states(site, balancer) if state.startswith("DRAIN")}


@contextmanager
def watched(site: Site) -> Iterator[list[tuple[str, set[str]]]]:
    """Look at both load balancers again and again, and note who is away and drained."""
    seen: list[tuple[str, set[str]]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.extend((balancer, drained(site, balancer)) for balancer in BALANCERS)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


class Held:
    """A connection through the VIP that is held, and used twice a second: it is never opened again."""

    def __init__(self, address: str = VIP) -> None:
        context = ssl._create_unverified_context()  # noqa: S323 - what it reaches is another test's subject
        self._connection = http.client.HTTPSConnection(address, 6443, context=context, timeout=30)
        self._connection.connect()
        setattr(self._connection, "auto_open", 0)  # noqa: B010 - http.client reads it
        self._lock, self._closed, self._ended = threading.Lock(), threading.Event(), ""
        assert self.lives()
        threading.Thread(target=self._use, daemon=True).start()

    def lives(self) -> bool:
        with self._lock:
            try:
                self._connection.request("GET", "/ping")
                assert self._connection.getresponse().read() == b"pong"
            except (OSError, http.client.HTTPException) as error:
                self._ended = self._ended or f"{time.strftime('%T')} {error!r}"
        return not self._ended

    def __repr__(self) -> str:
        return self._ended or "lives"

    def _use(self) -> None:
        while not self._closed.wait(0.5) and self.lives():
            pass

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._connection.close()
