"""Runs that are killed when they have ended a part of their work, each followed by the next one."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from .balancers import BALANCERS, drained
from .conftest import Site

# The lines after which an upgrade is killed: a server has changed and is out of rotation, an agent is still cordoned.
PARTS = ("servers: 1 host, 1 changed", "agents: 1 host, 1 changed")
# All of them, in the order in which an upgrade that goes on from there prints them.
ALL = (
    "observe:",
    "dump:",
    "stage:",
    "out of rotation:",
    PARTS[0],
    "back in rotation:",
    "drain:",
    PARTS[1],
    "uncordon:",
    "verify:",
)


def killed(site: Site, line: str, *command: str) -> None:
    """Start a command, `deploy --yes` by default, and kill it as soon as it prints such a line."""
    running, said = site.start(*(command or ("deploy.py", "--yes"))), ""
    assert running.stdout
    try:
        for one in running.stdout:
            said += one
            if one.strip().startswith(line):
                break
        else:
            raise AssertionError(f"no line {line!r}:\n{said}")
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def upgrade(site: Site, parts: Sequence[str]) -> None:
    """Deploy, killed at each of these lines once; then a deploy that is let finish."""
    for line in parts:
        killed(site, line)
        for balancer in BALANCERS:
            assert len(drained(site, balancer)) <= 1, line
    site.deploy("--yes")
