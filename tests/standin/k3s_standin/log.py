"""Log lines in K3s' own form (logrus text on stderr)."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime

_lock = threading.Lock()


def log(level: str, text: str) -> None:
    """Write one line."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with _lock:
        sys.stderr.write(f'time="{now}" level={level} msg={json.dumps(text, ensure_ascii=False)}\n')
        sys.stderr.flush()


class Fatal(Exception):
    """Ends the process as K3s' `logrus.Fatal` does: one line, status 1."""
