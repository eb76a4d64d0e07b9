"""A change of one server or agent: if it does not get ready, its previous files are restored."""

from __future__ import annotations

import contextlib
import time

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import rollback
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import CommandFailed, HostError, NotReady
from nornir_k3s.host_steps import replaces_binary
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.phases import host_tasks, token
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

_STOPS = "; the run stops here"
_AGAIN = "fix the cause, then run deploy again: it plans the same change"


def change_node(task: Task, run: Run) -> Result:
    """Bring a server or agent to its desired state; if it worked and does not again, restore its previous files.

    Raises:
        NotReady: It did not get ready; with the cause and the result of the rollback.
    """
    return _change(task, run, _STOPS)


def change_for_good(task: Task, run: Run) -> Result:
    """Do as `change_node`, without a way back: with its previous files it could not read the others' secrets.

    Raises:
        NotReady: It did not get ready.
    """
    try:
        return _change(task, run, _STOPS, returns=False)
    except HostError:
        with contextlib.suppress(HostError):
            keep_change(task, run)
        raise


def keep_change(task: Task, run: Run) -> None:
    """Drop the previous files of a host, so that no later run restores them; what must restart is still noted.

    Raises:
        HostError: It cannot be reached.
    """
    script = apply.wrapped("keeping the change", "drop_previous")
    gather.session_of(task, run).run(script, what="removing the previous files", timeout=60)


def change_one_of_many(task: Task, run: Run) -> Result:
    """Do as `change_node` on an agent that the run goes on without if it fails.

    Raises:
        NotReady: As `change_node`.
    """
    return _change(task, run, "")


def _change(task: Task, run: Run, then: str, *, returns: bool = True) -> Result:
    """Change a host, and restore its previous files if that fails; `then` says what becomes of the run."""
    name = task.host.name
    plan = run.planned(name)
    worked = plan.facts.in_service or PREVIOUS in plan.facts.present
    on_trial = run.trial and plan.starts_k3s and plan.facts.in_service
    if on_trial and not rollback.possible(plan.desired, plan.facts, returns=plan.returns):
        raise NotReady(
            name,
            "not touched: a change to another minor version cannot be rolled back",
            hint="run deploy without --try",
        )
    if plan.facts.in_service:
        run.begun.setdefault(name, time.monotonic())
    try:
        if run.member(name).role == "servers":
            if token.is_behind(run, name):
                token.write_host(task, run)
            result = host_tasks.converge_server(task, run)
        else:
            result = host_tasks.converge_agent(task, run)
    except (NotReady, CommandFailed) as error:
        if not worked or not returns or getattr(error, "status", 0) == apply.BUSY:
            raise
        if replaces_binary(plan.desired, plan.facts) and not plan.returns:
            text = "no rollback: K3s is of another minor version: the older one may not start with the newer one's data"
            raise _added(name, error, text, hint=error.hint) from None
        raise _rolled_back(task, run, error, then) from None
    except HostError:
        if on_trial:
            run.report.notes.append(f"{name}: it rolls the change back by itself {run.trial} s after it began")
        raise
    if on_trial:
        _confirm(task, run)
    elif worked:
        _forget(task, run)
    return result


def _confirm(task: Task, run: Run) -> None:
    """Confirm a change on trial: log in anew, and see that the node is ready; else the host takes it back.

    Raises:
        HostError: There is no way to log in any more, the node is not ready, or the host has taken the change back.
    """
    name = task.host.name
    try:
        gather.session_of(task, run).close()  # a connection that is there already may be the last one
        _wait(task, run)
        script = apply.forget(_unit(run, name), trial=True)
        gather.session_of(task, run).run(script, what="confirming the change", timeout=60)
    except HostError as error:
        text = f"the change was not confirmed, and the host rolls it back {run.trial} s after it began"
        hint = "check the host after that; then correct the change, or run deploy without --try"
        raise NotReady(name, f"{text}: {_message(name, error)}", hint=hint) from None


def _unit(run: Run, name: str) -> str:
    return k3s.UNITS["server" if run.member(name).role == "servers" else "agent"]


def _wait(task: Task, run: Run) -> None:
    name = task.host.name
    if run.member(name).role == "servers":
        host_tasks.require_same_cluster(run, name, host_tasks.wait_for_server(task, run))
    else:
        host_tasks.wait_for_agent(task, run)


def _rolled_back(task: Task, run: Run, error: HostError, then: str) -> NotReady:
    """Restore the previous files, and return the error with the result of that."""
    name = task.host.name
    run.begun.pop(name, None)
    try:
        files = _restore(task, run, always=isinstance(error, NotReady))
    except HostError as failed:
        text = f"its previous files could not be restored: {_message(name, failed)}"
        return _added(name, error, text, hint=_rollback_hint())
    run.report.hosts[name].restored += files
    restored = f"its previous files were restored ({', '.join(files)})" if files else "no file had to be restored"
    try:
        _wait(task, run)
    except HostError as failed:
        text = f"{restored}, but it is still not ready: {_message(name, failed).removeprefix('not ready: ')}"
        return _added(name, error, text, hint=failed.hint or _rollback_hint())
    run.ready_again.add(name)
    with contextlib.suppress(HostError):  # the next run does it
        _forget(task, run)
    return _added(name, error, f"{restored}, and it is ready again{then}", hint=_hint(error))


def _restore(task: Task, run: Run, *, always: bool) -> list[str]:
    answer = gather.session_of(task, run).run(
        apply.restore(_unit(run, task.host.name), always=always),
        what="restoring the previous files",
        timeout=run.deadlines["apply"],
        secrets=run.cluster.secrets(),
    )
    with gather.readable(task.host.name):
        changed = apply.parse(answer.stdout).changed
    return [step.removeprefix("restored:") for step in changed if step.startswith("restored:")]


def _forget(task: Task, run: Run) -> None:
    gather.session_of(task, run).run(
        apply.forget(_unit(run, task.host.name)), what="removing the previous files", timeout=60
    )


def _added(name: str, error: HostError, text: str, *, hint: str) -> NotReady:
    """Return the error with the result of the rollback."""
    result = NotReady(name, f"{_message(name, error)}\n  {text}", hint=hint)
    result.journal = getattr(error, "journal", "")
    return result


def _message(name: str, error: HostError) -> str:
    return error.message.removeprefix(f"{name}: ")


def _hint(error: HostError) -> str:
    return f"{error.hint}; {_AGAIN}" if error.hint else _AGAIN


def _rollback_hint() -> str:
    return f"check the host; the previous files stay in {PREVIOUS} until it is ready again"
