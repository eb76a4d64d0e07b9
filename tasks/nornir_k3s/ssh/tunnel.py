"""Tunnel: a socket that leads through another program, such as `ssh -W` on a jump host.

paramiko has one of its own, which spins when the program has ended, never collects it, and loses what it said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

SAID = 4000
PATIENCE = 5.0
# What an `ssh` says when another one, which it leads through, has ended and said why.
ECHO = ("kex_exchange_identification:", "Connection closed by UNKNOWN")


class TunnelFailed(Exception):
    """The program has ended, and said why."""


class Tunnel(socket.socket):
    """A socket whose other end is a program's input and output.

    Arguments:
        argv: The program; closing the socket ends it.

    Raises:
        TunnelFailed: It cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._said = b""
        with theirs:
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    # No terminal to ask on, and a Ctrl-C is for us: what runs on the host is to end well.
                    start_new_session=True,
                )
            except OSError as error:
                super().close()
                raise TunnelFailed(f"{argv[0]} cannot be started: {error.strerror}") from None
        self._reader = threading.Thread(target=self._read, name="nornir-k3s-tunnel", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The program's."""
        return self._process.pid

    def failure(self) -> str:
        """Return what the program said before it ended; nothing while it runs."""
        self._reader.join(PATIENCE)
        if self._reader.is_alive():
            return ""
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines()]
        return "; ".join([line for line in lines if line and not line.startswith(ECHO)][-3:])

    def close(self) -> None:
        """Close the socket and end the program."""
        super().close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _read(self) -> None:
        with self._process as process:
            for line in process.stderr or ():
                self._said = (self._said + line)[-SAID:]
