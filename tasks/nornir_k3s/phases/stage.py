"""Phase stage: artefacts and packages on every host; nothing restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import rollback
from nornir_k3s.model.host_facts import ArtifactState
from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.phases import batches
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.phase import Phase
from nornir_k3s.planner import PlannedHost
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import session_of


def stage(run: Run) -> None:
    """Copy artefacts and install packages on every host that lacks them.

    Raises:
        K3sError: It fails on a host that is no agent, or on more agents than may fail.
    """
    names = [name for name in run.names if run.planned(name).stage]
    run.phase("stage", names, stage_host, width=run.widths["stage"], spare=run.agents(names))
    batches.require_few_failures(run)


def stage_host(task: Task, run: Run) -> Result:
    """Copy artefacts, install packages, run K3s' installer; nothing is restarted."""
    planned = run.planned(task.host.name)
    steps, link = planned.stage, session_of(task, run)
    if planned.facts.in_service and any(step.target == k3s.BINARY for step in steps):
        installed = planned.facts.artifacts.get(k3s.BINARY, ArtifactState())
        running = installed.written <= _started(planned)
        link.run(rollback.keep_binary(running=running), what="keeping K3s' binary", timeout=60)
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


def _started(planned: PlannedHost) -> int:
    """Return when the host's K3s was started, in seconds since the epoch."""
    install = planned.desired.install
    return planned.facts.unit(install.unit).started if install else 0


def _count(run: Run, name: str, artifact: Artifact) -> Callable[[int], None]:
    """Return what counts the bytes that were sent, and tells people."""
    what, total, sent = Path(artifact.path).name, artifact.source.stat().st_size, 0

    def add(size: int) -> None:
        nonlocal sent
        sent += size
        run.tell(name, f"copies {what}: {sent / 1e6:.0f} of {total / 1e6:.0f} MB")

    return add


PHASE = Phase("stage", "copy artefacts and install packages on every host; nothing restarts", stage)
