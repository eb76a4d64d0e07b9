"""The VIP on a busy machine: how long a failover takes, and how often it moves although no load balancer is down."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator

from labsite import NETWORK, Site
from results import Measure
from timing import BenchError

BALANCERS = ("lb1", "lb2")
BUSY = 40  # processes that use a core each
WATCHED = 60  # seconds
CONFIG = "/etc/keepalived/keepalived.conf"
# What the peer does: keepalived's default interval for the failover, and ours without priority for the moves.
DEFAULT = {r"advert_int \S+": "advert_int 1"}
OLD = {r"advert_int \S+": "advert_int 0.1", r" *vrrp_(priority|no_swap).*\n": ""}


def failover(site: Site, rounds: int) -> Measure:
    """Seconds until the VIP answers again after the cable of its load balancer was cut; the peer sends every second."""
    measure = Measure("failover of the VIP, cable cut", "s", 0.5)
    for number in range(1, rounds + 1):
        measure.ours.append(_report(f"failover {number}, ours", _failover(site), "s"))
        with _changed(site, DEFAULT):
            measure.peer.append(_report(f"failover {number}, peer", _failover(site), "s"))
    return measure


def moves(site: Site, rounds: int) -> Measure:
    """How often the VIP moves in a minute at load 40; beside it, advertisements every 0.1 s without priority."""
    measure = Measure(f"moves of the VIP in {WATCHED} s, load {BUSY}", "", 0.0)
    for number in range(1, rounds + 1):
        measure.ours.append(_report(f"moves {number}, ours", _moves(site), ""))
        with _changed(site, OLD):
            _report(f"moves {number}, advert_int 0.1 without priority", _moves(site), "")
    return measure


def _report(what: str, value: float, unit: str) -> float:
    print(f"{what}: {value:.2f} {unit}".rstrip(), flush=True)
    return value


def _failover(site: Site) -> float:
    holder = _holder(site)
    site.lab.cut(holder)
    begin = time.monotonic()
    try:
        while not _answers():
            if time.monotonic() - begin > WATCHED:
                raise BenchError("the VIP did not move")
        return time.monotonic() - begin
    finally:
        site.lab.heal(holder)
        _holder(site)


def _answers() -> bool:
    with contextlib.suppress(OSError), socket.create_connection((f"{NETWORK}100", 6443), timeout=0.05):
        return True
    return False


def _moves(site: Site) -> float:
    """Return how often a load balancer became MASTER while the other was there."""
    holder = _holder(site)
    before = _masters(site)
    loop = [
        "sh",
        "-c",
        f"i=0; while [ $i -lt {BUSY} ]; do timeout {WATCHED} sh -c 'while :; do :; done' & i=$((i+1)); done; wait",
    ]
    subprocess.run(site.lab.command(holder, loop), check=False, capture_output=True, timeout=10 * WATCHED)
    return _masters(site) - before


def _masters(site: Site) -> int:
    count = "journalctl -u keepalived -o cat | grep -c 'Entering MASTER STATE'"
    return sum(int(site.lab.exec(name, ["sh", "-c", count], check=False).stdout) for name in BALANCERS)


def _holder(site: Site) -> str:
    """Return the load balancer that has the VIP, as soon as exactly one has it and stays so."""
    until, last = time.monotonic() + WATCHED, ""
    while time.monotonic() < until:
        addresses = {name: site.lab.exec(name, ["ip", "-o", "address"]).stdout for name in BALANCERS}
        found = [name for name, text in addresses.items() if f" {NETWORK}100/" in text]
        if len(found) == 1 and found[0] == last:
            return last
        last = found[0] if len(found) == 1 else ""
        time.sleep(2)
    raise BenchError("no load balancer, or more than one, has the VIP")


@contextlib.contextmanager
def _changed(site: Site, changes: dict[str, str]) -> Iterator[None]:
    """Replace what matches in keepalived's configuration, and put it back."""
    kept = {name: site.lab.exec(name, ["cat", CONFIG]).stdout for name in BALANCERS}
    try:
        for name, text in kept.items():
            changed = text
            for pattern, new in changes.items():
                changed = re.sub(pattern, new, changed)
            _put(site, name, changed)
        yield
    finally:
        for name, text in kept.items():
            _put(site, name, text)
        _holder(site)


def _put(site: Site, name: str, text: str) -> None:
    # A restart, because real-time scheduling begins with the process.
    site.lab.exec(name, ["sh", "-c", f"cat >{CONFIG}; systemctl restart keepalived"], input=text)
