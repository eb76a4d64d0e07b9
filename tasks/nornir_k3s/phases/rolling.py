"""A change of one server of a living cluster: it gets ready again, or its previous files come back."""

from __future__ import annotations

import contextlib

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import CommandFailed, HostError, NotReady
from nornir_k3s.model.paths import (
    PREVIOUS,
)
from nornir_k3s.phases import host_tasks
from nornir_k3s.planner import (
    renewed,
)
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

UNIT = k3s.UNITS["server"]
_AGAIN = "fix the inventory, or what is said above, then run deploy again: the same change is planned again"


def change_server(task: Task, run: Run) -> Result:
    """Make a server right and wait until it is ready; one that was and is not any more gets its previous files back.

    Raises:
        NotReady: With the cause, and what became of the server.
    """
    name = task.host.name
    plan = run.planned(name)
    had = plan.facts.ready or PREVIOUS in plan.facts.present
    try:
        result = host_tasks.converge_server(task, run)
    except (NotReady, CommandFailed) as error:
        if not had or getattr(error, "status", 0) == apply.BUSY:
            raise
        if renewed(plan.desired, plan.facts):
            text = (
                "nothing was put back: K3s itself was replaced, and an older one may not start on what it has written"
            )
            raise _added(name, error, text, hint=error.hint) from None
        raise _taken_back(task, run, error) from None
    if had:
        _forget(task, run)
    return result


def _taken_back(task: Task, run: Run, error: HostError) -> NotReady:
    """Put the previous files back, and return the error that says what failed and what is true now."""
    name = task.host.name
    try:
        files = _put_back(task, run, always=isinstance(error, NotReady))
    except HostError as failed:
        return _added(name, error, f"its previous files could not be put back: {_what(name, failed)}", hint=_not_back())
    run.report.hosts[name].restored += files
    put = f"its previous files were put back ({', '.join(files)})" if files else "no file had to be put back"
    try:
        host_tasks.require_same_cluster(run, name, host_tasks.wait_for_server(task, run))
    except HostError as failed:
        text = f"{put}, but it does not come back so either: {_what(name, failed)}"
        return _added(name, error, text, hint=failed.hint or _not_back())
    with contextlib.suppress(HostError):  # the next run does it
        _forget(task, run)
    return _added(name, error, f"{put}, and it is ready again; the run stops here", hint=_hint(error))


def _put_back(task: Task, run: Run, *, always: bool) -> list[str]:
    answer = gather.session_of(task, run).run(
        apply.restore(UNIT, always=always),
        what="putting the previous files back",
        timeout=run.deadlines["apply"],
        secrets=run.cluster.secrets(),
    )
    with gather.readable(task.host.name):
        changed = apply.parse(answer.stdout).changed
    return [step.removeprefix("restored:") for step in changed if step.startswith("restored:")]


def _forget(task: Task, run: Run) -> None:
    gather.session_of(task, run).run(apply.forget(UNIT), what="removing the previous files", timeout=60)


def _added(name: str, error: HostError, text: str, *, hint: str) -> NotReady:
    """Return the error with what became of the server."""
    result = NotReady(name, f"{_what(name, error)}\n  {text}", hint=hint)
    result.journal = getattr(error, "journal", "")
    return result


def _what(name: str, error: HostError) -> str:
    return error.message.removeprefix(f"{name}: ")


def _hint(error: HostError) -> str:
    return f"{error.hint}; {_AGAIN}" if error.hint else _AGAIN


def _not_back() -> str:
    return f"look at it on the host; its previous files lie in {PREVIOUS} until it was ready again"
