"""Nodes are drained before K3s is replaced on them, and get pods again when they are ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import drain as scripts
from nornir_k3s.errors import K3sError, NotReady
from nornir_k3s.host_steps import replaces_binary
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.rolling_update import Drain
from nornir_k3s.model.together import few
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of

_HINT = "see what keeps its pods (a PodDisruptionBudget, pods without controller), or change rolling_update.drain"
_KEEPS_PODS_AWAY = ("NoSchedule", "NoExecute")


def wanted(run: Run, names: Sequence[str]) -> list[str]:
    """Return those of these servers or agents that are drained before they are changed."""
    return [name for name in names if _is_drained(run, name)]


def _is_drained(run: Run, name: str) -> bool:
    """Return whether a node that works is drained: by the settings of its group, or by their defaults.

    By default agents are, before K3s is replaced; servers that take pods are before another minor version, where their
    pods can go to another node. Source: kubernetes.io, version skew policy: drain before a minor kubelet upgrade.
    """
    node, facts, plan = run.node(name), run.facts[name], run.planned(name)
    if node is None or not facts.in_service or not run.of("servers"):
        return False
    settings, role = _settings(run, name), run.member(name).role
    if not replaces_binary(plan.desired, plan.facts):
        return settings.every_restart and settings.enabled is not False and plan.starts_k3s
    if settings.enabled is not None or role == "agents":
        return settings.enabled is not False
    others = [one for one in run.nodes() if one.name != node.name]
    return takes_pods(node) and not k3s.same_minor(node.version, run.cluster.version) and any(map(_is_free, others))


def takes_pods(node: NodeState) -> bool:
    """Return whether pods without tolerations may run on a node: it has no taint of a person."""
    taints = [one for one in node.taints if not one.startswith("node.kubernetes.io/")]
    return not any(one.endswith(f":{effect}") for one in taints for effect in _KEEPS_PODS_AWAY)


def _is_free(node: NodeState) -> bool:
    return node.ready and node.schedulable and takes_pods(node)


def _settings(run: Run, name: str) -> Drain:
    return run.cluster.rolling_update.drain.of(run.member(name).role)


def left_cordoned(run: Run) -> list[str]:
    """Return servers and agents that work, and that an earlier run has cordoned, as they or their nodes say."""
    return [name for name in _cordoned(run) if run.facts[name].in_service or name in run.done]


def _cordoned(run: Run) -> list[str]:
    begun = run.uncordoned | run.draining
    names = [m.name for role in NODES for m in run.of(role) if m.name not in begun]
    return [name for name in names if run.facts[name].ledger.cordoned or ((node := run.node(name)) and node.ours)]


def put_back(run: Run) -> None:
    """Uncordon what an earlier run has cordoned and that works, also where this run may change other hosts only."""
    left = left_cordoned(run)
    if left and not run.ready_servers:
        text = f"cordoned by an earlier run, and no server answers: {few(left)}; a deploy uncordons it when one does"
        run.report.notes += [text] if text not in run.report.notes else []
        return
    release(run, left)


@contextmanager
def drained(run: Run, names: Sequence[str]) -> Iterator[list[str]]:
    """Drain these servers or agents meanwhile, as far as that is wanted; yield those that may be changed.

    The run goes on without agents that cannot be drained: they are uncordoned, and not touched.

    Raises:
        NotReady: A server cannot be drained.
    """
    moving = wanted(run, names)
    if not moving:
        yield list(names)
        return
    run.draining.update(moving)
    run.begun.update(dict.fromkeys(moving, time.monotonic()))
    try:
        run.phase("drain", moving, _note, spare=run.agents(moving))
        _drain(run, [name for name in moving if name not in run.left_out])
        yield [name for name in names if name not in run.left_out]
    except BaseException:
        with suppress(K3sError, KeyboardInterrupt):  # the next run does it
            release(run.not_stopped(), _work_again(run, moving))
        raise
    release(run, _work_again(run, moving))


def _drain(run: Run, names: Sequence[str]) -> None:
    if not names:
        return
    settings = _settings(run, names[0])
    if limit := run.cluster.rolling_update.deadline:
        settings = settings.model_copy(update={"timeout": min(settings.timeout, limit)})
    script = scripts.drain([run.member(name).node_name for name in names], settings)
    found = _on_server(run, "drain", names, script, settings.timeout + 120)
    failed = {name: why for name, why in found.items() if why}
    release(run, list(failed))  # they are uncordoned already, and still say that they are not
    for name, why in failed.items():
        lines = "\n".join("    " + line for line in why.strip().splitlines())
        error = NotReady(name, f"not touched, because its node could not be drained\n{lines}", hint=_HINT)
        if run.member(name).role == "servers":
            raise error
        run.go_on_without(name, error)


def release(run: Run, names: Sequence[str]) -> None:
    """Uncordon those of these servers and agents that this tool has cordoned; the run fails in the end if it cannot."""
    if not names:
        return
    script = scripts.release([run.member(name).node_name for name in names])
    try:
        failed = {name: why for name, why in _on_server(run, "uncordon", names, script, 300).items() if why}
    except NotReady as error:
        failed = dict.fromkeys(names, error.message)
    done = [name for name in names if name not in failed]
    run.uncordoned.update(done)
    run.still_cordoned = {name: error for name, error in run.still_cordoned.items() if name not in done}
    run.phase("uncordon", [name for name in done if name in run.facts], _forget, lenient=done)
    hint = "run deploy again: it uncordons the node as soon as the API answers"
    for name, why in failed.items():
        text = f"its node is still cordoned: {why.strip().removeprefix(f'{name}: ')}"
        run.still_cordoned[name] = NotReady(name, text, hint=hint)


def empty(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Drain the nodes of hosts that leave; return by host why it failed, or nothing. A failed one is uncordoned.

    Raises:
        K3sError: The server cannot be asked.
    """
    found: dict[str, str] = {}
    for role in NODES:
        if same := [name for name in names if run.member(name).role == role]:
            settings = _settings(run, same[0])
            script = scripts.drain([run.member(name).node_name for name in same], settings)
            found |= _on_server(run, "drain", same, script, settings.timeout + 120)
    return found


def _work_again(run: Run, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in run.ready_again or not run.report.hosts[name].error]


def _on_server(run: Run, what: str, names: Sequence[str], script: str, timeout: float) -> Mapping[str, str]:
    """Run a script for the nodes of these hosts on a server whose API answers; return by host why it failed.

    Raises:
        NotReady: The API answers on none.
    """
    nodes = {run.member(name).node_name: name for name in names}
    servers = sorted(run.ready_servers, key=lambda server: server in names)
    for server in servers:
        found: Mapping[str, str] | None = run.phase(what, [server], _runs(what, script, timeout), width=1)[server]
        if found is not None:
            return {nodes[node]: why for node, why in found.items()}
    asked = f"of {few(servers)} " if servers else ""
    raise NotReady(names[0], f"kubectl {what}: the API {asked}does not answer", hint="run deploy again: it resumes")


def _runs(what: str, script: str, timeout: float) -> Callable[[Task, Run], Result]:
    def run_script(task: Task, run: Run) -> Result:
        answer = session_of(task, run).run(script, what=f"kubectl {what}", timeout=timeout)
        with readable(task.host.name):
            found = scripts.parse(answer.stdout)
        return Result(host=task.host, result=found)

    return run_script


def _note(task: Task, run: Run) -> Result:
    """Note on this host that its node is being cordoned, for a run that cannot ask the API."""
    session_of(task, run).run(scripts.note(), what="noting the cordon", timeout=60)
    return Result(host=task.host)


def _forget(task: Task, run: Run) -> Result:
    session_of(task, run).run(scripts.forget(), what="removing the note of the cordon", timeout=60)
    return Result(host=task.host)
