"""The new CAs of a rotation: read the old ones from a server, and have K3s store the new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nornir.core.task import Result, Task

from nornir_k3s.apply import cluster_ca as scripts
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of
from nornir_k3s.state import cluster_ca

NAMES = tuple(f"{name}-ca.{kind}" for name in cluster_ca.NAMES for kind in ("crt", "key"))


def read(run: Run, server: str) -> dict[str, Secret]:
    """Return the files of the CAs that this server has."""
    found: dict[str, Secret] = run.phase("cluster CA", [server], _read)[server]
    return found


def store(run: Run, server: str, files: Mapping[str, Secret]) -> None:
    """Have this server store the files of other CAs; servers get them when they start.

    Raises:
        CommandFailed: K3s refuses them.
    """
    run.phase("cluster CA", [server], _storing(files))


def _read(task: Task, run: Run) -> Result:
    answer = session_of(task, run).run(scripts.reading(NAMES), what="reading the CAs", timeout=60)
    with readable(task.host.name):
        return Result(host=task.host, result=scripts.parse(answer.stdout, NAMES))


def _storing(files: Mapping[str, Secret]) -> Callable[[Task, Run], Result]:
    def on_host(task: Task, run: Run) -> Result:
        return apply_steps(task, run, [scripts.storing(files)], deadline=run.deadlines["apply"])

    return on_host
