"""Rotate the keys with which secrets are encrypted in the datastore: in stages, each followed by restarts."""

from __future__ import annotations

from collections.abc import Iterator

from nornir_k3s import k3s
from nornir_k3s.checks import encryption as checks
from nornir_k3s.errors import UsageError
from nornir_k3s.model.encryption import FINISHED, PREPARE, ROTATE
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.together import few
from nornir_k3s.phases import encryption, observe, put_back
from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run
from nornir_k3s.workflows.chain import one_by_one
from nornir_k3s.workflows.rotation_request import Request

_STAGES = (PREPARE, ROTATE, FINISHED)
_DONE = {
    PREPARE: "add a new key: k3s secrets-encrypt prepare",
    ROTATE: "encrypt with the new key: k3s secrets-encrypt rotate",
    FINISHED: "encrypt all secrets anew, and drop the old key: k3s secrets-encrypt reencrypt",
}
AGAIN = "run the same command again: it goes on where this one ended"


def plan(request: Request) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    run = request.prepare(artifacts=True)
    _read(run)
    return _planned(run)


def rotate(request: Request) -> Report:
    """Give the cluster a new key of secrets, or end the rotation that was begun.

    Raises:
        UsageError: Secrets are not encrypted, or the keys cannot change now; nothing was changed.
        K3sError: A step failed; the next run goes on from there.
    """
    run = request.prepare(artifacts=True)
    phases = (
        Phase("put-back", "bring back what an earlier run has left out", put_back.put_back),
        Phase("encryption", "prepare, rotate and reencrypt", encryption.rotate),
    )
    with changing(run, "rotate"):
        _read(run)
        request.require_confirmed(_planned(run))
        one_by_one(run, phases, hint=AGAIN)
    run.end()
    return run.report


def _read(run: Run) -> None:
    """Read all hosts, and find what speaks against a rotation.

    Raises:
        UsageError: It is refused.
    """
    if not checks.wanted(run.cluster):
        hint = f"set {checks.SETTING}: true below server in the inventory, and deploy"
        raise UsageError("secrets are not encrypted in this cluster", hint=hint)
    observe.observe(run)
    observe.find_artifacts(run)
    if problems := list(_refusals(run)):
        raise UsageError("; ".join(found for found, _ in problems), hint=problems[0][1])


def _refusals(run: Run) -> Iterator[tuple[str, str]]:
    goal = checks.goal(run.cluster, run.facts)
    if goal == "enable":
        yield "encryption of secrets is not on yet on all servers", "run nornir-k3s deploy"
    waited = {*run.ready_servers, *checks.restarting(run.facts)}
    if unready := [m.name for m in run.cluster.of("servers") if m.name not in waited]:
        yield f"{few(unready)} is not ready: the keys change on all servers", "bring it back, or let it join, first"
        return
    yield from checks.refused(run.cluster, run.facts)
    if not goal:
        unit = k3s.UNITS["server"]
        plans = {member.name: run.planned(member.name) for member in run.of("servers")}
        steps = [(name, step) for name, one in plans.items() for step in (*one.stage, *one.by_role["servers"])]
        if others := sorted({name for name, step in steps if step.target != unit}):
            yield f"{few(others)} is not as the inventory says", "run nornir-k3s deploy first"


def _planned(run: Run) -> Rotation:
    servers = [member.name for member in run.of("servers")]
    lead = checks.lead(run.cluster, run.facts)
    own, found = run.facts[lead].encryption, Rotation(cluster=run.cluster.name, what="encryption")
    goes_on = own.stage in (PREPARE, ROTATE) or bool(own.goal)
    if goes_on:
        found.notes.append(f"a rotation was begun, and goes on from stage {own.stage}")
        found.add([name for name in servers if run.planned(name).starts_k3s], "restart k3s.service")
    later = _STAGES[_STAGES.index(own.stage) + 1 :] if own.stage in _STAGES and not own.begins and goes_on else _STAGES
    for stage in later:
        found.add([lead], _DONE[stage])
        found.add([name for name in servers if stage != FINISHED or name != lead], "restart k3s.service, one by one")
    found.add([CLUSTER], "check that all servers have the same keys")
    return found
