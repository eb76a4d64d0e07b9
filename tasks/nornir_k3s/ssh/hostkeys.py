"""Host keys: what the hosts show, held against the known_hosts files that connections to them trust.

Keys are exchanged, and nobody logs in. The way to a host, and the kind of key that is asked first, are those of a
connection; a host that is not on record as it shows itself is asked for all kinds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import paramiko
from nornir.core import Nornir
from nornir.core.task import Result, Task
from paramiko.ssh_exception import IncompatiblePeer

from nornir_k3s.errors import HostKeyError, HostUnreachable, Interrupted
from nornir_k3s.retry import retry_transient, watched
from nornir_k3s.ssh.classify import Target, classify, is_transient
from nornir_k3s.ssh.known_hosts import HostKey, KnownHosts
from nornir_k3s.ssh.ssh_config import USERS_OWN, Way, blaming, way_to

DEADLINE = 6.0
ONE_TRY = 10.0
# An RSA key is one kind on record, and shown under the name of what it signs with.
FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)
Ask = Callable[[Sequence[str]], HostKey]


class State(StrEnum):
    """How a key stands with known_hosts."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "CHANGED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class Finding:
    """A key that a host shows.

    Arguments:
        host: Its name in the inventory, or a jump host's in ssh_config.
        place: Address and port.
        key: With the name it has in known_hosts.
        state: How it stands.
        file: Its known_hosts.
    """

    host: str
    place: str
    key: HostKey
    state: State
    file: Path

    @property
    def fingerprint(self) -> str:
        """As ssh shows it."""
        digest = base64.b64encode(hashlib.sha256(self.key.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


@dataclass
class Found:
    """The keys of all hosts, and why there are none of some."""

    findings: list[Finding] = field(default_factory=list)
    unreachable: dict[str, HostUnreachable] = field(default_factory=dict)

    def of(self, *states: State) -> list[Finding]:
        """Return what is in one of these states."""
        return [one for one in self.findings if one.state in states]

    @property
    def behind(self) -> bool:
        """Whether hosts could not be reached because their jump host's key is not trusted."""
        return any(isinstance(error, HostKeyError) for error in self.unreachable.values())


def collect(nr: Nornir, *, deadline: float = DEADLINE) -> Found:
    """Return the keys of all hosts, and those of jump hosts that are not trusted yet.

    Arguments:
        nr: The team's Nornir.
        deadline: Seconds for each answer, retries included.

    Raises:
        UsageError: A known_hosts file cannot be read.
        Interrupted: The run was stopped.
    """
    results = nr.run(task=host_keys, name="collecting host keys", deadline=deadline)
    nr.data.reset_failed_hosts()
    found, jumps = Found(), dict[Way, None]()
    for name, result in results.items():
        error = result[0].exception
        if error is None:
            found.findings += result[0].result
        elif isinstance(error, HostUnreachable):
            found.unreachable[name] = error
            if isinstance(error, HostKeyError):
                jumps |= dict.fromkeys(_jumps(way_to(nr.inventory.hosts[name], nr.config)))
        else:
            raise error
    stop = getattr(nr.runner, "stop", None) or threading.Event()
    for jump in jumps:
        # One behind another that is not trusted yet comes next time.
        with contextlib.suppress(HostUnreachable):
            found.findings += _findings(jump.ssh[-1], jump, stop, deadline, also=Path(USERS_OWN).expanduser())
    return found


def host_keys(task: Task, deadline: float = DEADLINE) -> Result:
    """Return a host's keys as a list of Finding.

    Raises:
        HostUnreachable: It showed none; HostKeyError where its jump host is not trusted.
        UsageError: Its known_hosts file cannot be read.
    """
    try:
        way = way_to(task.host, task.nornir.config)
    except Exception as error:
        raise classify(Target(task.host.name), error) from None
    stop = getattr(task.nornir.runner, "stop", None) or threading.Event()
    return Result(host=task.host, result=_findings(task.host.name, way, stop, deadline))


def judge(shown: Sequence[HostKey], known: Mapping[str, bytes], revoked: Callable[[bytes], bool]) -> list[State]:
    """Return the state of each key a host shows; a kind that is not on record is new only where nothing contradicts.

    Otherwise whoever is in between would need but show a kind of key that the host has never shown.
    """
    good = not known or any(known.get(key.kind) == key.blob for key in shown)
    bad = any(revoked(key.blob) or known.get(key.kind, key.blob) != key.blob for key in shown)
    states = []
    for key in shown:
        if revoked(key.blob):
            states.append(State.REVOKED)
        elif known.get(key.kind) == key.blob:
            states.append(State.KNOWN)
        else:
            states.append(State.NEW if good and not bad else State.CHANGED)
    return states


def look(known: Mapping[str, bytes], ask: Ask) -> list[HostKey]:
    """Return the keys a host shows.

    Arguments:
        known: Those on record, by kind. Where the first to be shown is one of them, only their kinds are asked for.
        ask: Returns the key that is shown to somebody who prefers these kinds, in this order.
    """
    kinds = [kind for family in FAMILIES for kind in family]
    first = ask(sorted(kinds, key=lambda kind: kind not in _first_family(known)))
    shown = [first]
    trusted = known.get(first.kind) == first.blob
    for family in FAMILIES:
        if first.kind in family or (trusted and not known.keys() & set(family)):
            continue
        with contextlib.suppress(IncompatiblePeer):  # it has none of this kind
            shown.append(ask(sorted(family, key=lambda kind: kind not in known)))
    return shown


def _first_family(known: Mapping[str, bytes]) -> Sequence[str]:
    """Return what a connection would prefer: the first kind on record, as paramiko does."""
    for kind in known:
        for family in FAMILIES:
            if kind in family:
                return family if kind == "ssh-rsa" else (kind,)
    return ()


def _findings(
    host: str, way: Way, stop: threading.Event, deadline: float, *, also: Path | None = None
) -> list[Finding]:
    """Return a host's keys; what another file knows of it counts, too, where there is one."""
    file = KnownHosts.read(way.known_hosts)
    recorded = (KnownHosts.read(also).keys(way.name) if also else {}) | file.keys(way.name)
    known = {kind: blob for kind, blob in recorded.items() if any(kind in family for family in FAMILIES)}
    target = way.target(host)

    def ask(kinds: Sequence[str]) -> HostKey:
        return retry_transient(
            lambda: watched(lambda: _exchange(way, kinds), limit=3 * ONE_TRY, stop=stop),
            transient=is_transient,
            deadline=deadline,
            stop=stop,
        )

    try:
        shown = look(known, ask)
    except Interrupted:
        raise
    except Exception as error:
        raise classify(target, error) from None
    states = judge(shown, known, file.revoked)
    return [Finding(host, target.place, *pair, way.known_hosts) for pair in zip(shown, states, strict=True)]


def _exchange(way: Way, kinds: Sequence[str]) -> HostKey:
    """Return the key that a host shows to somebody who prefers these kinds."""
    sock = way.connect(ONE_TRY)
    with blaming(sock), contextlib.closing(sock), contextlib.closing(paramiko.Transport(sock)) as transport:
        options = transport.get_security_options()
        options.key_types = [kind for kind in kinds if kind in options.key_types]
        transport.start_client(timeout=ONE_TRY)
        key = transport.get_remote_server_key()
        return HostKey(way.name, key.get_name(), key.asbytes())


def _jumps(way: Way) -> Iterator[Way]:
    while way.jump:
        way = way.jump
        yield way
