"""drill: breaks one thing after the other in a healthy cluster, puts it back, and measures what users noticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import (
    Declined,
    HostsFailed,
    HostUnreachable,
    Interrupted,
    K3sError,
    PreflightFailed,
)
from nornir_k3s.faults import hosts
from nornir_k3s.faults.catalogue import Fault, faults, select, targets
from nornir_k3s.faults.client import Client, RequestFailed, from_here, from_host
from nornir_k3s.faults.objects import NAMESPACE, make_namespace, remove_namespace
from nornir_k3s.faults.rounds import Drill, LeftOut, NotRight
from nornir_k3s.model.drill_limits import DrillOptions
from nornir_k3s.model.drill_report import DrillPlan, DrillReport, PlannedFault
from nornir_k3s.phases.changing import changing
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.kubeconfig_probe import Access, access
from nornir_k3s.run.options import complete
from nornir_k3s.state import kubeconfig
from nornir_k3s.workflows import status


def drill(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    confirm: Callable[[DrillPlan], bool] | None = None,
    tell: Callable[[str], None] | None = None,
) -> DrillReport:
    """Break one thing after the other in a healthy cluster, put it back, and return what that cost.

    Arguments:
        nr, base, state: As for `deploy`.
        options: As for `deploy`, and `drill`: `rate` and `limits`.
        only: Faults, as `server-cut` or `server-cut:s1`; by default all that the cluster should survive.
        skip: Faults that are left out.
        confirm: Called before the first fault, with what will be done; False aborts.
        tell: Gets what happens, for people.

    Returns:
        The report. Broken limits, and what ended the drill early, are part of it.

    Raises:
        UsageError: The inventory or an option is wrong.
        PreflightFailed: The cluster is not healthy: nothing was done.
        HostUnreachable: A host is down, HostsFailed several are: nothing was done.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
        Interrupted: It was stopped; all is put back, or `report.left` says what is not.
    """
    run, chosen, planned = _prepare(nr, base, state, options, only=only, skip=skip)
    settings = _settings(nr, options)
    report = DrillReport(cluster=run.cluster.name, version=run.cluster.version, url=run.cluster.url, rate=settings.rate)
    begin = time.monotonic()
    with changing(run, "drill"):
        chosen = _possible(run, chosen, report)
        report.notes[:0] = planned.notes
        places = _places(run, report)
        if confirm and not confirm(planned):
            raise Declined("Aborted: not confirmed; nothing was done", hint="--yes begins without asking")
        work = Drill(run, places, settings, lambda: status.read(run).problems, report, tell or (lambda _: None))
        _carry_out(work, chosen, report)
        report.seconds = round(time.monotonic() - begin, 1)
    if report.interrupted:
        stopped = Interrupted("the drill was stopped", hint=_next(report))
        stopped.report = report
        raise stopped
    return report


def plan(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    only: Collection[str] = (),
    skip: Collection[str] = (),
) -> DrillPlan:
    """Return what a drill would do; no host is contacted.

    Arguments:
        nr, base, state, options, only, skip: As for `drill`.

    Raises:
        UsageError: The inventory or an option is wrong.
    """
    return _prepare(nr, base, state, options, only=only, skip=skip)[2]


def _settings(nr: Nornir, options: Mapping[str, Any] | None) -> DrillOptions:
    return DrillOptions.model_validate(complete(nr, options).get("drill") or {})


def _prepare(
    nr: Nornir,
    base: Path | str | None,
    state: Path | str | None,
    options: Mapping[str, Any] | None,
    *,
    only: Collection[str],
    skip: Collection[str],
) -> tuple[Run, list[Fault], DrillPlan]:
    folders, settings = paths.of(nr, base, state), _settings(nr, options)
    quiet = nr.with_processors([])  # hundreds of looks are no news
    run = gather.prepare(quiet, base=folders.base, state=folders.state, options=complete(nr, options), keep=False)
    found, notes = faults(run.cluster)
    chosen = select(found, tuple(only), tuple(skip))
    planned = [
        PlannedFault(id=one.id, what=one.what, seconds=one.seconds, limit=settings.limit(one.kind)) for one in chosen
    ]
    return (
        run,
        chosen,
        DrillPlan(cluster=run.cluster.name, url=run.cluster.url, namespace=NAMESPACE, faults=planned, notes=notes),
    )


def _possible(run: Run, chosen: Sequence[Fault], report: DrillReport) -> list[Fault]:
    """Return the faults that the hosts can make.

    Raises:
        HostUnreachable: Or HostsFailed.
        PreflightFailed: The cluster is not healthy.
    """
    problems = list(status.read(run).problems)
    if run.unread:
        hint = "a drill needs every host"
        lost = [HostUnreachable(name, text.removeprefix(f"{name}: "), hint=hint) for name, text in run.unread.items()]
        raise lost[0] if len(lost) == 1 else HostsFailed(lost)
    looks = hosts.look(run, run.present)
    for name, look in looks.items():
        problems += [f"{name}: {unit} is {state}" for unit, state in look.active.items() if state != "active"]
        if look.fault:
            problems.append(f"{name}: a fault of a drill is in progress; to end it, run there: {hosts.UNDO}")
        if not look.runs:
            problems.append(f"{name}: systemd-run is missing: a fault could not end by itself")
    if problems:
        raise PreflightFailed(problems)
    uncut = {name for name, look in looks.items() if not look.cut}
    left = [one for one in chosen if one.how == "cut" and uncut & set(targets(run.cluster, one))]
    if left:
        names = ", ".join(sorted(uncut))
        why = f"nft on {names} cannot drop what a device sends (it needs Linux 5.16)"
        report.notes.append(f"left out: {', '.join(one.id for one in left)}: {why}")
    return [one for one in chosen if one not in left]


def _places(run: Run, report: DrillReport) -> dict[str, Client]:
    """Return the places that reach the API: the controller, and an agent.

    Raises:
        PreflightFailed: There is none.
    """
    try:
        to = access(run.store.folder / kubeconfig.FILE)
    except ValueError as error:
        raise PreflightFailed([f"{error}: a deploy saves it"]) from None
    places = {"controller": Client(to, from_here(to))}
    others = {m.name for role in ("servers", "lb", "datastore") for m in run.cluster.of(role)}
    agents = [member.name for member in run.cluster.of("agents") if member.name not in others]
    if agents:
        places[agents[0]] = _from(run, agents[0], to)
    else:
        report.notes.append("left out: probes from an agent: there is no agent")
    for name, client in list(places.items()):
        try:
            client.insist("GET", "/api/v1/namespaces/default")
        except RequestFailed as error:
            report.notes.append(f"left out: probes from {name}: {run.cluster.url} does not answer there: {error}")
            del places[name]
    if not places:
        raise PreflightFailed(report.notes[-2:])
    return places


def _from(run: Run, name: str, to: Access) -> Client:
    session = run.sessions[name]
    return Client(to, from_host(to, lambda: session.transport))


def _carry_out(work: Drill, chosen: Sequence[Fault], report: DrillReport) -> None:
    """Make the faults, and put everything back whatever happens."""
    try:
        make_namespace(work.client)
    except RequestFailed as error:
        raise PreflightFailed([f"the namespace {NAMESPACE} cannot be made: {error}"]) from None
    try:
        for number, fault in enumerate(chosen, 1):
            work.tell(f"{number} of {len(chosen)}: {fault.what}")
            try:
                report.faults.append(work.carry_out(fault, number))
            except LeftOut as why:
                report.notes.append(f"left out: {why}")
            work.settle()
    except (KeyboardInterrupt, Interrupted):
        report.interrupted = True
    except NotRight as error:
        report.problems.append(str(error))
    except RequestFailed as error:
        report.problems.append(f"the API does not answer: {error}")
    except K3sError as error:
        report.problems.append(error.message)
    finally:
        _clean(work, report)


def _clean(work: Drill, report: DrillReport) -> None:
    """Remove the namespace, and note what is left."""
    try:
        remove_namespace(work.client)
    except (RequestFailed, K3sError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        report.left.append(f"the namespace {NAMESPACE} ({why}); kubectl delete namespace {NAMESPACE}")


def _next(report: DrillReport) -> str:
    return "put back by hand: " + "; ".join(report.left) if report.left else "everything is put back"
