"""The errors of the lab."""

from __future__ import annotations

from collections.abc import Sequence


class LabError(Exception):
    """An action of the lab failed.

    Arguments:
        message: What is wrong.
        hint: What to do next.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, with the next step in a line of its own."""
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class LabConfigError(LabError):
    """The config, the inventory or the name of a host is wrong; nothing was changed.

    Arguments:
        problems: All of them, one line each.
    """

    def __init__(self, *problems: str, hint: str = "") -> None:
        self.problems: Sequence[str] = problems
        super().__init__("\n".join(problems), hint=hint)
