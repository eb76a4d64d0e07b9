"""Tunnel: a socket that leads through another program, such as `ssh -W` on a jump host.

paramiko's own ProxyCommand loops at full speed once the program has ended, leaves a zombie, and loses its messages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

_STDERR_LIMIT = 4000
_STDERR_WAIT = 5.0
# Printed by an `ssh` whose connection leads through another one, which has ended and said why.
_CONSEQUENCES = ("kex_exchange_identification:", "Connection closed by UNKNOWN")


class TunnelFailed(Exception):
    """The program has ended, with these last lines on stderr."""


class Tunnel(socket.socket):
    """A socket whose other end is a program's input and output.

    Arguments:
        argv: The program; closing the socket ends it.

    Raises:
        TunnelFailed: It cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        local, remote = socket.socketpair()
        super().__init__(fileno=local.detach())
        self._stderr = b""
        with remote:
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=remote.fileno(),
                    stdout=remote.fileno(),
                    stderr=subprocess.PIPE,
                    # No terminal to ask on; and a Ctrl-C must not end it before the script on the host has ended.
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
        """Return the program's last lines on stderr once it has ended; nothing while it runs."""
        self._reader.join(_STDERR_WAIT)
        if self._reader.is_alive():
            return ""
        lines = [line.strip() for line in self._stderr.decode(errors="replace").splitlines()]
        return "; ".join([line for line in lines if line and not line.startswith(_CONSEQUENCES)][-3:])

    def close(self) -> None:
        """Close the socket and end the program."""
        super().close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _read(self) -> None:
        with self._process as process:
            for line in process.stderr or ():
                self._stderr = (self._stderr + line)[-_STDERR_LIMIT:]
