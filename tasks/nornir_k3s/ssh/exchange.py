"""Exchange: what goes into one exec channel and what comes out, watched by deadline, stop event and connection."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable

import paramiko

from nornir_k3s.errors import HostUnreachable, Interrupted, OutcomeUnknown
from nornir_k3s.ssh import shell

# A child that a script left behind keeps stdout open for ever: after the exit status this much is waited for more.
GRACE = 1.0
_POLL = 0.2
_BLOCK = 1 << 15
_BEGIN = shell.BEGIN.encode() + b"\n"
AGAIN = "run again: it looks before it acts"

log = logging.getLogger(__name__)


class Exchange:
    """One command on one channel.

    Arguments:
        channel: With the command started.
        host: The host's name.
        what: What the command does, for messages.
        deadline: Seconds until it is given up.
        stop: Ends it at once.
        on_line: Gets each line of stdout as it comes.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        *,
        host: str,
        what: str,
        deadline: float,
        stop: threading.Event,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._channel = channel
        self._host = host
        self._what = what
        self._end = time.monotonic() + deadline
        self._stop = stop
        self._on_line = on_line
        self._told = 0
        self._out, self._err = bytearray(), bytearray()
        channel.settimeout(_POLL)

    def send(self, data: bytes) -> None:
        """Send all of the data, unless the command ends before it has read it.

        Raises:
            HostUnreachable: The connection was lost: what was sent so far is not a whole script.
        """
        at = 0
        while at < len(data):
            self._still()
            try:
                at += self._channel.send(data[at : at + _BLOCK])
            except TimeoutError:
                continue  # the window is full: the other side works on it
            except (OSError, EOFError):
                if self._lost():
                    message = f"the connection was lost before {self._what} began"
                    raise HostUnreachable(self._host, message, hint="nothing was done; run again") from None
                return  # it has ended: its status says why

    def finish(self) -> int:
        """Read both streams to their end and return the exit status.

        Raises:
            OutcomeUnknown: The deadline or the connection ended first.
            Interrupted: The stop event was set.
        """
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError):
            log.debug("%s: the channel was closed before its input ended", self._host)
        poll = select.poll()  # not select(): that ends at descriptor 1024
        poll.register(self._channel.fileno(), select.POLLIN)
        exited = 0.0
        while True:
            # Looked at before the data: what came before the end is in the buffers then.
            ended = self._channel.exit_status_ready()
            whole = bool(self._channel.eof_received or self._channel.closed)
            got = self._take()
            if ended and not got:
                exited = exited or time.monotonic()
                if whole or time.monotonic() - exited > GRACE:
                    return self._status()
            self._still()
            if not got:
                self._wait(poll, ended=ended, whole=whole)

    def output(self) -> tuple[bytes, bytes]:
        """Return what came on stdout and stderr since the script began; all of it where none began."""
        return _from_begin(self._out), _from_begin(self._err)

    @property
    def began(self) -> bool:
        """Whether the whole script had arrived and was started."""
        return _BEGIN in self._err

    def _wait(self, poll: select.poll, *, ended: bool, whole: bool) -> None:
        if whole and not ended:
            self._channel.status_event.wait(_POLL)  # the descriptor stays readable after the end of both streams
        elif not whole:
            poll.poll(_POLL * 1000)

    def _take(self) -> bool:
        """Read both streams together: reading one to its end first stalls once the other's window is full."""
        got = False
        while self._channel.recv_ready():
            self._out += self._channel.recv(1 << 18)
            got = True
        while self._channel.recv_stderr_ready():
            self._err += self._channel.recv_stderr(1 << 18)
            got = True
        if got and self._on_line:
            self._tell(self._on_line)
        return got

    def _tell(self, on_line: Callable[[str], None]) -> None:
        if not self._told:
            begin = self._out.find(_BEGIN)
            if begin < 0:
                return
            self._told = begin + len(_BEGIN)
        while (end := self._out.find(b"\n", self._told)) >= 0:
            line = self._out[self._told : end].decode(errors="replace")
            self._told = end + 1
            try:
                on_line(line)
            except Exception:
                log.debug("showing a line failed", exc_info=True)  # no reason to lose the script's result

    def _still(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{self._host}: stopped while {self._what}")
        if time.monotonic() > self._end:
            raise OutcomeUnknown(self._host, f"{self._what} did not end in time, and it does not answer", hint=AGAIN)

    def _lost(self) -> bool:
        return not self._channel.get_transport().is_active()

    def _status(self) -> int:
        status = int(self._channel.recv_exit_status())
        if status == -1:
            cause = "the connection was lost" if self._lost() else "it was killed"
            raise OutcomeUnknown(self._host, f"{cause} while {self._what}", hint=AGAIN)
        return status


def _from_begin(data: bytearray) -> bytes:
    _, begin, rest = data.partition(_BEGIN)
    return bytes(rest if begin else data)
