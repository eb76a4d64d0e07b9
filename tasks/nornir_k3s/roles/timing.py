"""How long a load balancer waits for servers: it follows from the round trips to them, in classes.

A class is kept while it fits, so that a second deploy writes the same file: what is measured is never the same twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nornir_k3s.model.load_balancer import Timeouts
from nornir_k3s.model.machine_facts import RoundTrips

TOLERANCE = 1.5  # a class fits round trips that are longer by this factor than its limit
UNKNOWN = 100  # ms; the limit of the class where nothing could be measured


@dataclass(frozen=True)
class Timing:
    """Timeouts of HAProxy, in seconds.

    Arguments:
        limit: The longest round trip that they are for, in milliseconds.
        connect: Until a connection is tried at another server.
        check: Until an answer to a health check.
        interval: Between two health checks, and until one is connected and has made its handshake.
    """

    limit: int
    connect: float
    check: float
    interval: float

    @property
    def settled(self) -> int:
        """Seconds after which each server has been checked again, whatever the checks before were waiting for."""
        return math.ceil(self.check + 2 * self.interval) + 1


# A health check takes up to four round trips (TCP, TLS, HTTP), and three in a row must fail: a stall of two seconds is
# no failure. The kernel of a busy server accepts connections at once, so `connect` need not wait for K3s.
CLASSES = (
    Timing(20, 0.3, 3, 1),
    Timing(100, 1, 4, 1),
    Timing(250, 1.5, 5, 2),
    Timing(600, 3, 8, 4),
    Timing(1500, 6, 12, 8),
)


def choose(found: RoundTrips, wanted: Timeouts) -> Timing:
    """Return the timeouts of a load balancer.

    Arguments:
        found: What was measured, and the limit of the class that its configuration has.
        wanted: Those of the inventory; they count before all others.
    """
    longest = max(found.milliseconds.values(), default=0)
    chosen = next((one for one in CLASSES if one.limit == (found.kept or UNKNOWN)), CLASSES[0])
    if longest and not (found.kept and longest <= chosen.limit * TOLERANCE):
        chosen = next((one for one in CLASSES if longest <= one.limit), CLASSES[-1])
    given = {name: value for name, value in wanted.model_dump().items() if value is not None}
    return replace(chosen, **given)
