"""The process itself: systemd's readiness protocol, its title, its end, and the delays that tests may turn on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from k3s_standin.log import Fatal, log

_PR_SET_NAME = 15


def ready() -> None:
    """Tell systemd that the service is up."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(b"READY=1\n")


def setting(name: str, default: float) -> float:
    """Return `K3S_STANDIN_<name>`, a number of seconds."""
    return float(os.environ.get(f"K3S_STANDIN_{name}", default))


def delay(what: str, default: float) -> None:
    """Sleep for `K3S_STANDIN_<what>_DELAY` seconds."""
    time.sleep(setting(f"{what}_DELAY", default))


def title(command: str) -> None:
    """Show the process as K3s does: `/usr/local/bin/k3s server`, without arguments (pkg/proctitle)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_NAME, f"k3s-{command}".encode(), 0, 0, 0)
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        text = f"{os.environ.get('K3S_STANDIN_CALLED', 'k3s')} {command}".encode()
        if 0 < len(text) < end - start:
            ctypes.memmove(start, text.ljust(end - start - 1) + b"\0", end - start)


def shut_down(reason: str) -> NoReturn:
    """End as K3s does when a component of it ends: with status 0 (pkg/signals)."""
    log("info", f"Shutdown request received: {reason}")
    for number in range(40):
        log("info", "Shutting down controller", controller=f"controller-{number}", logger="k3s")
    delay("SHUTDOWN", 2.0)
    sys.stderr.flush()
    os._exit(0)


def on_stop(action: Callable[[], int]) -> None:
    """Call this when asked to end, and exit with the status it returns."""

    def stop(*_: object) -> None:
        status = action()
        delay("STOP", 3.0)
        sys.stderr.flush()
        os._exit(status)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Do not hear requests to end: kine's PostgreSQL driver retries without looking at them."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to(path: str) -> None:
    """Do as K3s with `log`: it says READY at once, and what it prints goes to the file, not to the journal."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise Fatal(f"Error: open {path}: {str(error.strerror).lower()}") from None
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    ready()


def hold(address: str, port: int, failed: str) -> socket.socket:
    """Listen on a port of which only the presence matters."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen(8)
    except OSError as error:
        raise Fatal(f"{failed}: listen tcp {address}:{port}: bind: {str(error.strerror).lower()}") from None
    return sock
