"""Log lines in K3s' own form (logrus text on stderr), and the error that ends a process as K3s ends."""

from __future__ import annotations

import json
import re
import sys
import threading
from datetime import UTC, datetime

_lock = threading.Lock()
_PLAIN = re.compile(r"[A-Za-z0-9\-._/@^+]*")


def log(level: str, text: str, **fields: object) -> None:
    """Write one line; fields follow the message in alphabetical order."""
    line = format_line(level, text, datetime.now(UTC), **fields)
    with _lock:
        sys.stderr.write(line)
        sys.stderr.flush()


def noise() -> None:
    """Write what a healthy K3s writes while its parts come up: errors that mean nothing, among hundreds of lines."""
    refused = "connect: connection refused"
    log("info", f"Waiting for containerd startup: dial unix /run/k3s/containerd/containerd.sock: {refused}")
    log("error", "Remotedialer proxy error; reconnecting...", error=f"dial tcp 10.255.255.254:6443: {refused}")
    log("error", "Failed to ensure lease exists, will retry", err=f"dial tcp 127.0.0.1:6443: {refused}", logger="k3s")
    log("error", "Failed to list", err="dial tcp 10.43.0.1:443: i/o timeout", logger="k3s")
    log("info", "cgroup v1 support is in maintenance mode, please migrate to cgroup v2", logger="k3s")
    for number in range(300):
        log("info", "Starting controller", controller=f"controller-{number}", logger="k3s")


def format_line(level: str, text: str, at: datetime, **fields: object) -> str:
    """Return one line as logrus writes it: values are quoted only where they must be."""
    words = [f'time="{at:%Y-%m-%dT%H:%M:%SZ}"', f"level={level}", f"msg={_quote(text)}"]
    words += [f"{key}={_quote(str(value))}" for key, value in sorted(fields.items())]
    return " ".join(words) + "\n"


def _quote(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class Fatal(Exception):
    """Ends the process as K3s' `logrus.Fatal` does: one line, status 1."""
