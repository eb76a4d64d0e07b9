"""Scripts that take a server out of a load balancer's rotation before it restarts, and bring it back.

Source: HAProxy's management guide, `set server`: with `drain` a server keeps its connections, and gets no new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from nornir_k3s import shell
from nornir_k3s.apply import script
from nornir_k3s.records import integer, read
from nornir_k3s.roles import load_balancer


def leave(server: str, *, sessions: int, after: int, requests: int = 0, together: Sequence[str] = ()) -> str:
    """Return the script that takes a server out, and waits until its sessions have ended.

    Arguments:
        server: Its name in HAProxy.
        sessions: Seconds to wait for its sessions; watches may last longer.
        requests: Seconds to wait for those that have just begun, if that is longer.
        after: Seconds after which the host itself brings it back, whatever happens to this run.
        together: Others that stay out; by default only one server is out.
    """
    return _script(server, shell.call("leave", server, sessions, after, " ".join(together), requests))


def come_back(server: str, *, seconds: int) -> str:
    """Return the script that brings a server back, and waits until HAProxy sees it up.

    Arguments:
        seconds: How long at the most.
    """
    return _script(server, shell.call("come_back", server, seconds))


def _script(server: str, call: str) -> str:
    return script.wrapped(f"rotation:{server}", load_balancer.rotation(call))


def parse(text: str) -> tuple[str, int]:
    """Return the server's state in the rotation, and the sessions that it still has.

    The state is `drained`, `up`, `away` (somebody else has taken it out), `absent` (no HAProxy, or none with this
    server), or what HAProxy says instead of UP.

    Raises:
        RecordError: The host printed something else.
    """
    _, state, sessions = read(text)["rotation"][-1].take(3)
    return state, integer(sessions)
