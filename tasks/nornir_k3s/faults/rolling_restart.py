"""The fault `restart`: K3s restarts on one server after the other, as a deploy does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import K3sError
from nornir_k3s.phases import host_tasks
from nornir_k3s.phases.rotation import bring_back, leaving
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import session_of

_BACK = 60.0  # seconds that a server may take to come back into rotation after an interruption
_POLL = 0.3


def restart_all(run: Run, back: Callable[[], tuple[str, ...]], left: list[str]) -> tuple[str, ...]:
    """Restart K3s on one server after the other, each ready and in rotation before the next.

    Arguments:
        back: Waits until all servers are in rotation; returns who holds the VIP.
        left: Gets what could not be put back after an interruption.

    Returns:
        Who held the VIP after the last restart.
    """

    def restart(task: Task, run: Run) -> Result:
        script = apply.restart(k3s.UNITS["server"])
        session_of(task, run).run(script, what="restarting", timeout=run.deadlines["apply"])
        host_tasks.wait_for_server(task, run)
        return Result(host=task.host)

    holders: tuple[str, ...] = ()
    balancers = [member.name for member in run.cluster.of("lb")]
    for member in run.cluster.of("servers"):
        try:
            with leaving(run, member.name, balancers):
                run.phase("restart", [member.name], restart)
        except BaseException:
            bring_server_back(run, member.name, balancers, left)
            raise
        holders = back()
    return holders


def bring_server_back(run: Run, server: str, balancers: Sequence[str], left: list[str]) -> None:
    """Bring a server back into rotation after an interruption.

    What takes it out may still run on a load balancer, for some seconds.

    Arguments:
        left: Gets a line where that did not work.
    """
    until = time.monotonic() + _BACK
    while True:
        try:
            bring_back(run.not_stopped(balancers), server, balancers)
        except (K3sError, KeyboardInterrupt) as error:
            if time.monotonic() < until and isinstance(error, K3sError):
                time.sleep(_POLL)
                continue
            text = f"server {server} may be out of rotation on {', '.join(balancers)} for some minutes"
            left.append(f"{text}; it comes back by itself, or with `systemctl reload haproxy` there")
        return
