"""Agents are drained before K3s is replaced on them, and get pods again when they are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s.apply import drain as scripts
from nornir_k3s.errors import K3sError, NotReady
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.planner import replaces_binary
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of

_HINT = "see what keeps its pods (a PodDisruptionBudget, pods without controller), or change rolling_update.drain"


def wanted(run: Run, names: Sequence[str]) -> list[str]:
    """Return those of these agents that are drained first: those that work, and whose K3s is replaced."""
    if not run.cluster.rolling_update.drain.enabled or not run.of("servers"):
        return []
    plans = {name: run.planned(name) for name in names if run.node(name) and run.facts[name].in_service}
    return [name for name, plan in plans.items() if replaces_binary(plan.desired, plan.facts)]


def left_cordoned(run: Run, names: Sequence[str]) -> list[str]:
    """Return agents that an earlier run has cordoned and that work, without those that are drained now."""
    ours = [name for name in _cordoned(run) if run.facts[name].in_service]
    now = wanted(run, [name for name in names if name in ours])
    return [name for name in ours if name not in now]


def mended(run: Run) -> list[str]:
    """Return agents that an earlier run has cordoned, that did not work, and do now."""
    return [name for name in _cordoned(run) if name in run.done and not run.facts[name].in_service]


def _cordoned(run: Run) -> list[str]:
    agents = run.chosen(member.name for member in run.of("agents"))
    return [name for name in agents if (node := run.node(name)) and node.ours]


@contextmanager
def drained(run: Run, names: Sequence[str]) -> Iterator[list[str]]:
    """Drain these agents meanwhile, as far as that is wanted; yield those that may be changed.

    The run goes on without those that cannot be drained: they are uncordoned, and not touched.
    """
    moving = wanted(run, names)
    if not moving:
        yield list(names)
        return
    try:
        timeout = run.cluster.rolling_update.drain.timeout
        for name, why in _on_server(run, "drain", moving, timeout + 120).items():
            if why:
                lines = "\n".join("    " + line for line in why.strip().splitlines())
                text = f"not touched, because its node could not be drained\n{lines}"
                run.go_on_without(name, NotReady(name, text, hint=_HINT))
        yield [name for name in names if name not in run.left_out]
    except BaseException:
        with suppress(K3sError, KeyboardInterrupt):  # the next run does it
            release(_begun_anew(run), _work_again(run, moving))
        raise
    release(run, _work_again(run, moving))


def release(run: Run, names: Sequence[str]) -> None:
    """Uncordon those of these agents that this tool has cordoned.

    Raises:
        K3sError: The server cannot be asked.
    """
    if names:
        failed = {name: why for name, why in _on_server(run, "uncordon", names, 300).items() if why}
        run.report.notes += [f"{name}: not uncordoned: {why.strip()}; run deploy again" for name, why in failed.items()]


def _work_again(run: Run, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in run.ready_again or not run.report.hosts[name].error]


def _begun_anew(run: Run) -> Run:
    """Return the run as if nobody had stopped it."""
    return replace(run, nr=run.nr.with_runner(K3sRunner()))


def _on_server(run: Run, what: str, names: Sequence[str], timeout: float) -> dict[str, str]:
    """Run a script for these agents' nodes on a ready server; return by agent why it failed."""
    nodes = {run.member(name).node_name: name for name in names}
    script = scripts.release(list(nodes)) if what == "uncordon" else ""
    script = script or scripts.drain(list(nodes), run.cluster.rolling_update.drain)
    server = require_ready(run)
    found = run.phase(what, [server], _runs(what, script, timeout), width=1)[server]
    return {nodes[node]: why for node, why in found.items()}


def _runs(what: str, script: str, timeout: float) -> Callable[[Task, Run], Result]:
    def run_script(task: Task, run: Run) -> Result:
        answer = session_of(task, run).run(script, what=f"kubectl {what}", timeout=timeout)
        with readable(task.host.name):
            found = scripts.parse(answer.stdout)
        return Result(host=task.host, result=found)

    return run_script
