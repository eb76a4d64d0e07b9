"""Phase stage: artefacts and packages on every host; nothing restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nornir.core.task import Result, Task

from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import session_of


def stage(run: Run) -> None:
    """Copy artefacts and install packages on every host that lacks them."""
    names = [name for name in run.names if run.planned(name).stage]
    run.phase("stage", names, stage_host, width=run.widths["stage"])


def stage_host(task: Task, run: Run) -> Result:
    """Copy artefacts, install packages, run K3s' installer; nothing is restarted."""
    steps = run.planned(task.host.name).stage
    link = session_of(task, run)
    for step in steps:
        if isinstance(step.payload, Artifact) and not step.payload.url:
            artifact = step.payload
            link.push(
                artifact.source,
                artifact.path,
                sha256=artifact.sha256,
                mode=artifact.mode,
                timeout=run.deadlines["push"],
                on_bytes=_count(run, task.host.name, artifact),
            )
    return apply_steps(task, run, steps, deadline=run.deadlines["packages"])


def _count(run: Run, name: str, artifact: Artifact) -> Callable[[int], None]:
    """Return what counts the bytes that were sent, and tells people."""
    what, total, sent = Path(artifact.path).name, artifact.source.stat().st_size, 0

    def add(size: int) -> None:
        nonlocal sent
        sent += size
        run.tell(name, f"copies {what}: {sent / 1e6:.0f} of {total / 1e6:.0f} MB")

    return add


PHASE = Phase("stage", "copy artefacts and install packages on every host; nothing restarts", stage)
