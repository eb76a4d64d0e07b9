"""drift: reports differences between the cluster and its inventory, and changes nothing.

It reads what a deploy reads, plans what a deploy would do, and reports that together with the state of the running
cluster. No module that it imports can write on a host (import-linter).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.checks import at_work
from nornir_k3s.compare import backup, certificate_expiry, compare, datastore, kubeconfig, load_balancers, passing
from nornir_k3s.errors import Busy
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.drift_report import DriftReport, HostState
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.kubeconfig import KubeconfigAnswer
from nornir_k3s.report.history import History
from nornir_k3s.roles import left
from nornir_k3s.run import gather, kubeconfig_probe, paths, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backups, locks, revision

# Maximum seconds: a check that a timer starts does not wait as long as a deploy for a host that is down.
CONNECT, OBSERVE = 20.0, 60.0
_NOTES = ("left out", take_back.NOTE)  # those of a run that are told
SETTLE = 2.0  # seconds until what may be passing is read again: keepalived has moved the VIP by then


def drift(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
    deep: bool = False,
    history: bool = True,
) -> DriftReport:
    """Return the differences between the hosts and the inventory; no host is changed.

    Arguments:
        nr: A Nornir whose inventory describes the cluster.
        base: The folder that relative paths of the inventory start from; the inventory's folder by default.
        state: The folder on the controller for secrets, the kubeconfig and the history; by default that
            of `user_defined.k3s` in config.yaml, or `.state`.
        options: As for `deploy`, and `limits` (a `Limits` or a mapping) and `keep_runs`.
        choice: Its `limit` names the hosts to compare; all of them by default.
        deep: Hash every large file, even if its size and times are unchanged.
        history: Compare with the run before and save this one, unless only some hosts are compared.

    Returns:
        The report. Hosts that could not be read are part of it.

    Raises:
        UsageError: The inventory or an option is wrong.
        Busy: A deploy, or another drift check, of this cluster is in progress.
    """
    options, choice, folders = complete(nr, options), choice or Choice(), paths.of(nr, base, state)
    limits = Limits.model_validate(options.get("limits") or {})
    given = options.get("deadlines", {})
    short = {
        "connect": min(CONNECT, given.get("connect", CONNECT)),
        "observe": min(OBSERVE, given.get("observe", OBSERVE)),
    }
    options["deadlines"] = {**given, **short}
    run = gather.prepare(
        nr, base=folders.base, state=folders.state, options=options, choice=choice, keep=False, drift=True, deep=deep
    )
    runs = History(run.store.folder / "drift", keep=int(options.get("keep_runs") or 0) or None)
    with locks.drift_lock(run.store.folder):
        begin = time.monotonic()
        report = DriftReport(cluster=run.cluster.name, version=run.cluster.version, url=run.cluster.url)
        _read(run, report, limits)
        report.seconds = round(time.monotonic() - begin, 3)
    if history and run.limit is None:  # a check of some hosts cannot be compared with others
        runs.compare(report)
        runs.add(report)
    return report


def _read(run: Run, report: DriftReport, limits: Limits) -> None:
    path, idle = run.store.folder / "kubeconfig", limits.idle_seconds if run.deep else 0
    names = run.present
    with ThreadPoolExecutor(1, thread_name_prefix="kubeconfig") as pool:
        asked = pool.submit(kubeconfig_probe.probe, path)
        gather.gather_facts(run, lenient=names)
        gather.look_at_lease(run)
        gather.look_at_address(run, idle=idle)
        gather.find_artifacts(run)
    answer = asked.result()
    if answer.error and run.report.kubeconfig:  # it was taken back meanwhile
        answer = kubeconfig_probe.probe(path)
    _no_deploy(run)
    found = _compared(run, answer, limits)
    if again := passing.hosts(run.cluster, run.facts, found):
        time.sleep(SETTLE)
        run.phase(
            "look again", [name for name in names if name in again], gather.gather_host, lenient=names, reads=True
        )
        if passing.CONTROLLER in again:
            answer = kubeconfig_probe.probe(path)
            gather.look_at_address(run, idle=idle)
        _no_deploy(run)
        found = _compared(run, answer, limits)
    revision.save(run.store, run.revision())
    report.backups = backups.last(run.store)
    found += backup.differences(report.backups, limits, datetime.now(UTC))
    report.certificates = certificate_expiry.expiries(run.facts)
    if run.limit is not None:
        found = [one for one in found if one.host in run.limit]
    marked, notes = compare.accepted(compare.ordered(found), run.cluster.known_drift, datetime.now(UTC).date())
    report.differences, report.notes = marked, notes if run.limit is None else []
    report.notes += [str(report.backups)] if report.backups.made else []
    report.notes += datastore.kept_aside(run.cluster, run.facts)
    report.notes += [*run.cluster.notes, *(note for note in run.report.notes if note.startswith(_NOTES))]
    _fill(run, report, names)


def _no_deploy(run: Run) -> None:
    busy = [name for name, facts in run.facts.items() if facts.ledger.locked or facts.work.held]
    who = "; ".join(at_work.owners(run.facts))  # by the Lease, too
    if busy or who:
        text = "a deploy is in progress" + (f" on {', '.join(busy)}" if busy else "") + (f": {who}" if who else "")
        raise Busy(text, hint="run again when it has ended")


def _compared(run: Run, answer: KubeconfigAnswer, limits: Limits) -> list[Finding]:
    hosts, days = {name: run.planned(name) for name in run.names}, limits.certificate_days
    found = compare.differences(run.cluster, hosts, run.facts, limits, has_ca=bool(run.ca_prefix), address=run.address)
    found += datastore.went_back(run.revision().back)
    found += kubeconfig.differences(run.cluster, "kubeconfig", answer, days=days, address=run.address)
    expiries = certificate_expiry.expiries(run.facts)
    return [*found, *certificate_expiry.differences(run.cluster, expiries, days=days, hosts=hosts)]


def _fill(run: Run, report: DriftReport, names: list[str]) -> None:
    ready = {node.name: node.ready for node in left.listed(run.cluster, run.facts) or []}
    for name in names:
        if run.limit is not None and name not in run.limit:
            continue
        member, done = run.member(name), run.report.hosts[name]
        report.hosts[name] = HostState(
            role=member.role,
            roles=list(member.roles),
            address=member.address,
            node=member.node_name if member.role in ("servers", "agents") else "",
            reached=name in run.facts,
            error=run.unread.get(name, ""),
            round_trips=done.round_trips,
            ready=ready.get(member.node_name) if member.role in ("servers", "agents") else None,
        )
    report.holders = load_balancers.holders(run.cluster, run.facts)
    report.backends = {m.name: load_balancers.states(run.facts[m.name]) for m in run.of("lb")}
    if run.cluster.endpoint:
        report.datastore = [f"{host}:{port}" for host, port in parse(run.cluster.endpoint).hosts]
