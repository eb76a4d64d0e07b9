"""Rotate the token: K3s makes up a new one on one server, all servers have it written at once, then restart in turn.

Another agent token comes the same way: one server restarts with it first, and the rotation of the token there saves
both in the datastore, from which the others take them (checks/token.py).
"""

from __future__ import annotations

from dataclasses import replace

from nornir_k3s.checks import held
from nornir_k3s.checks import token as checks
from nornir_k3s.errors import K3sError, UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.together import few
from nornir_k3s.phases import datastore, dump, observe, preflight, servers, token, window
from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.phase import Phase
from nornir_k3s.roles import left
from nornir_k3s.run.context import Run
from nornir_k3s.state import tokens
from nornir_k3s.workflows.chain import one_by_one
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.rotation_request import Request


def _begin(run: Run) -> None:
    """Restart one server with another agent token, if none runs with it yet."""
    name = token.first(run)
    if checks.has_other_agent_token(run.cluster, run.facts[name]):
        servers.converge_others(replace(run, limit=frozenset([name])))


PHASES = (
    Phase("dump", "dump the datastore", dump.now),
    Phase("agent-token", "restart one server with another agent token", _begin),
    Phase("rotate", "have K3s make up a new token, on one server", token.rotate),
    datastore.PHASE,  # the name of its user depends on the token
    Phase("token", token.PHASE.summary, token.write_now),
)
AGAIN = "run it again, or deploy: it goes on where this one ended"


def plan(request: Request, *, agent: bool = False) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Arguments:
        agent: Another agent token, too.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    run = request.prepare(artifacts=True)
    return _planned(run, begun=_look(run, agent=agent), agent=agent)


def rotate(request: Request, *, agent: bool = False) -> Report:
    """Rotate the token, or finish a rotation that has begun, by hand or by a run that was killed.

    Arguments:
        agent: Another agent token, too, which the inventory refers to already.

    Raises:
        UsageError: It cannot be rotated now; nothing was changed.
        K3sError: As `deploy` does; the next run, or the next deploy, goes on where it ended.
    """
    run = request.prepare(keep=True, artifacts=True)
    with changing(run, "rotate"):
        begun = _look(run, agent=agent)
        window.require_open(run, run.ready_servers)
        request.require_confirmed(_planned(run, begun=begun, agent=agent))
        if not begun:
            one_by_one(run, PHASES, hint=AGAIN)
        try:
            report = deploy(request.nr, **request.arguments(), choice=request.choice)
        except K3sError as error:
            _note(run, error.report)
            raise
    _note(run, report)
    return report


def _note(run: Run, report: Report | None) -> None:
    """Add what was noted before the deploy to its report: where the dump and the old token are."""
    if report is not None:
        report.notes = list(dict.fromkeys([*run.report.notes, *report.notes]))


def _look(run: Run, *, agent: bool) -> bool:
    """Read all hosts; return whether a rotation has begun, and must be finished before another one.

    Raises:
        UsageError: It cannot be rotated now.
        NotReady: A server that an interrupted run has restarted does not get ready.
        PreflightFailed: A deploy would fail, too.
    """
    before = run.cluster.token
    observe.observe(run)
    observe.find_artifacts(run)
    if agent:
        token.resume(run)
    preflight.check_all_but(run, "agent-token" if agent else "")
    # One that was taken back is that of a rotation which has ended, or of none.
    if (run.cluster.token != before and held.TOKEN not in run.taken) or checks.others(run.cluster, run.facts):
        return True
    if any(token.is_behind(run, member.name) for member in run.of("servers")):
        return True
    if problems := _refusals(run, agent=agent):
        raise UsageError("; ".join(problems), hint="nothing was changed")
    return False


def _refusals(run: Run, *, agent: bool) -> list[str]:
    found = []
    if run.cluster.token_given:
        found.append(
            "`token` of the inventory refers to it: on one server run `k3s token rotate --new-token NEW`, change the"
            " secret where it refers to, then run deploy: it finishes the rotation"
        )
    names = [member.name for member in run.cluster.of("servers")]
    if checks.stored(run.facts) != run.cluster.token.fingerprint():
        found.append("the datastore does not say which token its data are encrypted with: nobody could finish this")
    if lacking := [name for name in names if name not in run.ready_servers]:
        found.append(f"{few(lacking)} {'is' if len(lacking) == 1 else 'are'} not ready: every server must be")
    if gone := [one.name for one in left.members(run.cluster, run.facts) if one.role == "servers"]:
        found.append(f"{few(gone)}: K3s runs there, and would not start again: remove it, or add it to the inventory")
    if agent:
        facts = [run.facts[name] for name in run.ready_servers]
        if not any(checks.has_other_agent_token(run.cluster, one) for one in facts):
            text = "the servers have the agent token of the inventory: change the secret that `agent_token` refers to"
            found.append(text if run.cluster.agent_token else "agents join with the token: nornir-k3s rotate token")
    elif changing := [name for name in run.names if run.planned(name).steps]:
        found.append(f"a deploy would change {few(changing)}: run it first")
    return found


def _planned(run: Run, *, begun: bool, agent: bool) -> Rotation:
    found = Rotation(cluster=run.cluster.name, what="agent-token" if agent else "token")
    nodes, stores = ([m.name for m in run.of(role)] for role in ("servers", "datastore"))
    users = run.cluster.is_managed and run.cluster.managed.kind != "etcd"
    kept = run.store.folder / f"{tokens.NAME}-{run.cluster.token.fingerprint()}"
    if begun:
        found.notes.append("a rotation has begun: this finishes it; run it again to rotate once more")
    else:
        found.add(stores[:1] or ["controller"], dump.announced(run))
        found.add([token.first(run)] if agent else [], "restart k3s.service with the other agent token")
        found.add([token.first(run)], "k3s token rotate: K3s makes up a new token")
        found.add(["controller"], f"save it; {kept} has the old one, for older dumps")
    found.add(stores if users else [], "create a user of the database: its name depends on the token")
    found.add(nodes, "write the token into config.yaml, and restart nothing yet")
    found.add(nodes, "restart k3s.service, one after the other, each out of rotation")
    if agent or not run.cluster.agent_token:
        found.add([m.name for m in run.of("agents")], "write it, restart k3s-agent.service: one first, then batches")
    found.add(stores if users else [], "remove the user of before")
    if text := window.closed(run):
        found.notes.append(f"now K3s would not restart: only in the window {text}")
    return found
