"""A server that restarts leaves the rotation of every load balancer first; nothing restarts while another is away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from nornir.core.task import Result, Task

from nornir_k3s.apply import rotation as scripts
from nornir_k3s.errors import HostError, K3sError, NotReady
from nornir_k3s.facts.k3s_server import DirectApi
from nornir_k3s.model.together import few
from nornir_k3s.retry import wait_until
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, readable, session_of

OTHERS = 60.0  # seconds to wait until all other servers are ready
SESSIONS = 5  # seconds to wait for the sessions of a server: a watch that goes on is ended by its restart
REQUESTS = 30  # seconds for those that have just begun: on a busy server, each may be one request


@contextmanager
def out_of_rotation(run: Run, name: str) -> Iterator[None]:
    """Take a ready server out of rotation while it is changed, if that restarts K3s.

    Raises:
        NotReady: Another server is not ready, or a load balancer does not see this one up again.
    """
    if not run.planned(name).starts_k3s or not run.facts[name].ready:
        yield
        return
    require_others(run, name)
    several = len(run.cluster.of("servers")) > 1
    if several and (unseen := [member.name for member in run.cluster.of("lb") if member.name in run.away]):
        text = f"{name} restarts without leaving the rotation of {few(unseen)}, which this inventory does not have"
        run.report.notes.append(text)
    with leaving(run, name, _balancers(run) if several else []):
        yield


@contextmanager
def leaving(run: Run, name: str, balancers: Sequence[str]) -> Iterator[None]:
    """Take a server out of rotation meanwhile.

    Arguments:
        balancers: The load balancers whose HAProxy runs.

    Raises:
        NotReady: A load balancer does not see it up again.
    """
    try:
        run.phase("out of rotation", balancers, _leaving(run, name))
        yield
    except BaseException:
        with suppress(K3sError, KeyboardInterrupt):  # the load balancers' own timers do it
            bring_back(run.not_stopped(balancers), name, balancers)
        raise
    run.phase("back in rotation", balancers, _coming_back(run, name, seconds=math.ceil(run.deadlines["verify"])))


@contextmanager
def others_out(run: Run, names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Take several servers out of rotation together, while one that is not among them serves alone.

    Yields:
        What brings one of them back, and waits until it is up.

    Raises:
        NotReady: A load balancer does not see one up again.
    """
    balancers, out = _balancers(run), list(names)

    def come_back(name: str) -> None:
        out.remove(name)
        run.phase("back in rotation", balancers, _coming_back(run, name, seconds=math.ceil(run.deadlines["verify"])))

    try:
        for name in names:
            run.phase("out of rotation", balancers, _leaving(run, name, together=names))
        yield come_back
    except BaseException:
        for name in out:
            with suppress(K3sError, KeyboardInterrupt):  # the load balancers' own timers do it
                bring_back(run.not_stopped(balancers), name, balancers)
        raise


def bring_back(run: Run, name: str, balancers: Sequence[str]) -> None:
    """Bring a server back into rotation, and do not wait until it is up.

    Raises:
        K3sError: A load balancer does not do it.
    """
    run.phase("back in rotation", balancers, _coming_back(run, name, seconds=0))


def bring_all_back(run: Run) -> None:
    """Bring the servers back which an interrupted run has taken out, before this run can fail.

    One that is not up yet gets no connection: HAProxy checks it.

    Raises:
        K3sError: A load balancer does not do it.
    """
    for member in run.of("servers"):
        balancers = [name for name in _balancers(run) if member.node_name in run.facts[name].ledger.drained]
        if balancers:
            bring_back(run, member.name, balancers)


def _balancers(run: Run) -> list[str]:
    return [m.name for m in run.of("lb") if run.facts[m.name].unit("haproxy.service").active == "active"]


def require_others(run: Run, name: str) -> None:
    """Wait until all other servers are ready: one restarts, and two are never away.

    Raises:
        NotReady: One is not ready, also after a minute: a datastore that has just restarted is well by then.
    """
    others = [m.name for m in run.cluster.of("servers") if m.name != name]
    read, away = [other for other in others if other in run.facts], list(others)

    def all_ready() -> bool:
        answers = run.phase("servers", read, _ready, reads=True)
        away[:] = [other for other in others if not answers.get(other)]
        return not away or len(read) < len(others)

    stop = run.stop
    with suppress(NotReady):
        wait_until(all_ready, what="all others are ready", host=name, deadline=OTHERS, stop=stop)
    if away:
        text = f"not restarted, because {', '.join(sorted(away))} is not ready: two servers are never away"
        raise NotReady(name, text, hint="bring the others back first, then run deploy again: it resumes")


def _ready(task: Task, run: Run) -> Result:
    return Result(host=task.host, result=read_facts(task, run, [DirectApi()]).ready)


def _leaving(run: Run, name: str, together: Sequence[str] = ()) -> Callable[[Task, Run], Result]:
    server = run.member(name).node_name
    others = [run.member(other).node_name for other in together]
    after = math.ceil(run.deadlines["server"] + 2 * run.deadlines["apply"]) * max(1, len(others))

    def leave(task: Task, run: Run) -> Result:
        link = session_of(task, run)
        answer = link.run(
            scripts.leave(server, sessions=SESSIONS, requests=REQUESTS, after=after, together=others),
            what=f"taking {server} out of rotation",
            timeout=REQUESTS + 60,
        )
        with readable(task.host.name):
            state, left = scripts.parse(answer.stdout)
        return Result(host=task.host, result=(state, left))

    return leave


def _coming_back(run: Run, name: str, *, seconds: int) -> Callable[[Task, Run], Result]:
    server = run.member(name).node_name

    def come_back(task: Task, run: Run) -> Result:
        answer = session_of(task, run).run(
            scripts.come_back(server, seconds=seconds), what=f"bringing {server} back", timeout=seconds + 60
        )
        with readable(task.host.name):
            state, _ = scripts.parse(answer.stdout)
        if seconds and state not in ("up", "away"):
            raise _not_up(task.host.name, server, state)
        return Result(host=task.host, result=state)

    return come_back


def _not_up(host: str, server: str, state: str) -> HostError:
    text = f"HAProxy does not see server {server} up again: {state}"
    return NotReady(host, text, hint=f"check the network from {host} to {server}, then run deploy again: it resumes")
