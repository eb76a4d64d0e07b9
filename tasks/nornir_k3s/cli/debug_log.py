"""The debug log of a run: a file in the state folder. Nothing of it reaches the terminal."""

from __future__ import annotations

import logging
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

from nornir_k3s.errors import UsageError

_NAME = r"\d{8}-\d{6}-\d+(-[0-9a-f]{4})?\.log"
_KEPT = 20


def start(state: Path) -> Path:
    """Send all logging of this process to a new file, 0600; return its path.

    Arguments:
        state: The state folder; it is made where it is missing.

    Raises:
        UsageError: The folder cannot be written.
    """
    folder = state / "log"
    # Controllers that share the folder may have processes of the same number.
    path = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}.log"
    try:
        for each in (state, folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}", hint="set `state` in config.yaml") from None
    handler = logging.StreamHandler(os.fdopen(descriptor, "w"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    logging.getLogger("netmiko").setLevel(logging.WARNING)
    for old in sorted(one for one in folder.iterdir() if re.fullmatch(_NAME, one.name))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path
