"""Phase: one stage of a deploy, as `deploy --list-phases` shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nornir_k3s.run.context import Run


@dataclass(frozen=True)
class Phase:
    """One phase of a deploy.

    Arguments:
        name: On the command line.
        summary: What it does.
        work: The function that does it.
        reads: It changes nothing on any host.
        beside: The phase that it can run in parallel with.
    """

    name: str
    summary: str
    work: Callable[[Run], None]
    reads: bool = False
    beside: str = ""
