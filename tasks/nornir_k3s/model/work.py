"""Who is at work on a cluster, as its lock on hosts and its Lease say it."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

_VERBS = {"backup": "makes a backup", "tasks": "runs Nornir tasks that change hosts"}
_FAR = 2**36  # seconds since the epoch that a date can be made of


@dataclass(frozen=True)
class Owner:
    """The run that has the lock.

    Arguments:
        id: The same for all locks of one process, of no other one.
        user: Who runs it.
        host: On which controller.
        command: Its subcommand.
        since: When it began, in seconds since the epoch.
    """

    id: str
    user: str
    host: str
    command: str
    since: float

    def __str__(self) -> str:
        begun = datetime.fromtimestamp(self.since, UTC)
        form = "%H:%M:%S UTC" if begun.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S UTC"
        verb = _VERBS.get(self.command, f"{self.command}s")
        return f"{self.user}@{self.host} {verb} since {begun.strftime(form)}"

    @property
    def text(self) -> str:
        """This, as JSON."""
        return json.dumps(asdict(self))

    @property
    def word(self) -> str:
        """This, as one word."""
        return base64.b64encode(self.text.encode()).decode()


def owner(text: str) -> Owner | None:
    """Return the owner in this JSON; None where it is nobody's."""
    try:
        data: dict[str, Any] = json.loads(text)
        who, user, host, command = (_plain(str(data[key])) for key in ("id", "user", "host", "command"))
        since = float(data["since"])
        return Owner(who, user, host, command, since) if 0 <= since < _FAR else None
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _plain(text: str) -> str:
    """Return a text that people are shown, without control characters."""
    return "".join(char for char in text[:100] if char.isprintable())


@dataclass(frozen=True)
class Work:
    """The lock of runs on a host.

    Arguments:
        held: A run has it now.
        number: It rises when a run begins to change things, and when that has ended.
        owner: Who has it, where it is held.
        epoch: The same until the host reboots, which begins the number at 0 again; empty where no run had the lock yet.
    """

    held: bool = False
    number: int = 0
    owner: Owner | None = None
    epoch: str = field(default="", compare=False)
