"""A server that runs is changed: in the window, drained where that is wanted, out of rotation while it restarts."""

from __future__ import annotations

from nornir_k3s.phases import drain, rolling, rotation, window
from nornir_k3s.run.context import Run


def change(run: Run, name: str) -> None:
    """Bring a server that runs to its desired state.

    Raises:
        OutsideWindow: It may not restart now.
        NotReady: Another server is not ready, or this one does not get ready again.
    """
    if run.facts[name].ready and run.planned(name).starts_k3s:
        window.require_open(run, [name])
    if drain.wanted(run, [name]):
        rotation.require_others(run, name)
    with drain.drained(run, [name]), rotation.out_of_rotation(run, name):
        run.phase("servers", [name], rolling.change_node, width=1)
