"""The Nornir tasks that phases run on each host: apply steps, wait until the host is ready."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s import facts, k3s, k3s_journal, shell
from nornir_k3s.apply import readiness, rollback
from nornir_k3s.apply import script as apply
from nornir_k3s.checks.token import has_other_agent_token
from nornir_k3s.errors import CommandFailed, HostError, NotReady, PlanMoved
from nornir_k3s.facts.k3s_server import DirectApi, Kubeconfig, ServerFiles
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.step import Step
from nornir_k3s.retry import wait_until
from nornir_k3s.run import take_back
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of
from nornir_k3s.state import kubeconfig

_CONFIRMED = 0.8  # of a trial; what is left is for the new login that confirms it
SETTLED = 60  # seconds after which an agent is restarted whose node is Ready and whose service is not active


def converge_host(task: Task, run: Run, role: str) -> Result:
    """Bring the files, units and database of this role to their desired state, on this host.

    Files of other roles belong to no change of K3s that may be rolled back.
    """
    steps = run.planned(task.host.name).by_role.get(role, ())
    return apply_steps(task, run, steps, deadline=run.deadlines["apply"], before="PREVIOUS=$STATE/none\n")


def converge_server(task: Task, run: Run) -> Result:
    """Bring a server to its desired state and wait until it is ready."""
    name = task.host.name
    plan = run.planned(name)
    before = rollback.begin(plan.desired, plan.facts, returns=plan.returns, trial=run.trial)
    steps = plan.by_role["servers"]
    if has_other_agent_token(run.cluster, plan.facts) and all(step.target != k3s.PASSWD for step in steps):
        before += shell.call("keep_previous", k3s.PASSWD) + "\n"  # with the other one there, it would not start again
    result = apply_steps(task, run, steps, deadline=run.deadlines["apply"], before=before)
    fresh = wait_for_server(task, run, version=run.cluster.version)
    require_same_cluster(run, name, fresh)
    if run.new_ca not in ("", fresh.server.ca_certificate):
        text = "it has started with the old CA: the datastore does not have the new one"
        raise NotReady(name, text, hint="run `rotate ca` again; see journalctl -u k3s for what it read at its start")
    api = replace(fresh.api, ready=True)
    run.facts[name] = replace(run.facts[name], server=fresh.server, api=api, kubeconfig=fresh.kubeconfig)
    run.done.add(name)
    return result


def wait_for_server(task: Task, run: Run, *, version: str = "") -> HostFacts:
    """Wait until this server is ready; return its files, API and kubeconfig.

    Arguments:
        version: What its node must run; empty for any.
    """
    member = run.member(task.host.name)
    after = facts.script(facts.Query(run.cluster, member, HostSpec()), [ServerFiles(), DirectApi(), Kubeconfig()])

    def script(wait: readiness.Wait) -> str:
        return readiness.server(member.node_name, wait, own_cni=run.cluster.own_cni, version=version) + after

    text, _ = _wait(task, run, script, "server", heard=lambda text: _keep(run, member, text))
    return facts.parse(member.name, text)


def _keep(run: Run, member: Member, text: str) -> None:
    """Save the kubeconfig as soon as a server's API answers, although its node may not be Ready yet.

    One of this cluster stays until verify: its address works, and a new one has not been proved.
    """
    if not run.report.kubeconfig:
        found = facts.parse(member.name, text)
        if found.api.ready and found.kubeconfig and not kubeconfig.has_same_ca(run.store, found.kubeconfig):
            run.keep_kubeconfig(found.kubeconfig)


def require_same_cluster(run: Run, name: str, fresh: HostFacts) -> None:
    """Check that a server lists the other ready servers: with another datastore it starts as a cluster of its own.

    Arguments:
        fresh: Its facts, read after it became ready.

    Raises:
        NotReady: It does not list the other servers.
    """
    others = [other for other in run.ready_servers if other != name]
    listed = {node.name for other in others for node in run.facts[other].api.nodes or ()}  # a node may be deleted
    expected = {run.member(other).node_name for other in others}
    if fresh.api.nodes is None:
        return  # no answer this time; phase verify asks again
    missing = (expected & listed if listed else expected) - {node.name for node in fresh.api.nodes}
    if missing:
        raise NotReady(
            name,
            f"running, but it does not list {', '.join(sorted(missing))}: it uses a different datastore",
            hint="check for other settings in /etc/rancher/k3s/config.yaml.d, /etc/default/k3s and the unit",
        )


def converge_agent(task: Task, run: Run) -> Result:
    """Bring an agent to its desired state and wait until it has joined."""
    plan = run.planned(task.host.name)
    before = rollback.begin(plan.desired, plan.facts, returns=plan.returns, trial=run.trial)
    result = apply_steps(task, run, plan.by_role["agents"], deadline=run.deadlines["apply"], before=before)
    wait_for_agent(task, run, version=run.cluster.version)
    run.done.add(task.host.name)
    return result


def wait_for_agent(task: Task, run: Run, *, version: str = "") -> None:
    """Wait until this agent has joined; its service may still wait for its network policies.

    Arguments:
        version: What its node must run, if the node was Ready when it was read; empty for any.
    """
    name, cluster = task.host.name, run.cluster
    node, was_ready = run.member(name).node_name, run.is_node_ready(name)
    accepts_no_cni = cluster.own_cni if was_ready else cluster.awaits_cni

    def script(wait: readiness.Wait) -> str:
        return readiness.agent(
            wait, node=node, url=cluster.url, awaits_cni=accepts_no_cni, was_ready=was_ready, version=version
        )

    _, awaited = _wait(task, run, script, "agent")
    if awaited:
        run.awaited[name] = time.monotonic()
        run.report.notes.append(f"{name}: its node is Ready; {awaited}")


def settle_agent(task: Task, run: Run) -> Result:
    """Wait until the service of an agent is active, whose node is Ready; restart it once if that takes long.

    A restart makes the kubelet report at once.
    """
    name = task.host.name
    left = max(1, run.awaited[name] + SETTLED - time.monotonic())
    try:
        _wait(task, run, readiness.agent, "agent", limit=left)
    except NotReady:
        unit = k3s.UNITS["agent"]
        session_of(task, run).run(apply.restart(unit), what="restarting", timeout=run.deadlines["apply"])
        run.report.hosts[name].restarts.append(unit)
        _wait(task, run, readiness.agent, "agent")
    del run.awaited[name]
    return Result(host=task.host)


def apply_steps(
    task: Task, run: Run, steps: Sequence[Step], *, deadline: float, before: str = "", spec: HostSpec | None = None
) -> Result:
    """Apply these steps on this host, in one script.

    Arguments:
        deadline: Seconds.
        before: Shell lines that run first.
        spec: The host's desired state; by default that of its plan.

    Raises:
        NotReady: A unit failed; with its journal.
        CommandFailed: Another step failed.
    """
    name = task.host.name
    if not steps:
        return Result(host=task.host, changed=False)
    take_back.require_settled(run)
    _require_allowed(run, name, steps)
    script = apply.script(steps, spec or run.planned(name).desired, before=before)
    answer = session_of(task, run).run(
        script.reveal(),
        what="applying",
        timeout=deadline,
        check=False,
        secrets=run.cluster.secrets(),
        on_line=_follow(run, name, steps),
    )
    with readable(name):
        outcome = apply.parse(answer.stdout)
    if outcome.packages:
        run.facts[name] = replace(run.facts[name], packages={**run.facts[name].packages, **outcome.packages})
    report = run.report.hosts[name]
    report.changes += outcome.changed
    report.kept += outcome.kept
    if outcome.stays:
        run.report.notes.append(f"{name}: {', '.join(outcome.stays)} was not removed: other packages need it")
    report.restarts += [
        s.target for s in steps if s.action in ("start", "restart", "reload") and s.id in outcome.changed
    ]
    if answer.status != 0:
        if outcome.journal:
            cause = k3s_journal.diagnose(outcome.journal)
            hint = _hint(run, name, cause, outcome.journal)
            raise NotReady(name, f"{outcome.failed} failed", journal=outcome.journal, hint=hint)
        raise CommandFailed(name, outcome.failed or "the script", status=answer.status, stderr=answer.stderr)
    shown = "\n".join(step.diff or step.summary for step in steps)
    return Result(host=task.host, changed=bool(outcome.changed), diff=shown, result=list(outcome.changed))


def _require_allowed(run: Run, name: str, steps: Sequence[Step]) -> None:
    """Check that a run which carries out a saved plan does nothing else.

    Raises:
        PlanMoved: A step is not in it.
    """
    if run.allowed is not None and (more := [one for one in steps if f"{name}/{one.id}" not in run.allowed]):
        found = [f"{name}: {one.summary}: this step is not in it" for one in more]
        raise PlanMoved(found, hint="the steps of the plan before it are done: make a new plan, and have it reviewed")


def _follow(run: Run, name: str, steps: Sequence[Step]) -> Callable[[str], None]:
    """Return what hears the script's lines, and tells which step is in progress."""
    left = iter(enumerate(steps, start=1))

    def tell_next() -> None:
        if one := next(left, None):
            run.tell(name, f"{one[1].summary} ({one[0]} of {len(steps)})")

    def heard(line: str) -> None:
        if line.startswith("@did\t"):
            tell_next()

    tell_next()
    return heard


def _left_of_deadline(run: Run, name: str) -> float:
    """Return how many seconds its deadline, or its trial, leaves to a node that was begun; at least one."""
    begin = run.begun.get(name)
    deadline = min(run.cluster.rolling_update.deadline or math.inf, run.trial * _CONFIRMED or math.inf)
    return math.inf if begin is None else max(1, deadline - (time.monotonic() - begin))


def _wait(
    task: Task,
    run: Run,
    script: Callable[[readiness.Wait], str],
    kind: str,
    *,
    heard: Callable[[str], None] = lambda _: None,
    limit: float | None = None,
) -> tuple[str, str]:
    """Return what the host printed at the end, and what its service still waits for."""
    name, begin = task.host.name, time.monotonic()
    limit = limit or min(run.deadlines[kind], _left_of_deadline(run, name))
    link = session_of(task, run)
    datastore = parse(run.cluster.endpoint).hosts if run.cluster.endpoint else ()
    last = readiness.Answer(ready=False, hopeless=False, missing="not checked yet", journal="")
    text = ""

    def ready() -> bool:
        nonlocal last, text
        waited = time.monotonic() - begin
        seconds = min(readiness.CHUNK, max(1, math.ceil(limit - waited)))
        wait = readiness.Wait(seconds, int(waited), datastore)
        text = link.run(script(wait), what="waiting", timeout=seconds + 60, secrets=run.cluster.secrets()).stdout
        with readable(name):
            last = readiness.parse(text)
            heard(text)
        if last.hopeless:
            raise _not_ready(run, name, last, datastore)
        run.tell(name, f"waits for: {last.missing}")
        return last.ready

    run.tell(name, f"waits until the {kind} is ready")
    try:
        wait_until(ready, what=f"{kind} is ready", host=name, deadline=limit, stop=link.stop)
    except NotReady:
        raise _not_ready(run, name, last, datastore) from None
    return text, last.missing


def _not_ready(run: Run, name: str, answer: readiness.Answer, datastore: Sequence[tuple[str, int]]) -> HostError:
    cause = k3s_journal.diagnose(answer.journal, datastore)
    ended = f"it ended {answer.died} times" if answer.died else ""
    why = cause.text if cause else k3s_journal.last_word(answer.journal)
    text = "; ".join(part for part in (answer.missing, ended, why) if part)
    return NotReady(name, f"not ready: {text}", journal=answer.journal, hint=_hint(run, name, cause, answer.journal))


def _hint(run: Run, name: str, cause: k3s_journal.Cause | None, journal: str) -> str:
    if cause:
        return cause.advice(journal, run.member(name).node_name)
    return f"see the journal on the host; staged files are in {STATE}"
