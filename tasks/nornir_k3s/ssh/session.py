"""Session: runs scripts and puts files as root on one host, over exec channels of its nornir-netmiko connection."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import paramiko
from nornir.core.configuration import Config
from nornir.core.inventory import Host
from nornir.core.task import Task

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    CommandFailed,
    Interrupted,
    K3sError,
    OutcomeUnknown,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.retry import retry_transient, watched
from nornir_k3s.ssh import shell
from nornir_k3s.ssh.classify import classify, is_transient
from nornir_k3s.ssh.exchange import RUN_AGAIN, Exchange
from nornir_k3s.ssh.link import Link

OPEN_DEADLINE = 15.0
# One attempt to connect: TCP, banner and login have their own timeouts in netmiko and paramiko; this is their sum.
CONNECT_LIMIT = 60.0
# The host itself ends a script at its deadline and reports it. Only after this much more is there no answer.
GRACE = 10.0
_SESSION = "k3s_session"
_BLOCK = 1 << 18

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandResult:
    """What a script printed, its exit status, and how long it took."""

    stdout: str
    stderr: str
    status: int
    seconds: float


def session(task: Task, *, deadline: float = 60.0) -> Session:
    """Return the connected session of this task's host; all phases of a run share it.

    Arguments:
        task: The Nornir task; its runner's `stop` event, if it has one, ends waits.
        deadline: Seconds for connecting, retries included.

    Raises:
        HostUnreachable: Or a subclass, with the real cause.
        Interrupted: The stop event was set.
    """
    host = task.host
    entry = host.connections.get(_SESSION)
    if entry is None:  # `setdefault`, so that two threads get the same one
        entry = host.connections.setdefault(_SESSION, _Connection(Session(host, task.nornir.config)))
    shared: Session = entry.connection
    shared.stop = getattr(task.nornir.runner, "stop", None) or threading.Event()
    shared.deadline = deadline
    shared.connect()
    return shared


class Session:
    """A host's connection. Every call is one round trip on its own channel, as root.

    A connection that was lost between two calls is opened again; one that is lost during a call is an error.

    Arguments:
        host: Nornir's host; its connection "netmiko" is used, and `secret` of its extras is the sudo password.
        config: Nornir's, for the path of ssh_config.
    """

    def __init__(self, host: Host, config: Config | None = None) -> None:
        self.host = host.name
        self.round_trips = 0
        self.stop = threading.Event()
        self.deadline = 60.0
        self._link = Link(host, config)

    @property
    def alive(self) -> bool:
        """Whether the connection is open and not known to be dead."""
        return self._link.transport is not None

    @property
    def transport(self) -> paramiko.Transport:
        """The connection's transport, opened if it is not."""
        self.connect()
        return self._link.open()

    def connect(self) -> None:
        """Open the connection if it is not, with retries while the cause may pass by itself."""
        if not self.alive:
            self._retry(self._open, "connecting")

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._link.close()

    def run(
        self,
        script: str,
        *,
        what: str,
        timeout: float,
        check: bool = True,
        secrets: Sequence[Secret] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Run a POSIX shell script as root.

        When the stop event ends the call, or the connection is lost, the script goes on on the host until it ends, its
        deadline, or the next time it prints something (SIGPIPE).

        Arguments:
            script: Sent on stdin; its commands get an empty stdin.
            what: What it does, for messages.
            timeout: Seconds; the host itself ends the script then.
            check: Raise if its exit status is not 0.
            secrets: Masked in its stderr and in the lines for `on_line`.
            on_line: Gets each line of stdout as it comes.

        Raises:
            CommandFailed: Its exit status is not 0.
            OutcomeUnknown: Its deadline passed, or the connection was lost.
            AuthenticationFailed: sudo refused.
            HostUnreachable: It was not started: there is no connection.
            Interrupted: The stop event was set.
        """
        password = self._password()
        hidden = [*secrets, password]
        tell = (lambda line: on_line(_mask(line, hidden))) if on_line else None
        with contextlib.closing(self._start(shell.run_command(timeout), what)) as channel:
            begin = time.monotonic()
            exchange = self._exchange(channel, what, timeout, tell)
            exchange.send(shell.password_line(password) + shell.wrap(script).encode())
            status = exchange.finish()
        seconds = time.monotonic() - begin
        out, err = (data.decode(errors="replace") for data in exchange.output())
        result = CommandResult(out, _mask(err, hidden), status, seconds)
        log.debug("%s: %s ended with %d after %.2f s", self.host, what, status, seconds)
        self._raise_for_status(result, what, timeout)
        if status == 0 and not exchange.began:
            raise CommandFailed(self.host, what, status=0, stderr=f"the script arrived incomplete\n{result.stderr}")
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
        """Put a file on the host: written beside the target under another name, verified there, then renamed.

        Arguments:
            source: On the controller.
            target: Absolute path on the host; its folder is created.
            sha256: Of the content, in hex.
            mode: Permission bits.
            timeout: Seconds.
            on_bytes: Called with the size of each block that was sent.

        Raises:
            ArtifactError: Other content arrived; the target is unchanged.
            CommandFailed, OutcomeUnknown, AuthenticationFailed, HostUnreachable, Interrupted: As `run`.
        """
        what, password = f"putting {target}", self._password()
        command = shell.put_command(target, sha256=sha256, mode=mode, deadline=timeout)
        with source.open("rb") as file, contextlib.closing(self._start(command, what)) as channel:
            begin = time.monotonic()
            exchange = self._exchange(channel, what, timeout, None)
            exchange.send(shell.password_line(password))
            while block := file.read(_BLOCK):
                exchange.send(block)
                if on_bytes:
                    on_bytes(len(block))
            status = exchange.finish()
        err = _mask(exchange.output()[1].decode(errors="replace"), [password])
        result = CommandResult("", err, status, time.monotonic() - begin)
        self._raise_for_status(result, what, timeout)
        if status == shell.DAMAGED:
            raise ArtifactError(f"{self.host}: {target} was damaged on the way: {err.strip()}; expected {sha256}")
        if status != 0:
            raise CommandFailed(self.host, what, status=status, stderr=err)

    def open(self, script: str, *arguments: object, what: str) -> paramiko.Channel:
        """Start a script as root whose stdin stays open, on the connection that is there, and return its channel.

        Arguments:
            script: As `shell.open_command` takes it; arguments are in the host's process list.
            what: What it does, for messages.

        Raises:
            HostUnreachable: There is no connection; none is made.
        """
        transport, command = self._link.transport, shell.open_command(script, *arguments)
        try:
            if transport is None:
                raise EOFError("the connection was lost")
            channel = watched(lambda: _exec(transport, command), limit=OPEN_DEADLINE, stop=self.stop)
            channel.sendall(shell.password_line(self._password()))
        except (OSError, EOFError, paramiko.SSHException) as error:
            log.debug("%s: no channel for %s", self.host, what, exc_info=True)
            raise classify(self._link.target, error) from None
        return channel

    def _exchange(
        self, channel: paramiko.Channel, what: str, timeout: float, on_line: Callable[[str], None] | None
    ) -> Exchange:
        return Exchange(channel, host=self.host, what=what, deadline=timeout + GRACE, stop=self.stop, on_line=on_line)

    def _start(self, command: str, what: str) -> paramiko.Channel:
        """Return a channel on which the command is started; it changes nothing before it gets its input."""

        def attempt() -> paramiko.Channel:
            transport = self._open()
            try:
                return watched(lambda: _exec(transport, command), limit=2 * OPEN_DEADLINE, stop=self.stop)
            except (TimeoutError, paramiko.SSHException) as error:
                if isinstance(error, TimeoutError) or "Timeout opening channel" in str(error):
                    self._link.close()  # the host hangs; other errors leave the connection usable, or mark it as dead
                raise

        channel = self._retry(attempt, what)
        self.round_trips += 1
        return channel

    def _open(self) -> paramiko.Transport:
        return self._link.transport or watched(self._link.open, limit=CONNECT_LIMIT, stop=self.stop)

    def _retry(self, call: Callable[[], T], what: str) -> T:
        if self.stop.is_set():
            raise Interrupted(f"{self.host}: stopped before {what}")
        try:
            return retry_transient(call, transient=is_transient, deadline=self.deadline, stop=self.stop)
        except Exception as error:
            if self.stop.is_set():
                raise Interrupted(f"{self.host}: stopped before {what}") from None
            if isinstance(error, K3sError):
                raise
            log.debug("%s: no connection for %s", self.host, what, exc_info=True)
            raise classify(self._link.target, error) from None

    def _password(self) -> Secret:
        text = str(self._link.extras.get("secret") or "")
        if "\n" in text or "\0" in text:  # the second line would run as a script
            raise AuthenticationFailed(self.host, "the sudo password has more than one line", hint="set one line")
        return Secret(text)

    def _raise_for_status(self, result: CommandResult, what: str, timeout: float) -> None:
        if result.status == shell.SUDO_REFUSED and shell.SUDO_SAID in result.stderr:
            raise AuthenticationFailed(
                self.host,
                f"sudo refuses this user: {shell.why_sudo_refused(result.stderr)}",
                hint="check k3s_ssh.sudo_password, or allow sudo without a password",
            )
        # Of `timeout` on the host: 124 after TERM, 137 after KILL. A script may end with these itself, but not so late.
        if result.status in (124, 137) and result.seconds >= timeout:
            tail = "".join(f"\n    {line}" for line in result.stderr.strip().splitlines()[-15:])
            message = f"{what} did not end in time ({timeout:.0f} s) and was stopped{tail}"
            raise OutcomeUnknown(self.host, message, hint=RUN_AGAIN)


class _Connection:
    """A session as an entry among a Nornir host's connections: so it is removed when they are closed."""

    def __init__(self, session: Session) -> None:
        self.connection = session

    def open(self, *_: object, **__: object) -> None:
        """Nothing: the session opens itself."""

    def close(self) -> None:
        """Nothing: Nornir closes the netmiko connection, which has an entry of its own."""


def _exec(transport: paramiko.Transport, command: str) -> paramiko.Channel:
    channel = transport.open_session(timeout=OPEN_DEADLINE)
    try:
        channel.exec_command(command)
    except BaseException:
        channel.close()
        raise
    return channel


def _mask(text: str, secrets: Sequence[Secret]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret.reveal(), "********")
    return text
