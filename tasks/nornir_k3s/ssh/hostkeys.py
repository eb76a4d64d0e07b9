"""Host keys: those that the hosts present, compared with the known_hosts files that connections to them trust.

Only keys are exchanged, without a login. The route to a host, and the key type that is requested first, are those of a
connection; a host whose key is not on record, or differs, is asked for all key types.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import paramiko
from nornir.core import Nornir
from nornir.core.task import Result, Task
from paramiko.ssh_exception import IncompatiblePeer

from nornir_k3s.errors import HostKeyError, HostUnreachable, Interrupted, K3sError
from nornir_k3s.retry import retry_transient, watched
from nornir_k3s.ssh.classify import Target, classify, is_transient
from nornir_k3s.ssh.known_hosts import HostKey, KnownHosts
from nornir_k3s.ssh.route import USER_KNOWN_HOSTS, Route, resolve_route, tunnel_failures

DEADLINE = 6.0
ATTEMPT_TIMEOUT = 10.0
# An RSA key has one type in known_hosts, and several names in the key exchange, by the signature's hash.
FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)
FetchKey = Callable[[Sequence[str]], HostKey]


class KeyState(StrEnum):
    """How a key compares with known_hosts."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "CHANGED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class HostKeyStatus:
    """A key that a host presents.

    Arguments:
        host: Its name in the inventory, or a jump host's in ssh_config.
        address: Address and port.
        key: With its name in known_hosts.
        state: How it compares with known_hosts.
        file: The known_hosts file that counts for this host.
    """

    host: str
    address: str
    key: HostKey
    state: KeyState
    file: Path

    @property
    def fingerprint(self) -> str:
        """As ssh shows it."""
        digest = base64.b64encode(hashlib.sha256(self.key.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


@dataclass
class HostKeyReport:
    """The keys of all hosts, and the errors of hosts without."""

    keys: list[HostKeyStatus] = field(default_factory=list)
    unreachable: dict[str, HostUnreachable] = field(default_factory=dict)

    def in_state(self, *states: KeyState) -> list[HostKeyStatus]:
        """Return the keys in one of these states."""
        return [one for one in self.keys if one.state in states]

    @property
    def untrusted_jump_host(self) -> bool:
        """Whether hosts could not be reached because their jump host's key is not trusted."""
        return any(isinstance(error, HostKeyError) for error in self.unreachable.values())


def collect(nr: Nornir, *, deadline: float = DEADLINE) -> HostKeyReport:
    """Return the keys of all hosts, and those of jump hosts that are not in known_hosts yet.

    Arguments:
        nr: Nornir, with the hosts to ask.
        deadline: Seconds for each key, retries included.

    Raises:
        UsageError: A known_hosts file cannot be read.
        Interrupted: The run was stopped.
    """
    before = set(nr.data.failed_hosts)
    results = nr.run(task=_told, name="collecting host keys", on_failed=True, raise_on_error=False, deadline=deadline)
    for name in results.keys() - before:
        nr.data.recover_host(name)
    report, jumps = HostKeyReport(), dict[Route, None]()
    for name, result in results.items():
        error = result[0].exception
        if error is None:
            report.keys += result[0].result
        elif isinstance(error, HostUnreachable):
            report.unreachable[name] = error
            if isinstance(error, HostKeyError):
                jumps |= dict.fromkeys(resolve_route(nr.inventory.hosts[name], nr.config).jumps)
        else:
            raise error
    stop = getattr(nr.runner, "stop", None) or threading.Event()
    for jump in jumps:
        # One behind another that is not in known_hosts yet is reached by the next call.
        with contextlib.suppress(HostUnreachable):
            own = Path(USER_KNOWN_HOSTS).expanduser()
            report.keys += _key_statuses(jump.ssh_args[-1], jump, stop, deadline, also=own)
    return report


def _told(task: Task, deadline: float) -> Result:
    try:
        return host_keys(task, deadline)
    except K3sError as error:  # raised, it would be a traceback in Nornir's log
        return Result(host=task.host, failed=True, exception=error, result=str(error))


def host_keys(task: Task, deadline: float = DEADLINE) -> Result:
    """Return a host's keys as a list of HostKeyStatus.

    Raises:
        HostUnreachable: It presented none; HostKeyError if its jump host is not in known_hosts.
        UsageError: Its known_hosts file cannot be read.
    """
    try:
        route = resolve_route(task.host, task.nornir.config)
    except Exception as error:
        raise classify(Target(task.host.name), error) from None
    stop = getattr(task.nornir.runner, "stop", None) or threading.Event()
    return Result(host=task.host, result=_key_statuses(task.host.name, route, stop, deadline))


def compare_keys(
    presented: Sequence[HostKey], known: Mapping[str, bytes], revoked: Callable[[bytes], bool]
) -> list[KeyState]:
    """Return the state of each key a host presents.

    A key type that is not on record is new only if a presented key is on record, or none of the host is. Otherwise a
    man in the middle would pass as new by offering a key type that is not on record.
    """
    trusted = not known or any(known.get(key.kind) == key.blob for key in presented)
    suspicious = any(revoked(key.blob) or known.get(key.kind, key.blob) != key.blob for key in presented)
    states = []
    for key in presented:
        if revoked(key.blob):
            states.append(KeyState.REVOKED)
        elif known.get(key.kind) == key.blob:
            states.append(KeyState.KNOWN)
        else:
            states.append(KeyState.NEW if trusted and not suspicious else KeyState.CHANGED)
    return states


def fetch_keys(known: Mapping[str, bytes], fetch: FetchKey) -> list[HostKey]:
    """Return the keys a host presents.

    Arguments:
        known: Those on record, by type. If the first key presented is one of them, only their types are requested.
        fetch: Returns the key that is presented to a client which prefers these types, in this order.
    """
    kinds = [kind for family in FAMILIES for kind in family]
    first = fetch(sorted(kinds, key=lambda kind: kind not in _first_family(known)))
    presented = [first]
    trusted = known.get(first.kind) == first.blob
    for family in FAMILIES:
        if first.kind in family or (trusted and not known.keys() & set(family)):
            continue
        with contextlib.suppress(IncompatiblePeer):  # it has no key of this type
            presented.append(fetch(sorted(family, key=lambda kind: kind not in known)))
    return presented


def _first_family(known: Mapping[str, bytes]) -> Sequence[str]:
    """Return what a connection would prefer: the first key type on record, as paramiko does."""
    for kind in known:
        for family in FAMILIES:
            if kind in family:
                return family if kind == "ssh-rsa" else (kind,)
    return ()


def _key_statuses(
    host: str, route: Route, stop: threading.Event, deadline: float, *, also: Path | None = None
) -> list[HostKeyStatus]:
    """Return a host's keys, compared with its known_hosts file, and with a second file where one is given."""
    file, name = KnownHosts.read(route.known_hosts), route.known_hosts_name
    files = [KnownHosts.read(also), file] if also else [file]
    target = route.target(host)

    def fetch(kinds: Sequence[str]) -> HostKey:
        return retry_transient(
            lambda: watched(lambda: _fetch_key(route, kinds), limit=3 * ATTEMPT_TIMEOUT, stop=stop),
            transient=is_transient,
            deadline=deadline,
            stop=stop,
        )

    try:
        presented = fetch_keys(_recorded(files, name), fetch)
    except Interrupted:
        raise
    except Exception as error:
        raise classify(target, error) from None
    known = _recorded(files, name, [key.blob for key in presented])
    states = compare_keys(presented, known, lambda blob: file.revoked(blob, name))
    pairs = zip(presented, states, strict=True)
    return [HostKeyStatus(host, target.endpoint, *pair, route.known_hosts) for pair in pairs]


def _recorded(files: Sequence[KnownHosts], name: str, presented: Collection[bytes] = ()) -> dict[str, bytes]:
    """Return the keys on record that this tool can ask for; those of a later file count before an earlier one's."""
    found: dict[str, bytes] = {}
    for file in files:
        found |= file.keys(name, presented)
    return {kind: blob for kind, blob in found.items() if any(kind in family for family in FAMILIES)}


def _fetch_key(route: Route, kinds: Sequence[str]) -> HostKey:
    """Return the key that a host presents to a client which prefers these types."""
    sock = route.connect(ATTEMPT_TIMEOUT)
    with tunnel_failures(sock), contextlib.closing(sock), contextlib.closing(paramiko.Transport(sock)) as transport:
        options = transport.get_security_options()
        options.key_types = [kind for kind in kinds if kind in options.key_types]
        transport.start_client(timeout=ATTEMPT_TIMEOUT)
        key = transport.get_remote_server_key()
        return HostKey(route.known_hosts_name, key.get_name(), key.asbytes())
