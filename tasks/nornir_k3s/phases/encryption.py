"""Encryption of secrets is turned on or off on a cluster that runs, and its keys rotate, without losing a secret.

At each stage every server reads what all others write (docs.k3s.io `cli/secrets-encrypt.md`). Only while encryption is
turned on, one server has keys that the others do not have yet: they are out of rotation then.
"""

from __future__ import annotations

from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s.apply import encryption as scripts
from nornir_k3s.apply import script as apply
from nornir_k3s.checks import encryption as checks
from nornir_k3s.errors import NotReady, UsageError
from nornir_k3s.model.encryption import DISABLED, ENABLING, ENABLING_AGAIN, PREPARE, ROTATE, ROTATING, START
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.model.together import few
from nornir_k3s.phases import check_certificate, drain, host_tasks, rolling, rotation, running_server
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

_AGAIN = "run the same command again: it goes on where this one ended"
_ROUNDS = 8  # more than any path has


def converge(run: Run) -> None:
    """Bring the keys to what the inventory wants, and end what an earlier run has begun.

    Raises:
        UsageError: It cannot be done with these hosts.
        K3sError: A step failed.
    """
    resume(run)
    goal = checks.goal(run.cluster, run.facts)
    if not goal or not run.chosen(member.name for member in run.of("servers")):
        return
    run = _for_good(run)
    require_possible(run)
    check_certificate.renew_ended(run)
    lead = checks.lead(run.cluster, run.facts)
    match goal:
        case "enable":
            _enable(run, lead)
        case "disable":
            _disable(run, lead)
        case "rotate":
            turn(run, lead)
        case _:
            _do(run, lead, "finish", scripts.finish(match=False))


def resume(run: Run) -> None:
    """Wait for the servers that an interrupted run has restarted just now: their setting may be the one of before.

    Raises:
        NotReady: One does not get ready.
    """
    if names := [name for name in checks.restarting(run.facts) if name in run.nr.inventory.hosts]:
        _for_good(run).phase("servers", names, _wait)
        _read(run)


def _wait(task: Task, run: Run) -> Result:
    """Wait for a server; where only the inventory of now helps it, give it that.

    Raises:
        NotReady: It does not get ready.
    """
    name = task.host.name
    try:
        host_tasks.wait_for_server(task, run)
    except NotReady:
        if not run.chosen([name]) or not run.planned(name).starts_k3s or not _helps(run, name):
            raise
        return rolling.change_for_good(task, run)
    if PREVIOUS in run.facts[name].present:
        rolling.keep_change(task, run)
    return Result(host=task.host)


def _helps(run: Run, name: str) -> bool:
    """Return whether a server that does not get ready may start with the inventory's setting."""
    wanted, own = checks.wanted(run.cluster), run.facts[name].encryption
    if wanted == checks.is_on(run.cluster, run.facts[name]):
        return True
    # Without it, it cannot read what others have written. The keys are its own, or those that `prepare` has saved.
    saved = run.facts[checks.lead(run.cluster, run.facts)].encryption.stage not in ("", START)
    return wanted and (own.goal == ENABLING or saved)


def _for_good(run: Run) -> Run:
    """Return the run without a trial: a server that took its setting back could not read what it has written."""
    return replace(run, trial=0, _planned={}) if run.trial else run


def pending(run: Run) -> bool:
    """Return whether keys change in this run."""
    return bool(checks.goal(run.cluster, run.facts))


def require_possible(run: Run) -> None:
    """Check what the preflight checks, for runs that had none.

    Raises:
        UsageError: The keys cannot change now.
    """
    found = [one for one in checks.check(run.cluster, run.facts, run.limit) if one.severity == "error"]
    if found:
        raise UsageError("; ".join(one.found for one in found), hint=found[0].remedy)


def require_settled(run: Run) -> None:
    """Check that this change of one server changes no keys: that needs all servers.

    Raises:
        UsageError: It would.
    """
    if pending(run):
        text = "encryption of secrets is turned on or off, or its keys rotate: all servers take part in that"
        raise UsageError(text, hint="run deploy")


def rotate(run: Run) -> None:
    """Begin a rotation, or go on with one.

    Raises:
        K3sError: A step failed.
    """
    run = _for_good(run)
    resume(run)
    check_certificate.renew_ended(run)
    lead = checks.lead(run.cluster, run.facts)
    if not run.facts[lead].encryption.goal:
        staged = run.facts[lead].encryption.stage in (PREPARE, ROTATE)
        # Where somebody has begun, it only goes on.
        _do(run, lead, "note", scripts.noted(f"{ROTATING} -" if staged else ROTATING))
    turn(run, lead)


def turn(run: Run, lead: str) -> None:
    """Prepare, rotate and reencrypt, each followed by restarts, from where the keys are.

    Raises:
        K3sError: A step failed.
    """
    for _ in range(_ROUNDS):
        _restart(run, lead)
        own = run.facts[lead].encryption
        if own.goal == ENABLING_AGAIN:  # again, if a run was killed before it had noted that it is done
            _do(run, lead, "enable", scripts.enable())
        elif own.stage == PREPARE:
            _do(run, lead, "rotate", scripts.rotate())
        elif own.stage == ROTATE:
            _do(run, lead, "reencrypt", scripts.reencrypt())
        elif own.begins:
            _do(run, lead, "prepare", scripts.prepare(""))
        else:
            _do(run, lead, "finish", scripts.finish(match=True))
            return
    text = f"its keys of secrets are still at stage {run.facts[lead].encryption.stage}"
    raise NotReady(lead, text, hint="see k3s secrets-encrypt status on all servers")


def _enable(run: Run, lead: str) -> None:
    """Turn it on: one server makes keys and saves them with `prepare`; the others get these when they start."""
    goal = ENABLING_AGAIN if run.facts[lead].encryption.disabled else ENABLING
    if run.facts[lead].encryption.goal not in (goal, ENABLING_AGAIN):
        _do(run, lead, "note", scripts.noted(goal))
    if run.facts[lead].encryption.goal == ENABLING:
        _first_keys(run, lead)
    turn(run, lead)


def _first_keys(run: Run, lead: str) -> None:
    if not run.facts[lead].encryption.sha256 or not checks.is_on(run.cluster, run.facts[lead]):
        running_server.change(run, lead)
        _read(run)
    others = [name for name in _servers(run) if name != lead and not _is_settled(run, name)]
    with rotation.others_out(run, others) as come_back:
        _do(run, lead, "prepare", scripts.prepare(""))
        for name in others:  # also when the window closes meanwhile: without the keys they cannot read what is written
            rotation.require_others(run, name)
            with drain.drained(run, [name]):
                run.phase("servers", [name], rolling.change_for_good, width=1)
            come_back(name)
    _read(run)


def _disable(run: Run, lead: str) -> None:
    """Turn it off: all secrets are stored as they are while the servers still have the keys, then the setting goes."""
    on = {**run.cluster.server, checks.SETTING: True}
    kept = replace(run, cluster=replace(run.cluster, server=on), _planned={})
    if run.facts[lead].encryption.goal != DISABLED:
        _do(run, lead, "disable", scripts.disable())
        _restart(kept, lead)
        _do(run, lead, "decrypt", scripts.decrypt())
    _restart(run, lead)
    _do(run, lead, "finish", scripts.finish(match=False))


def _servers(run: Run) -> list[str]:
    return [member.name for member in checks.running(run.cluster, run.facts)]


def _is_settled(run: Run, name: str) -> bool:
    return not run.planned(name).starts_k3s


def _restart(run: Run, lead: str) -> None:
    """Restart the servers that have not read the keys yet, or have another setting: the first one first."""
    _read(run)
    for name in [lead, *(name for name in _servers(run) if name != lead)]:
        if not _is_settled(run, name):
            running_server.change(run, name)
            _read(run)


def _read(run: Run) -> None:
    run.phase("observe", [member.name for member in run.of("servers")], gather.gather_host, reads=True)


def _do(run: Run, lead: str, what: str, script: str) -> None:
    """Run one of the scripts on this server, and read it again.

    Raises:
        NotReady: K3s refuses it; with the reason from its journal.
    """

    def ask(task: Task, run: Run) -> Result:
        link = gather.session_of(task, run)
        run.tell(lead, f"k3s secrets-encrypt: {what}")
        answer = link.run(script, what=f"secrets-encrypt {what}", timeout=scripts.REENCRYPTION + 600, check=False)
        with gather.readable(lead):
            outcome = apply.parse(answer.stdout)
        if answer.status:
            said = " ".join(answer.stderr.split()) or f"exit status {answer.status}"
            raise NotReady(lead, f"k3s secrets-encrypt {what} failed: {said}", hint=_AGAIN)
        run.report.hosts[lead].changes += outcome.changed
        return Result(host=task.host, changed=bool(outcome.changed))

    run.phase("encryption", [lead], ask)
    run.phase("observe", [lead], gather.gather_host, reads=True)


def announced(run: Run) -> list[str]:
    """Return what a plan says of servers that would leave the rotation together."""
    if checks.goal(run.cluster, run.facts) != "enable":
        return []
    lead = checks.lead(run.cluster, run.facts)
    if run.facts[lead].encryption.disabled:
        return []
    others = [name for name in _servers(run) if name != lead]
    return [f"{few(others)} would be out of rotation until each has the keys that {lead} makes"] if others else []
