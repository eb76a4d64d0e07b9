"""Outside the maintenance window, K3s restarts on no further node that runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from nornir_k3s.errors import OutsideWindow
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.together import few
from nornir_k3s.run.context import Run

_HINT = "run it again then: it goes on where it stopped; before, --ignore-window restarts K3s, --limit changes others"


def restarting(run: Run, phases: Sequence[str] = NODES) -> list[str]:
    """Return the servers and agents that run, and whose K3s these phases would restart."""
    names = [name for name in run.names if run.member(name).role in phases and name not in run.done]
    return [name for name in names if run.facts[name].in_service and run.planned(name).starts_k3s]


def require_open(run: Run, names: Sequence[str]) -> None:
    """Check that these servers or agents that run may restart K3s now.

    Raises:
        OutsideWindow: It is outside the window; with when it opens.
    """
    if names and (text := closed(run)):
        changed = "" if run.report.changed else "nothing was changed: "
        raise OutsideWindow(f"{changed}K3s restarts on {few(names)} only in the window {text}", hint=_HINT)


def closed(run: Run) -> str:
    """Return the window if it is closed now, with when it opens; else nothing."""
    window, now = run.cluster.rolling_update.window, datetime.now(UTC)
    if window is None or run.ignore_window or window.is_open(now):
        return ""
    return f"({window}), which opens {window.opens(now):%a %Y-%m-%d %H:%M %Z}"
