"""Hold: the lock of a run on one host, held by a process there at the end of an SSH channel of this one.

The process ends, and with it the lock, when the channel does, or when no beat has come for `LASTS` seconds: the
controller has lost power, or was suspended.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Protocol

from nornir_k3s import shell
from nornir_k3s.errors import CommandFailed, Interrupted, OutcomeUnknown
from nornir_k3s.model.paths import WORK
from nornir_k3s.model.work import Owner
from nornir_k3s.records import Record, decoded, integer
from nornir_k3s.ssh.session import Session

LASTS = 30  # seconds without a beat after which a host ends the lock
PATIENCE = 2  # seconds: whoever reads whether it is held has it for a moment
ANSWER = 60.0  # seconds that a host has to answer


_BEGIN = "begin"


class Channel(Protocol):
    """What is needed of a channel."""

    closed: bool

    def settimeout(self, seconds: float) -> object:
        """Have calls end after that."""

    def sendall(self, data: bytes) -> object:
        """Send all of it."""

    def recv(self, size: int) -> bytes:
        """Return what has come; nothing at the end."""

    def recv_ready(self) -> bool:
        """Return whether something has come."""

    def exit_status_ready(self) -> bool:
        """Return whether the process has ended."""

    def close(self) -> object:
        """Close it."""


@dataclass(frozen=True)
class Taken:
    """The lock's number on the host and its epoch, or the word of who has it if that is another run."""

    number: int
    epoch: str = ""
    busy: bool = False
    owner: str = ""


def now() -> float:
    """Return seconds of a clock that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Hold:
    """The lock of a run on one host."""

    def __init__(self, session: Session, owner: Owner) -> None:
        self.session = session
        self.number, self.epoch = 0, ""
        self.begun = False
        self.heard = 0.0  # when the last beat was sent that the host has answered
        self._owner = owner
        self._channel: Channel | None = None
        self._text = b""
        self._sent: dict[str, float] = {}
        self._beats = itertools.count(1)

    def take(self) -> Taken:
        """Take the lock.

        Raises:
            HostUnreachable: There is no connection.
            CommandFailed: The host cannot hold it.
            OutcomeUnknown: It does not answer in time.
        """
        words = (WORK, LASTS, PATIENCE, self._owner.word)
        self._text, self._sent = b"", {}
        begin = now()
        self._channel = self.session.open(shell.source("apply/hold.sh"), *words, what="taking the lock")
        self._channel.settimeout(ANSWER)
        record = self._wait_for("held", "busy")
        self.number = integer(record[1])
        if record[0] == "busy":
            self.close()
            return Taken(self.number, busy=True, owner=decoded(record[2]) if record[2:] and record[2] != "-" else "")
        self.heard, self.epoch = begin, record[2]
        return Taken(self.number, self.epoch)

    def begin(self) -> None:
        """Tell the host that changes begin; it has heard it when `begun` is set."""
        self._send(_BEGIN)

    @property
    def alive(self) -> bool:
        """Whether the process on the host is not known to have ended."""
        one = self._channel
        return one is not None and not one.closed and not one.exit_status_ready() and self.session.alive

    def beat(self) -> None:
        """Tell the host that this run lives, and hear which beats it has got."""
        self._send(str(next(self._beats)))
        self.hear()

    def fresh(self, seconds: float) -> bool:
        """Return whether the host has answered a beat that was sent in the last seconds."""
        self.hear()
        return self.alive and now() - self.heard < seconds

    def confirmed(self, seconds: float) -> bool:
        """Return whether the host answers a beat within these seconds."""
        begin = now()
        self.beat()
        while self.alive and self.heard < begin and now() - begin < seconds:
            time.sleep(0.02)
            self.hear()
        return self.alive and self.heard >= begin

    def hear(self) -> None:
        """Take in what the host has answered."""
        while (record := self._next()) is not None:
            if record[0] == "beat":
                if record[1] == _BEGIN and not self.begun:
                    self.begun, self.number = True, self.number + 1
                self.heard = max(self.heard, self._sent.pop(record[1], 0.0))

    def close(self) -> None:
        """End the lock on the host."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _send(self, line: str) -> None:
        self._sent[line] = now()
        if self._channel is not None:
            try:
                self._channel.sendall(f"{line}\n".encode())
            except (OSError, EOFError):
                self._channel.close()

    def _next(self) -> Record | None:
        """Return the next record that has come."""
        while self._channel is not None and b"\n" not in self._text and self._channel.recv_ready():
            self._text += self._channel.recv(4096)
        while b"\n" in self._text:
            line, _, self._text = self._text.partition(b"\n")
            if line.startswith(b"@") and b"\t" in line:
                return Record(line[1:].decode(errors="replace").split("\t"))
        return None

    def _wait_for(self, *kinds: str) -> Record:
        begin = now()
        while now() - begin < ANSWER:
            if self.session.stop.is_set():
                self.close()
                raise Interrupted(f"{self.session.host}: stopped while taking the lock of the cluster")
            record = self._next()
            if record is not None and record[0] in kinds:
                return record
            if record is None:
                if not self.alive and not (self._channel and self._channel.recv_ready()):
                    self.close()
                    raise CommandFailed(self.session.host, "taking the lock of the cluster", status=1)
                time.sleep(0.005)
        self.close()
        raise OutcomeUnknown(self.session.host, "taking the lock of the cluster did not end in time")
