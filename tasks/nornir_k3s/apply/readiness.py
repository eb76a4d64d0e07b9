"""Readiness of a K3s unit: scripts that wait on the host for a limited time and report what is missing.

A server is ready when its service is active, `/readyz` answers ok with credentials, and its own node is Ready: three
separate conditions, true one after the other (k3s: pkg/cli/server/server.go, pkg/agent/run.go). The API lists a node as
Ready while its kubelet restarts: only what was reported since the start counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nornir_k3s import k3s, k3s_journal, shell
from nornir_k3s.records import SAY, decoded, integer, read

CHUNK = 45  # seconds that one script waits at most; the controller repeats it until its own deadline


@dataclass(frozen=True)
class Answer:
    """The state at the end of a wait.

    Arguments:
        hopeless: Waiting longer is pointless.
        missing: What is missing; of an agent that is ready, what its service still waits for.
        journal: The unit's journal lines that name a reason, and its last ones.
        died: How often the unit has ended since the wait began; 0 if that was not asked for.
    """

    ready: bool
    hopeless: bool
    missing: str
    journal: str
    died: int = 0


@dataclass(frozen=True)
class Wait:
    """How long to wait.

    Arguments:
        seconds: The limit of this script.
        waited: Seconds that earlier scripts of the same wait have taken.
        datastore: Host and port of each address of the datastore: a server may wait for it.
    """

    seconds: int = CHUNK
    waited: int = 0
    datastore: Sequence[tuple[str, int]] = ()


def server(node: str, wait: Wait = Wait(), *, own_cni: bool = False, version: str = "") -> str:
    """Return a script that waits until a server is ready.

    Arguments:
        own_cni: The CNI is the user's: a node that lacks nothing else counts as Ready.
        version: What its node must run; empty for any.
    """
    return _script(k3s.UNITS["server"], node, wait, "", "", version, own_cni=own_cni)


def agent(
    wait: Wait = Wait(),
    *,
    node: str = "",
    url: str = "",
    awaits_cni: bool = False,
    was_ready: bool = False,
    version: str = "",
) -> str:
    """Return a script that waits until an agent's service is active: it has joined and reaches an API server.

    K3s tells systemd only when its network policies are enforced, up to five minutes after the node is Ready (k3s:
    pkg/agent/netpol/netpol.go). A Ready node that has been reported since the start is enough, if there is a URL.

    Arguments:
        node: Its node.
        url: The registration address, which is asked for this node.
        awaits_cni: The network policies wait for a CNI of the user's: a node that lacks nothing else is enough.
        was_ready: Its node was Ready before: an active service is not enough, the node must be Ready again.
        version: That its node must then run; empty for any.
    """
    more = (url, "yes" if was_ready else "", version)
    return _script(k3s.UNITS["agent"], node, wait, *more, own_cni=awaits_cni)


def _script(unit: str, node: str, wait: Wait, *more: str, own_cni: bool) -> str:
    patterns = (k3s_journal.VERDICTS, k3s_journal.fatal_pattern(), k3s_journal.patient_pattern(wait.datastore))
    accepted = k3s.NO_CNI if own_cni else ""
    call = shell.call("wait_until_ready", unit, wait.seconds, wait.waited, *patterns, k3s.BINARY, node, accepted, *more)
    return f"{SAY}{shell.source('apply/readiness.sh')}{call}\n"


def parse(text: str) -> Answer:
    """Return the answer of the waiting script.

    Raises:
        RecordError: The host printed something else.
    """
    records = read(text, whole=False)
    state, missing, died = records["waited"][-1].take(3) if "waited" in records else ("no", "the host's answer", "0")
    journal = decoded(records["journal"][-1].take(1)[0]) if "journal" in records else ""
    return Answer(state == "yes", state == "never", missing, journal, integer(died))
