"""Exchange: sends the input of one exec channel and reads its output, until deadline, stop event or disconnect."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable

import paramiko

from nornir_k3s.errors import HostUnreachable, Interrupted, OutcomeUnknown
from nornir_k3s.ssh import shell

# A background child of the script may keep stdout open for ever: this long is waited after the exit status.
GRACE = 1.0
_POLL = 0.2
_BLOCK = 1 << 15
_BEGIN = shell.BEGIN.encode() + b"\n"
RUN_AGAIN = "run it again: what is done already is recognised and left alone"

log = logging.getLogger(__name__)


class Exchange:
    """One command on one channel.

    Arguments:
        channel: With the command started.
        host: The host's name.
        what: What the command does, for messages.
        deadline: Seconds until it counts as lost.
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
        self._reported = 0  # of stdout, in bytes
        self._out, self._err = bytearray(), bytearray()
        channel.settimeout(_POLL)

    def send(self, data: bytes) -> None:
        """Send all of the data, unless the command ends before it has read it.

        Raises:
            HostUnreachable: The connection was lost: the host has got an incomplete script, which it does not run.
        """
        sent = 0
        while sent < len(data):
            self._check()
            try:
                sent += self._channel.send(data[sent : sent + _BLOCK])
            except TimeoutError:
                continue  # the window is full: the host is busy
            except (OSError, EOFError):
                if self._disconnected():
                    message = f"the connection was lost before {self._what} began"
                    raise HostUnreachable(self._host, message, hint="nothing was changed; run it again") from None
                return  # the command has ended: its status says why

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
            # Read before the data: so all that came before the end is in the buffers by now.
            ended = self._channel.exit_status_ready()
            all_read = bool(self._channel.eof_received or self._channel.closed)
            got = self._read()
            if ended and not got:
                exited = exited or time.monotonic()
                if all_read or time.monotonic() - exited > GRACE:
                    return self._status()
            self._check()
            if not got:
                self._wait(poll, ended=ended, all_read=all_read)

    def output(self) -> tuple[bytes, bytes]:
        """Return what came on stdout and stderr since the script began; all of it where none began."""
        return _from_begin(self._out), _from_begin(self._err)

    @property
    def began(self) -> bool:
        """Whether the script arrived completely and was started."""
        return _BEGIN in self._err

    def _wait(self, poll: select.poll, *, ended: bool, all_read: bool) -> None:
        if all_read and not ended:
            self._channel.status_event.wait(_POLL)  # the descriptor stays readable after the end of both streams
        elif not all_read:
            poll.poll(_POLL * 1000)

    def _read(self) -> bool:
        """Read both streams together: reading one to its end first would block once the other's window is full."""
        got = False
        while self._channel.recv_ready():
            self._out += self._channel.recv(1 << 18)
            got = True
        while self._channel.recv_stderr_ready():
            self._err += self._channel.recv_stderr(1 << 18)
            got = True
        if got and self._on_line:
            self._report_lines(self._on_line)
        return got

    def _report_lines(self, on_line: Callable[[str], None]) -> None:
        if not self._reported:
            begin = self._out.find(_BEGIN)
            if begin < 0:
                return
            self._reported = begin + len(_BEGIN)
        while (end := self._out.find(b"\n", self._reported)) >= 0:
            line = self._out[self._reported : end].decode(errors="replace")
            self._reported = end + 1
            try:
                on_line(line)
            except Exception:
                log.debug("displaying a line failed", exc_info=True)  # no reason to lose the script's result

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{self._host}: stopped while {self._what}")
        if time.monotonic() > self._end:
            message = f"{self._what} did not end in time, and the host does not answer"
            raise OutcomeUnknown(self._host, message, hint=RUN_AGAIN)

    def _disconnected(self) -> bool:
        return not self._channel.get_transport().is_active()

    def _status(self) -> int:
        status = int(self._channel.recv_exit_status())
        if status == -1:
            cause = "the connection was lost" if self._disconnected() else "it was killed"
            raise OutcomeUnknown(self._host, f"{cause} while {self._what}", hint=RUN_AGAIN)
        return status


def _from_begin(data: bytearray) -> bytes:
    _, begin, rest = data.partition(_BEGIN)
    return bytes(rest if begin else data)
