"""The first steps of every workflow: load the cluster, read every host, find the release.

Neither this module nor what it imports can write on a host (import-linter); `status` and `drift` need no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.task import Result, Task

from nornir_k3s import facts
from nornir_k3s.artifacts.source import Source
from nornir_k3s.checks import at_work, upgrade
from nornir_k3s.errors import Busy, HostsDisagree, HostUnreachable, UnreadableAnswer
from nornir_k3s.facts import Fact, Query
from nornir_k3s.facts.database import Database
from nornir_k3s.facts.files import AtWork
from nornir_k3s.facts.held import Held
from nornir_k3s.facts.k3s_server import ClusterLease
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.k3s_facts import BeforeUpgrade
from nornir_k3s.records import RecordError
from nornir_k3s.run import address_probe, membership, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import DEADLINES, WIDTHS, complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.ssh.session import Session, session
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store

ALL = Choice()
_ONCE = ("system_pods", "traefik_values")  # facts of an upgrade that are the same on all servers


def prepare(
    nr: Nornir,
    *,
    base: Path,
    state: Path,
    options: Mapping[str, Any],
    choice: Choice = ALL,
    keep: bool = True,
    drift: bool = False,
    deep: bool = False,
    artifacts: bool = True,
) -> Run:
    """Validate the inventory and the artefacts; no host is contacted.

    Arguments:
        nr, base, state, options, choice: As for `deploy`.
        keep: Save what is generated on the controller.
        drift: Also read the facts that only a drift check needs.
        deep: Hash every large file, even if its size and times are unchanged.
        artifacts: Check `artifacts.folder` now.

    Raises:
        UsageError: The inventory or an option is wrong.
    """
    options = complete(nr, options)
    settings = nr.inventory.defaults.data.get("k3s_cluster")
    name = str(settings.get("name", "cluster")) if isinstance(settings, dict) else "cluster"
    store = Store(state / name, base=base, keep=keep, fresh=options.get("fresh", ()))
    earlier = known_cluster.members(store)
    away = [m for m in earlier if m.name not in nr.inventory.hosts and not options.get("whole")]
    load = partial(membership.load, nr, store, base, options, earlier=earlier, away=away)
    wanted = load()
    known_cluster.stage_members(store, wanted.members)
    known_cluster.stage_left(store, [*wanted.left, *wanted.left_others])
    run = Run(
        nr=nr,
        cluster=wanted,
        source=Source(wanted, Path(options.get("cache") or state / "cache"), deep=deep, compare=drift, check=artifacts),
        store=store,
        deadlines={**DEADLINES, **options.get("deadlines", {})},
        widths={**WIDTHS, **options.get("widths", {})},
        report=membership.report(nr, wanted, away),
        limit=membership.changeable(nr, wanted, choice, away),
        until=choice.until,
        away=frozenset(member.name for member in away),
        drift=drift,
        deep=deep,
        skip_unreachable=choice.skip_unreachable,
        ignore_window=choice.ignore_window,
        trial=choice.trial or wanted.rolling_update.trial or 0,
        renew=float(options.get("renew") or 0),
        new_ca=str(options.get("new_ca") or ""),
        reload=load,
        first=begin,
    )
    run.on_progress = next((p.bytes_done for p in nr.processors if hasattr(p, "bytes_done")), None)
    run.on_step = next((p.host_does for p in nr.processors if hasattr(p, "host_does")), None)
    store.commit(generated=False)
    return run


def gather_facts(run: Run, *, lenient: Collection[str] = ()) -> None:
    """Read every host once; hosts outside the run's limit, and `lenient` ones, may be unreachable."""
    read_all(run, lenient=lenient)
    take_over(run, lenient=lenient)


def read_all(run: Run, *, lenient: Collection[str] = ()) -> None:
    """Read every host once, and no more than that: `take_over` comes next, whoever is down."""
    names, others = run.present, _others(run)
    run.phase("observe", names, gather_host, width=run.widths["stage"], lenient={*others, *lenient}, reads=True)


def begin(run: Run, *, elsewhere: bool = False) -> None:
    """Take back what this controller lacks, as `take_back.begin` does.

    Raises:
        Busy: Hosts do not agree about a secret, because another run is changing it.
        HostsDisagree: They do not, and nobody is at work.
    """
    try:
        take_back.begin(run, read_held, elsewhere=elsewhere)
    except HostsDisagree as error:
        _require_nobody_at_work(run, error)
        take_back.begin(run, read_held, elsewhere=elsewhere)  # the other run may just have ended


def take_over(run: Run, *, lenient: Collection[str] = ()) -> None:
    """Take over what another controller has changed since, and read again what depends on it.

    Raises:
        Busy, HostsDisagree: As `begin`.
    """
    try:
        newer = take_back.renew(run, read_held)
    except HostsDisagree as error:
        _require_nobody_at_work(run, error)
        raise
    if newer:
        may_fail = {*_others(run), *lenient}
        run.phase("observe", list(run.facts), gather_host, width=run.widths["stage"], lenient=may_fail, reads=True)


def _others(run: Run) -> set[str]:
    """Return the hosts that this run must not change."""
    return set(run.present) - set(run.chosen(run.present))


def read_held(run: Run, names: Sequence[str]) -> tuple[Mapping[str, Mapping[str, str]], Sequence[str]]:
    """Return the secrets that these hosts hold, by path (`checks.held` says what they are), and who was not read."""
    found = {name: one.held for name, one in _asked(run, "take back", names, _held).items()}
    return found, [name for name in names if name not in found]


def _asked(run: Run, title: str, names: Sequence[str], task: Callable[[Task, Run], Result]) -> dict[str, HostFacts]:
    """Return what hosts answer to a question beside the reading of all hosts, which tells who is down."""
    notes, unread = list(run.report.notes), dict(run.unread)
    results = run.phase(title, names, task, width=run.widths["stage"], lenient=names, reads=True)
    run.report.notes, run.unread = notes, unread
    return {name: one for name, one in results.items() if isinstance(one, HostFacts)}


def _held(task: Task, run: Run) -> Result:
    try:
        found = read_facts(task, run, [Held(), Database()])
    except HostUnreachable as error:
        run.down[task.host.name] = time.monotonic(), error
        raise
    if found.database.bootstrap:
        run.has_data = True
    return Result(host=task.host, result=found, severity_level=logging.DEBUG)


def _require_nobody_at_work(run: Run, error: HostsDisagree) -> None:
    """Say who is at work on a cluster whose hosts do not agree.

    Raises:
        Busy: Somebody is.
    """
    own = run.lock.owner.id if run.lock else ""
    found = _asked(run, "look who is at work", run.present, _at_work)
    if who := at_work.owners(found, but=own) or at_work.owners(run.facts, but=own):
        hint = "nothing was changed; run it again when that has ended"
        raise Busy(f"{'; '.join(who)}; meanwhile {error.message}", hint=hint) from None


def look_at_lease(run: Run) -> None:
    """Read the Lease too, where a host was not read that may have the lock of a run."""
    if run.away or not set(run.present) <= set(run.facts):
        for name, found in _asked(run, "look who is at work", run.ready_servers, _at_work).items():
            run.facts[name] = replace(run.facts[name], lease=found.lease)


def _at_work(task: Task, run: Run) -> Result:
    found = read_facts(task, run, [AtWork(), ClusterLease()])
    return Result(host=task.host, result=found, severity_level=logging.DEBUG)


def look_at_address(run: Run, *, idle: float = 0) -> None:
    """Ask at the registration address: from here, or from an agent if it cannot be reached from here.

    Arguments:
        idle: Seconds that a connection is kept idle, where someone else's load balancer may end it; 0 for none.
    """
    if not run.ready_servers and run.cluster.registration.way == "vip":
        run.address = address_probe.resolved(run.cluster)  # nobody holds it yet
        return
    others = [member.name for member in run.of("agents") if run.ready_servers and member.name in run.sessions]
    run.address = address_probe.probe(
        run.cluster,
        run.ca_certificate,
        next((run.facts[name].kubeconfig for name in run.ready_servers), ""),
        others={name: run.sessions[name] for name in others[:2]},
        idle=idle if run.cluster.registration.way == "external" else 0,
    )


def look_at_upgrade(run: Run) -> None:
    """Read what matters for another version: of a new minor version from all nodes, and of the pods from one server."""
    asked = run.ready_servers[:1] if upgrade.older(run.cluster, run.facts) else []
    names = [*upgrade.upgraded(run.cluster, run.facts), *asked]
    names = [name for name in dict.fromkeys(names) if name in run.facts]
    others = set(names) - set(run.chosen(names))
    if run.drift:
        return
    run.phase("look at what an upgrade changes", names, _upgrade_facts, lenient=others, reads=True)
    if asked:
        run.before_upgrade = BeforeUpgrade(
            pods=run.facts[asked[0]].system_pods if asked[0] in run.facts else None,
            cordoned=frozenset(node.name for node in upgrade.nodes(run.facts) if not node.schedulable),
        )


def _upgrade_facts(task: Task, run: Run) -> Result:
    name = task.host.name
    minor, asked = name in upgrade.upgraded(run.cluster, run.facts), name == run.ready_servers[0]
    wanted = [fact for fact in facts.FACTS if fact.when == "upgrade" and (asked if fact.name in _ONCE else minor)]
    found = read_facts(task, run, wanted)
    values = {fact.name: getattr(found, fact.name) for fact in wanted}
    run.facts[name] = replace(run.facts[name], **values)
    return Result(host=task.host)


def find_artifacts(run: Run) -> None:
    """Find, download and verify the release for the architectures of the servers and agents."""
    stop = run.stop
    for arch in sorted({run.facts[m.name].system.arch for m in (*run.of("servers"), *run.of("agents"))}):
        run.source.find(arch, on_progress=run.on_progress, stop=stop)


@contextmanager
def readable(host: str) -> Iterator[None]:
    """Turn a RecordError of the parsers inside into an error of this host.

    Raises:
        UnreadableAnswer: The output cannot be parsed.
    """
    try:
        yield
    except RecordError as error:
        raise UnreadableAnswer(host, str(error)) from None


def session_of(task: Task, run: Run) -> Session:
    """Return the connected session of this task's host, and add it to the run."""
    name, deadline = task.host.name, run.deadlines["connect"]
    begin, error = run.down.pop(name, (0.0, None))
    if error and time.monotonic() - begin < deadline:
        raise error  # it was waited for just now
    link = session(task, deadline=deadline)
    run.sessions[name] = link
    return link


def gather_host(task: Task, run: Run) -> Result:
    """Read the facts that the plan needs from this host into the run."""
    name = task.host.name
    query = run.query(name)
    found = run.facts[name] = _gathered(task, run, query)
    if "datastore" in query.member.roles or found.family is not query.family:
        # The paths of its files and its unit may have been unknown: they depend on its packages, which were just read.
        query = run.query(name)
        files = any(one.path not in found.files for one in query.spec.files)
        if files or any(one.name not in found.units for one in query.spec.units):
            found = _gathered(task, run, query)
    if run.cluster.endpoint and run.member(name).role == "servers":
        # Imported here: it loads database clients, which a managed datastore does not need.
        from nornir_k3s.datastore_probe.probe import probe  # noqa: PLC0415 - loads database clients

        found = probe(run.cluster, found, session_of(task, run).transport, test_rights=not run.drift)
    run.facts[name] = found
    return Result(host=task.host, result=found, severity_level=logging.DEBUG)


def _gathered(task: Task, run: Run, query: Query) -> HostFacts:
    script, link = facts.script(query), session_of(task, run)
    received: list[float] = []

    def note_clock(line: str) -> None:
        if not received and line.startswith("@now"):
            received.append(time.time())

    begin = time.time()
    answer = link.run(
        script, what="observing", timeout=run.deadlines["observe"], secrets=run.cluster.secrets(), on_line=note_clock
    )
    found = facts.parse(task.host.name, answer.stdout)
    # The clock is the first line, however long the others take.
    if not received:
        return found
    return replace(found, skew=found.now - (begin + received[0]) / 2, skew_error=(received[0] - begin) / 2)


def read_facts(task: Task, run: Run, wanted: Collection[Fact[Any]], *, timeout: float = 60) -> HostFacts:
    """Return some facts of this host, read now; they are not saved in the run.

    Arguments:
        wanted: The facts to read.
        timeout: Seconds.
    """
    name = task.host.name
    script = facts.script(Query(run.cluster, run.member(name), HostSpec()), wanted)
    answer = session_of(task, run).run(script, what="observing", timeout=timeout, secrets=run.cluster.secrets())
    return facts.parse(name, answer.stdout)
