"""What the lab raises; it knows nothing of nornir_k3s."""

from __future__ import annotations

from collections.abc import Sequence


class LabError(Exception):
    """The lab cannot do what was asked for.

    Arguments:
        message: What happened.
        hint: What to do next.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, and the next step below it."""
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class LabConfigError(LabError):
    """The config, the inventory or the name of a host is wrong; nothing was done.

    Arguments:
        problems: All of them, one line each.
    """

    def __init__(self, *problems: str, hint: str = "") -> None:
        self.problems: Sequence[str] = problems
        super().__init__("\n".join(problems), hint=hint)
