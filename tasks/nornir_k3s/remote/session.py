"""Session: one host, one nornir-netmiko connection for the whole run, scripts as root on exec channels of it."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import paramiko
from nornir.core.task import Task

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    CommandFailed,
    Interrupted,
    OutcomeUnknown,
)
from nornir_k3s.remote import shell
from nornir_k3s.remote.classify import classify, is_transient
from nornir_k3s.remote.retry import retry_transient
from nornir_k3s.secret import Secret

CONNECTION = "netmiko"
OPEN_DEADLINE = 15.0
# A child that a script left behind keeps stdout open for ever: after the exit status this much is waited for more.
GRACE = 1.0
_BLOCK = 1 << 18

log = logging.getLogger(__name__)
_sessions: WeakKeyDictionary[Any, Session]
_lock = threading.Lock()


@dataclass(frozen=True)
class CommandResult:
    """What a script printed, how it ended, and how long it took."""

    stdout: str
    stderr: str
    status: int
    seconds: float


def session(task: Task, *, deadline: float = 60.0) -> Session:
    """Return the session of this task's host; all phases of a run share it.

    Arguments:
        task: The Nornir task; its runner's `stop` event, where it has one, ends waits.
        deadline: Seconds for connecting, retries included.

    Raises:
        HostUnreachable: Or one of its kinds, with the real cause.
        Interrupted: The stop event was set.
    """
    host = task.host
    stop: threading.Event = getattr(task.nornir.runner, "stop", None) or threading.Event()

    def connect() -> Any:  # noqa: ANN401 - netmiko has no types
        try:
            connection = host.get_connection(CONNECTION, task.nornir.config)
            if connection.remote_conn is None:  # `auto_connect: false` in the inventory
                connection.establish_connection()
        except Exception:
            host.connections.pop(CONNECTION, None)
            raise
        return connection

    plugin = host.connections.get(CONNECTION)
    with _lock:
        known = _sessions.get(plugin) if plugin is not None else None
    if known is None or not known.alive:
        if known is not None:
            host.connections.pop(CONNECTION, None)
        try:
            connection = retry_transient(connect, transient=is_transient, deadline=deadline, stop=stop)
        except Exception as error:
            if stop.is_set():
                raise Interrupted(f"{host.name}: stopped while connecting") from None
            log.debug("%s: connecting failed", host.name, exc_info=True)
            raise classify(host.name, error) from None
        options = host.get_connection_parameters(CONNECTION).extras or {}
        password = Secret(str(options.get("secret") or ""))
        trips = known.round_trips if known else 0
        known = Session(host.name, connection.remote_conn.get_transport(), sudo_password=password, stop=stop)
        known.round_trips = trips
        with _lock:
            _sessions[host.connections[CONNECTION]] = known
    known.stop = stop
    return known


class Session:
    """A host's connection. Every call is one round trip on a channel of its own, as root.

    Arguments:
        host: The host's name.
        transport: paramiko's, of the nornir-netmiko connection.
        sudo_password: Given to sudo where it asks; empty where it does not.
        stop: Ends calls at once.
    """

    def __init__(
        self, host: str, transport: paramiko.Transport, *, sudo_password: Secret, stop: threading.Event
    ) -> None:
        self.host = host
        self.transport = transport
        self.sudo_password = sudo_password
        self.stop = stop
        self.round_trips = 0
        # Without it each exec waits for the peer's delayed acknowledgement: 48 ms instead of 3.
        sock = transport.sock
        if isinstance(sock, socket.socket):  # a proxy command's pipe is none
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def alive(self) -> bool:
        """Whether the transport still believes in its peer."""
        return self.transport.is_active()

    def run(
        self,
        script: str,
        *,
        what: str,
        timeout: float,
        check: bool = True,
        secrets: Sequence[Secret] = (),
    ) -> CommandResult:
        """Run a POSIX shell script as root.

        Arguments:
            script: Travels on stdin; its commands get no stdin.
            what: What it does, for messages.
            timeout: Seconds; the far side ends the script then, too.
            check: Raise when it ends with another status than 0.
            secrets: Masked in what is kept of its output.

        Raises:
            CommandFailed: It ended badly.
            OutcomeUnknown: Deadline or connection ended first.
            AuthenticationFailed: sudo refused.
            Interrupted: The stop event was set.
        """
        channel = self._open(shell.run_command(timeout), what)
        begin = time.monotonic()
        try:
            self._send(channel, shell.wrap(script).encode(), what)
            channel.shutdown_write()
            out, err = self._drain(channel, begin + timeout, what)
            status = self._status(channel, what)
        finally:
            channel.close()
        result = CommandResult(_text(out), _mask(_text(err), secrets), status, time.monotonic() - begin)
        log.debug("%s: %s ended with %d after %.2f s", self.host, what, status, result.seconds)
        if check and status != 0:
            raise CommandFailed(self.host, what, status=status, stderr=result.stderr)
        return result

    def push(
        self,
        source: Path,
        target: str,
        *,
        sha256: str,
        mode: int = 0o600,
        timeout: float,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Put a file on the host: a draft beside the target, verified there, then renamed.

        Arguments:
            source: On the controller.
            target: Absolute path on the host; its folder is made.
            sha256: What must arrive, in hex.
            mode: Permission bits.
            timeout: Seconds.
            on_bytes: Told the size of each block that was sent.

        Raises:
            ArtifactError: Something else arrived; the target is as it was.
            OutcomeUnknown, AuthenticationFailed, Interrupted: As `run`.
        """
        what = f"putting {target}"
        channel = self._open(shell.put_command(target, sha256=sha256, mode=mode, deadline=timeout), what)
        end = time.monotonic() + timeout
        try:
            self._send(channel, b"", what)
            with source.open("rb") as file:
                while block := file.read(_BLOCK):
                    self._still(end, what)
                    self._sendall(channel, block, what)
                    if on_bytes:
                        on_bytes(len(block))
            channel.shutdown_write()
            _, err = self._drain(channel, end, what)
            status = self._status(channel, what)
        finally:
            channel.close()
        if status == shell.DAMAGED:
            raise ArtifactError(f"{self.host}: {target} is not what was sent: {_text(err).strip()}, wanted {sha256}")
        if status != 0:
            raise CommandFailed(self.host, what, status=status, stderr=_text(err))

    def _open(self, command: str, what: str) -> paramiko.Channel:
        if self.stop.is_set():
            raise Interrupted(f"{self.host}: stopped before {what}")
        try:
            channel = self.transport.open_session(timeout=OPEN_DEADLINE)
            channel.settimeout(OPEN_DEADLINE)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise OutcomeUnknown(
                self.host, f"the connection was lost before {what}: {error}", hint="run again"
            ) from None
        self.round_trips += 1
        return channel

    def _send(self, channel: paramiko.Channel, data: bytes, what: str) -> None:
        self._sendall(channel, self.sudo_password.reveal().encode() + b"\n" + data, what)

    def _sendall(self, channel: paramiko.Channel, data: bytes, what: str) -> None:
        try:
            channel.settimeout(60.0)
            channel.sendall(data)
        except (OSError, EOFError):
            if channel.exit_status_ready():
                return  # it has ended without reading all: the status says why
            raise OutcomeUnknown(self.host, f"the connection was lost while {what}", hint="run again") from None

    def _still(self, end: float, what: str) -> None:
        if self.stop.is_set():
            raise Interrupted(f"{self.host}: stopped while {what}")
        if time.monotonic() > end:
            raise OutcomeUnknown(self.host, f"{what} did not end in time", hint="run again: it looks before it acts")

    def _drain(self, channel: paramiko.Channel, end: float, what: str) -> tuple[bytes, bytes]:
        """Read both streams together: reading one to its end first stalls once the other's window is full."""
        out, err = bytearray(), bytearray()
        finished = 0.0
        channel.settimeout(0.0)
        handle = channel.fileno()
        while True:
            self._still(end, what)
            select.select([handle], [], [], 0.2)
            got = False
            while channel.recv_ready():
                out += channel.recv(_BLOCK)
                got = True
            while channel.recv_stderr_ready():
                err += channel.recv_stderr(_BLOCK)
                got = True
            if got:
                continue
            if channel.exit_status_ready():
                if channel.eof_received:
                    return bytes(out), bytes(err)
                finished = finished or time.monotonic()
                if time.monotonic() - finished > GRACE:
                    return bytes(out), bytes(err)
            elif channel.closed or not self.transport.is_active():
                raise OutcomeUnknown(self.host, f"the connection was lost while {what}", hint="run again")

    def _status(self, channel: paramiko.Channel, what: str) -> int:
        status = channel.recv_exit_status()
        if status == shell.SUDO_REFUSED:
            raise AuthenticationFailed(
                self.host,
                "sudo refuses this user",
                hint="check k3s_ssh.sudo_password, or allow sudo without a password",
            )
        if status == -1:
            raise OutcomeUnknown(self.host, f"{what} was cut short: connection lost or killed", hint="run again")
        if status in (124, 137):
            raise OutcomeUnknown(self.host, f"{what} did not end in time and was stopped", hint="run again")
        return status


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _mask(text: str, secrets: Sequence[Secret]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret.reveal(), "********")
    return text


_sessions = WeakKeyDictionary()
