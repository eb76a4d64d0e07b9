"""Phases of a reset: K3s, load balancers and, if that is asked for, the datastore go from their hosts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nornir.core.task import Result, Task

from nornir_k3s import facts
from nornir_k3s.facts import Fact, Query
from nornir_k3s.facts.database import Database
from nornir_k3s.facts.files import AtWork
from nornir_k3s.facts.k3s_node import AgentCA
from nornir_k3s.facts.k3s_server import ServerFiles
from nornir_k3s.facts.made import Holds, MadeByUs, OtherClusters
from nornir_k3s.facts.system import Distribution, System
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.family import DEBIAN, Family
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.step import Step
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of

Steps = Mapping[str, Sequence[Step]]


def read_host(task: Task, run: Run) -> Result:
    """Read what this tool has put on this host, whatever works there, into the run."""
    first = _read(task, run, (AtWork(), System(), Distribution()), DEBIAN)  # the lock compares what was read
    wanted: list[Fact[Any]] = [MadeByUs(), ServerFiles(), AgentCA()]
    if run.cluster.is_managed:
        wanted += [Database(), Holds(), OtherClusters()]
    found = _read(task, run, wanted, first.family)
    run.facts[task.host.name] = replace(found, work=first.work, system=first.system, distribution=first.distribution)
    return Result(host=task.host)


def _read(task: Task, run: Run, wanted: Sequence[Fact[Any]], family: Family) -> HostFacts:
    name = task.host.name
    script = facts.script(Query(run.cluster, run.member(name), HostSpec(), family=family), wanted)
    answer = session_of(task, run).run(
        script, what="observing", timeout=run.deadlines["observe"], secrets=run.cluster.secrets()
    )
    with readable(name):
        return facts.parse(name, answer.stdout)


def phases(run: Run, hosts: Steps, data: Steps) -> tuple[Phase, ...]:
    """Return the phases, in order; each may be killed and run again.

    Arguments:
        hosts: The steps of each host without its datastore.
        data: Those of the datastore; empty if it stays.
    """
    nodes = [name for name in hosts if set(run.member(name).roles) & set(NODES)]
    others = [name for name in hosts if name not in nodes]
    return (
        _phase("k3s", "uninstall K3s, and remove what this tool has put on its hosts", nodes, hosts),
        _phase("load-balancers", "remove HAProxy and keepalived", others, hosts),
        _phase("datastore", "remove the datastore", list(data), data),
    )


def apply_to_host(task: Task, run: Run, steps: Sequence[Step]) -> Result:
    """Apply these steps on this host."""
    return apply_steps(task, run, steps, deadline=run.deadlines["packages"], spec=HostSpec())


def _phase(name: str, title: str, names: Collection[str], steps: Steps) -> Phase:
    def on_host(task: Task, run: Run) -> Result:
        return apply_to_host(task, run, steps[task.host.name])

    def on_all(run: Run) -> None:
        run.phase(name, [one for one in names if steps[one]], on_host, width=run.widths["stage"])

    return Phase(name, title, on_all)
