"""A rotated token: taken over from K3s, and written on all servers before one restarts."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s.apply import token as scripts
from nornir_k3s.checks import token as checks
from nornir_k3s.errors import HostError
from nornir_k3s.facts.k3s_server import own_url
from nornir_k3s.k3s import CONFIG, UNITS
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases.host_tasks import apply_steps, wait_for_server
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster, tokens


def adopt(run: Run) -> None:
    """Take over the token that K3s was told to rotate to, by hand or by a run that was killed; then read all again.

    A token that the inventory refers to is not ours to change: the preflight says what to do.
    """
    name = checks.holder(run.cluster, run.facts, known_cluster.ca(run.store)[0])
    if not name or run.cluster.token_given:
        return
    new: Secret = run.phase("token", [name], _read, reads=True)[name]
    if new.fingerprint() != checks.stored(run.facts):
        raise HostError(name, "its token has changed meanwhile", hint="run it again")
    take(run, new, f"the token was rotated on {name}")
    others = set(run.facts) - set(run.chosen(run.facts))
    run.phase("observe", list(run.facts), gather.gather_host, width=run.widths["stage"], lenient=others, reads=True)


def take(run: Run, new: Secret, why: str) -> None:
    """Use a new token from now on, and save it with the old one, unless this run saves nothing."""
    note = f"{why}: every server gets the new one"
    if run.store.keep:
        kept = tokens.replace(run.store, run.cluster.token, new)
        note += f"; {run.store.folder / kept} has the old one, for older dumps"
    run.report.notes.append(note)
    run.use_token(new)


def resume(run: Run) -> None:
    """Wait for the server that an interrupted run has restarted with another agent token, and read it again.

    Raises:
        NotReady: It does not get ready.
    """
    found = [run.facts[member.name] for member in run.of("servers")]
    other = {one.host for one in found if checks.has_other_agent_token(run.cluster, one)}
    if other & set(run.ready_servers):
        states = {one.host: one.unit(UNITS["server"]).active for one in found if not one.ready}
        names = [name for name, state in states.items() if name not in other and state in ("active", "activating")]
        run.phase("servers", names, _wait)


def _wait(task: Task, run: Run) -> Result:
    wait_for_server(task, run)
    return gather.gather_host(task, run)


def first(run: Run) -> str:
    """Return the server that K3s rotates the token on: a ready one, which runs with the agent token already."""
    ready = run.ready_servers
    return next((name for name in ready if not checks.has_other_agent_token(run.cluster, run.facts[name])), ready[0])


def rotate(run: Run) -> None:
    """Rotate the token on one server, and use the new one from now on.

    Raises:
        CommandFailed: K3s refused.
    """
    name = first(run)
    new: Secret = run.phase("token", [name], _rotate)[name]
    take(run, new, f"the token was rotated on {name}")


def write(run: Run) -> None:
    """Write a rotated token into the config.yaml of all servers at once: each would die when it restarts without it."""
    run.phase("token", _behind(run), write_host)


def is_due(run: Run) -> bool:
    """Return whether a server would die if it restarted by itself now: it must not wait for a window."""
    return bool(_behind(run))


def _behind(run: Run) -> list[str]:
    return run.chosen(member.name for member in run.of("servers") if is_behind(run, member.name))


def write_now(run: Run) -> None:
    """Do as `write` right after the rotation: what was read before it says nothing of the new token."""
    run.phase("token", [member.name for member in run.of("servers")], write_host)


def is_behind(run: Run, name: str) -> bool:
    """Return whether a server has another token in its config.yaml than the datastore's data need."""
    plan = run.planned(name)
    return checks.is_stale(plan.desired, plan.facts) and checks.stored(run.facts) == run.cluster.token.fingerprint()


def write_host(task: Task, run: Run) -> Result:
    """Write this server's config.yaml, and restart nothing; no rollback puts the old token back."""
    steps = [step for step in run.planned(task.host.name).by_role["servers"] if step.target == CONFIG]
    return apply_steps(task, run, steps, deadline=run.deadlines["apply"], before="PREVIOUS=$STATE/none\n")


def _read(task: Task, run: Run) -> Result:
    answer = gather.session_of(task, run).run(scripts.show(), what="reading the token", timeout=60)
    with gather.readable(task.host.name):
        return Result(host=task.host, result=scripts.parse(answer.stdout))


def _rotate(task: Task, run: Run) -> Result:
    name = task.host.name
    old = Secret(f"{run.facts[name].server.ca_prefix}::server:{run.cluster.token.reveal()}")
    answer = gather.session_of(task, run).run(
        scripts.rotate(own_url(run.cluster, run.member(name)), old).reveal(),
        what="rotating the token",
        timeout=run.deadlines["apply"],
        secrets=run.cluster.secrets(),
    )
    with gather.readable(name):
        return Result(host=task.host, result=scripts.parse(answer.stdout))


PHASE = Phase("token", "write a rotated token on all servers, before one restarts", write)
