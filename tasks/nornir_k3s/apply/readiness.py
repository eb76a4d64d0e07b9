"""Readiness of a K3s unit: scripts that wait on the host for a limited time and report what is missing.

A server is ready when its service is active, `/readyz` answers ok with credentials, and its own node is Ready: three
separate conditions, true one after the other (k3s: pkg/cli/server/server.go, pkg/agent/run.go).
"""

from __future__ import annotations

from dataclasses import dataclass

from nornir_k3s import k3s, shell
from nornir_k3s.records import SAY, decoded, read

CHUNK = 45  # seconds that one script waits at most; the controller repeats it until its own deadline


@dataclass(frozen=True)
class Answer:
    """The state at the end of a wait: ready, hopeless, what is missing, and the unit's last journal lines."""

    ready: bool
    hopeless: bool
    missing: str
    journal: str


def server(node: str, seconds: int = CHUNK, *, own_cni: bool = False) -> str:
    """Return a script that waits until a server is ready.

    Arguments:
        own_cni: The CNI is the user's: a node that lacks nothing else counts as Ready.
    """
    return _script(k3s.UNITS["server"], node, seconds, k3s.NO_CNI if own_cni else "")


def agent(seconds: int = CHUNK, *, lacks_cni: str = "", url: str = "") -> str:
    """Return a script that waits until an agent's service is active: it has joined and reaches an API server.

    Arguments:
        lacks_cni: Its node, if K3s tells systemd only when a CNI of the user's runs (k3s: pkg/agent/netpol/netpol.go):
            a node that lacks nothing else is enough then.
        url: The registration address, which is asked for this node.
    """
    return _script(k3s.UNITS["agent"], "", seconds, k3s.NO_CNI if lacks_cni else "", lacks_cni, url)


def _script(unit: str, node: str, seconds: int, accepted: str = "", *own: str) -> str:
    call = shell.call("wait_until_ready", unit, seconds, k3s.fatal_pattern(), k3s.BINARY, node, accepted, *own)
    return f"{SAY}{shell.source('apply/readiness.sh')}{call}\n"


def parse(text: str) -> Answer:
    """Return the answer of the waiting script.

    Raises:
        RecordError: The host printed something else.
    """
    records = read(text, whole=False)
    state, missing = records["waited"][-1].take(2) if "waited" in records else ("no", "the host's answer")
    journal = decoded(records["journal"][-1].take(1)[0]) if "journal" in records else ""
    return Answer(state == "yes", state == "never", missing, journal)
