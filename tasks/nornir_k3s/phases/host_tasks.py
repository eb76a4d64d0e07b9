"""The Nornir tasks that the phases run on each host."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import readiness, rollback
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import CommandFailed, HostError, NotReady
from nornir_k3s.facts import observe
from nornir_k3s.model.host_facts import Observed
from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.model.paths import (
    STATE,
)
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.retry import wait_until
from nornir_k3s.roles import datastore
from nornir_k3s.run import gather, verify
from nornir_k3s.run.context import Run
from nornir_k3s.state import check_certificate

CONNECTION_NAME = "netmiko"


def stage_host(task: Task, run: Run) -> Result:
    """Push artefacts, install packages, run K3s' installer: nothing that runs is touched."""
    name = task.host.name
    steps = run.stage_steps(name)
    link = gather.session_of(task, run)
    for step in steps:
        if isinstance(step.payload, Artifact) and not step.payload.url:
            artifact = step.payload
            link.push(
                artifact.source,
                artifact.path,
                sha256=artifact.sha256,
                mode=artifact.mode,
                timeout=run.deadlines["push"],
            )
    return _apply(task, run, steps, deadline=run.deadlines["packages"])


def converge_host(task: Task, run: Run) -> Result:
    """Make this host's files, units and database right."""
    return _apply(task, run, run.converge_steps(task.host.name), deadline=run.deadlines["apply"])


def tidy_host(task: Task, run: Run) -> Result:
    """Remove what no host needs any more."""
    return _apply(task, run, run.tidy_steps(task.host.name), deadline=run.deadlines["apply"])


def converge_server(task: Task, run: Run) -> Result:
    """Make a server right and wait until it is ready again."""
    name = task.host.name
    seen, todo = run.observed[name], run.converge_steps(name)
    result = _apply(task, run, todo, deadline=run.deadlines["apply"], before=rollback.begin(run.spec(name), seen))
    fresh = observe.parse(name, wait_for_server(task, run) + "\nend")
    same_cluster(run, name, fresh)
    seen.ca_prefix, seen.ca_cert, seen.token = fresh.ca_prefix, fresh.ca_cert, fresh.token
    seen.ready, seen.nodes = True, fresh.nodes
    run.done.add(name)
    return result


def wait_for_server(task: Task, run: Run) -> str:
    """Wait until this server is ready, and return what the waiting script said."""
    return _wait(task, run, partial(readiness.server, run.member(task.host.name).node_name), "server")


def same_cluster(run: Run, name: str, fresh: Observed) -> None:
    """A server whose settings lead elsewhere starts without a word, as a cluster of its own.

    Raises:
        NotReady: It does not list the other servers.
    """
    others = [run.observed[m.name] for m in run.of("servers") if m.name != name]
    known = {run.member(other.host).node_name for other in others if other.ready}
    if fresh.nodes is None:
        return  # it did not answer this one time; the verification at the end asks again
    missing = known - {node.name for node in fresh.nodes}
    if missing:
        raise NotReady(
            name,
            f"it runs, but does not list {', '.join(sorted(missing))}: it uses another datastore than the others",
            hint="look for settings beside ours in /etc/rancher/k3s/config.yaml.d, /etc/default/k3s and the unit",
        )


def converge_agent(task: Task, run: Run) -> Result:
    """Make an agent right and wait until it has joined."""
    result = converge_host(task, run)
    wait_for_agent(task, run)
    return result


def wait_for_agent(task: Task, run: Run) -> str:
    """Wait until this agent has joined."""
    return _wait(task, run, readiness.agent, "agent")


def bootstrap_row(task: Task, run: Run) -> Result:
    """Wait until the datastore holds the cluster's bootstrap data: before that no other server may start."""
    key = k3s.bootstrap_key(run.cluster.token)
    link, member = gather.session_of(task, run), run.member(task.host.name)

    def filled() -> bool:
        answer = link.run(
            observe.SAY + datastore.look(run.cluster, member), what="looking into the datastore", timeout=60
        )
        seen = observe.parse(task.host.name, answer.stdout + "\nend")
        run.observed[task.host.name].database = seen.database
        return any(kind == "bootstrap" and name == key and value != "0" for kind, name, value in seen.database)

    wait_until(
        filled,
        what=f"the datastore holds the bootstrap data {key}",
        host=task.host.name,
        deadline=run.deadlines["verify"],
        stop=link.stop,
    )
    return Result(host=task.host)


def sign_check_certificate(task: Task, run: Run) -> Result:
    """Have the cluster sign the load balancers' health check certificate, and keep it on the controller."""
    csr, key = check_certificate.request()
    answer = gather.session_of(task, run).run(
        check_certificate.sign_script(csr), what="signing the health check certificate", timeout=120
    )
    check_certificate.save(run.store, run.ca_prefix, check_certificate.parse(answer.stdout), key)
    return Result(host=task.host, changed=False)


def verify_host(task: Task, run: Run) -> Result:
    """Ask this host for its part of the proof that the cluster works."""
    role = run.member(task.host.name).role
    if role == "servers":
        script = verify.through_address(run.cluster, run.limit)
    else:
        script = {"agents": verify.to_servers, "lb": verify.vip}[role](run.cluster)
    answer = gather.session_of(task, run).run(script, what="verifying", timeout=90, secrets=run.cluster.secrets())
    return Result(host=task.host, result=verify.parse(answer.stdout))


def _apply(task: Task, run: Run, steps: list[Step], *, deadline: float, before: str = "") -> Result:
    name = task.host.name
    if not steps:
        return Result(host=task.host, changed=False)
    link = gather.session_of(task, run)
    spec = run.spec(name)
    answer = link.run(
        apply.script(steps, spec, before=before).reveal(),
        what="applying",
        timeout=deadline,
        check=False,
        secrets=run.cluster.secrets(),
    )
    changed, kept, failed, journal = apply.parse(answer.stdout)
    run.observed[name].packages |= apply.packages(answer.stdout)
    report = run.report.hosts[name]
    report.changes += changed
    report.kept += [copy for _, copy in kept]
    report.restarts += [s.target for s in steps if s.action in ("start", "restart", "reload") and s.id in changed]
    if answer.status != 0:
        if journal:
            raise NotReady(name, f"{failed} failed", journal=journal, hint=_hint(journal))
        raise CommandFailed(name, failed or "the script", status=answer.status, stderr=answer.stderr)
    shown = "\n".join(step.diff or step.summary for step in steps)
    return Result(host=task.host, changed=bool(changed), diff=shown, result=changed)


def _wait(task: Task, run: Run, script: Callable[[int], str], kind: str) -> str:
    name, until = task.host.name, time.monotonic() + run.deadlines[kind]
    link = gather.session_of(task, run)
    last = readiness.Answer(ready=False, hopeless=False, missing="not looked at", journal="")
    text = ""

    def ready() -> bool:
        nonlocal last, text
        seconds = min(readiness.CHUNK, max(1, math.ceil(until - time.monotonic())))
        text = link.run(script(seconds), what="waiting", timeout=seconds + 60, secrets=run.cluster.secrets()).stdout
        last = readiness.parse(text)
        if last.hopeless:
            raise _not_ready(name, last)
        return last.ready

    try:
        wait_until(ready, what=f"{kind} is ready", host=name, deadline=run.deadlines[kind], stop=link.stop)
    except NotReady:
        raise _not_ready(name, last) from None
    return text


def _not_ready(name: str, answer: readiness.Answer) -> HostError:
    cause = k3s.diagnose(answer.journal)
    what = f"it does not get ready: {answer.missing}" + (f"; {cause.text}" if cause else "")
    return NotReady(name, what, journal=answer.journal, hint=_hint(answer.journal))


def _hint(journal: str) -> str:
    cause = k3s.diagnose(journal)
    return cause.hint if cause else f"see the journal on the host; what was staged lies in {STATE}"
