"""systemd's readiness protocol, and the delays that tests may turn on."""

from __future__ import annotations

import os
import socket
import time


def ready() -> None:
    """Tell systemd that the service is up."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(b"READY=1\n")


def delay(what: str, default: float) -> None:
    """Sleep for `K3S_STANDIN_<what>_DELAY` seconds."""
    time.sleep(float(os.environ.get(f"K3S_STANDIN_{what}_DELAY", default)))
