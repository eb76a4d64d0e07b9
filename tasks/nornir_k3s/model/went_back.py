"""A datastore whose newest revision is lower than it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WentBack:
    """A datastore that has lost revisions, or has other data than before.

    Arguments:
        before: The newest revision that was seen earlier.
        after: The newest one when that was noticed.
        since: When it was noticed, in seconds of the controller's clock.
    """

    before: int
    after: int
    since: float

    def __str__(self) -> str:
        return f"the datastore went back from revision {self.before} to {self.after}"
