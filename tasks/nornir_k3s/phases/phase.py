"""Phase: one step of a deploy, as the list of phases shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nornir_k3s.run.context import Run


@dataclass(frozen=True)
class Phase:
    """One phase: its name on the command line, what it does, and the function that does it.

    Arguments:
        reads: It changes nothing on any host.
        beside: The phase that it need not wait for.
    """

    name: str
    summary: str
    work: Callable[[Run], None]
    reads: bool = False
    beside: str = ""
