"""What every workflow begins with: load the cluster, read every host, find the release.

Nothing here, and nothing it imports, can write on a host (import-linter). `status` and `drift` need no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s import facts
from nornir_k3s.artifacts import source as artifacts
from nornir_k3s.errors import UnreadableAnswer
from nornir_k3s.facts import Fact, Query
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.report import HostReport, Report
from nornir_k3s.records import RecordError
from nornir_k3s.run.context import DEADLINES, WIDTHS, Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.ssh.session import Session, session
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store

EVERYTHING = Choice()


def prepare(
    nr: Nornir,
    *,
    base: Path,
    state: Path,
    options: Mapping[str, Any],
    choice: Choice = EVERYTHING,
    keep: bool = True,
    drift: bool = False,
    deep: bool = False,
) -> Run:
    """Validate the inventory and the artefacts; no host is contacted.

    Arguments:
        nr, base, state, options, choice: As `deploy` takes them.
        keep: Write what was generated on the controller.
        drift: Hosts are asked for what only drift compares, too.
        deep: Hash every large file, also those that look as they did when they were hashed.
    """
    settings = nr.inventory.defaults.data.get("k3s_cluster")
    name = str(settings.get("name", "cluster")) if isinstance(settings, dict) else "cluster"
    store = Store(state / name, base=base, keep=keep)
    away = [m for m in known_cluster.members(store) if m.name not in nr.inventory.hosts and not options.get("whole")]
    wanted = cluster.load(nr.inventory, store=store, base=base, sources=options.get("sources"), away=away)
    # In the order of the last deploy: a load balancer's priority is its place.
    order = {member.name: place for place, member in enumerate(known_cluster.members(store))}
    if away:
        wanted = replace(wanted, members=tuple(sorted(wanted.members, key=lambda m: order.get(m.name, len(order)))))
    known_cluster.stage_members(store, wanted.members)
    report = Report(cluster=wanted.name, version=wanted.version, url=wanted.url)
    report.hosts = {m.name: HostReport(role=m.role) for m in wanted.members if m.name in nr.inventory.hosts}
    if away:
        names = ", ".join(member.name for member in away)
        report.notes.append(
            f"left out: {names}: this Nornir does not have them, the last deploy had (`whole=True`: gone)"
        )
    run = Run(
        nr,
        wanted,
        artifacts.Source(wanted, Path(options.get("cache") or state / "cache"), deep=deep, compare=drift),
        store,
        deadlines={**DEADLINES, **options.get("deadlines", {})},
        widths={**WIDTHS, **options.get("widths", {})},
        report=report,
        limit=_limit(nr, wanted, choice, away),
        away=frozenset(member.name for member in away),
        drift=drift,
        deep=deep,
    )
    run.on_progress = next((p.bytes_done for p in nr.processors if hasattr(p, "bytes_done")), None)
    store.commit()
    return run


def _limit(nr: Nornir, wanted: Cluster, choice: Choice, away: Sequence[Member]) -> frozenset[str] | None:
    limit = choice.hosts(nr, wanted)
    if not away:
        return limit
    present = frozenset(member.name for member in wanted.members if member.name in nr.inventory.hosts)
    return present if limit is None else limit & present


def gather_facts(run: Run, *, lenient: Collection[str] = ()) -> None:
    """Read every host once; those that the run is not about, and `lenient` ones, may be away."""
    names = run.present
    others = set(names) - set(run.chosen(names))
    run.phase("observe", names, gather_host, width=run.widths["stage"], lenient={*others, *lenient})


def find_artifacts(run: Run) -> None:
    """Have on the controller, verified, what the architectures of the servers and agents need."""
    stop = getattr(run.nr.runner, "stop", None)
    for arch in sorted({run.facts[m.name].system.arch for m in (*run.of("servers"), *run.of("agents"))}):
        run.source.find(arch, on_progress=run.on_progress, stop=stop)


@contextmanager
def readable(host: str) -> Iterator[None]:
    """Tell an answer that cannot be read as a problem of its host.

    Raises:
        UnreadableAnswer: What is read within is not what the script prints.
    """
    try:
        yield
    except RecordError as error:
        raise UnreadableAnswer(host, str(error)) from None


def session_of(task: Task, run: Run) -> Session:
    """Return the connected session of this task's host, counted in the run."""
    link = session(task, deadline=run.deadlines["connect"])
    run.sessions[task.host.name] = link
    return link


def gather_host(task: Task, run: Run) -> Result:
    """Read everything the plan needs from this host, and keep it in the run."""
    name = task.host.name
    found = run.facts[name] = _gathered(task, run)
    if any(file.path not in found.files for file in run.query(name).spec.files):
        # Where its files lie was not known before: they are named after the version of a package.
        found = _gathered(task, run)
    if run.cluster.endpoint and run.member(name).role == "servers":
        # Imported here: database clients, which a managed datastore needs none of.
        from nornir_k3s.datastore_probe.probe import probe  # noqa: PLC0415

        found = probe(run.cluster, found, session_of(task, run).transport, test_rights=not run.drift)
    run.facts[name] = found
    return Result(host=task.host, result=found, severity_level=logging.DEBUG)


def _gathered(task: Task, run: Run) -> HostFacts:
    script, link = facts.script(run.query(task.host.name)), session_of(task, run)
    came: list[float] = []

    def note(line: str) -> None:
        if not came and line.startswith("@now"):
            came.append(time.time())

    begin = time.time()
    answer = link.run(
        script, what="observing", timeout=run.deadlines["observe"], secrets=run.cluster.secrets(), on_line=note
    )
    found = facts.parse(task.host.name, answer.stdout)
    # Its clock was its first line, however long the others took.
    return replace(found, skew=found.now - (begin + came[0]) / 2) if came else found


def ask(task: Task, run: Run, asked: Collection[Fact[Any]], *, before: str = "", timeout: float = 60) -> HostFacts:
    """Return some facts of this host, read now; they are not kept in the run.

    Arguments:
        asked: Which ones.
        before: Lines of shell that come first.
        timeout: Seconds.
    """
    name = task.host.name
    script = before + facts.script(Query(run.cluster, run.member(name), HostSpec()), asked)
    answer = session_of(task, run).run(script, what="observing", timeout=timeout, secrets=run.cluster.secrets())
    return facts.parse(name, answer.stdout)
