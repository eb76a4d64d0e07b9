"""move: takes a cluster's data from the datastore that its servers use to the one that the inventory describes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.checks import moving as checks
from nornir_k3s.errors import Declined, Interrupted, K3sError, UsageError
from nornir_k3s.model.move import Move
from nornir_k3s.model.paths import MOVED
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.phases import moving, observe
from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.chain import carry_out
from nornir_k3s.workflows.deploy import deploy

AGAIN = (
    "run `nornir-k3s move` again: it goes on where this one ended; before the copy is whole, --back starts K3s again"
)


def move(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_window: bool = False,
    confirm: Callable[[Move], bool] | None = None,
) -> Report:
    """Move the data of the cluster to the datastore of the inventory, then deploy.

    The new datastore is set up while the cluster runs. Then K3s is stopped on all servers, its data are copied and
    compared, and everything is deployed. The old datastore is only read.

    Arguments:
        nr: A Nornir whose inventory describes the cluster with its new datastore.
        base, state, options: As for `deploy`.
        ignore_window: Stop K3s outside `rolling_update.window`, too.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report of the whole; its notes say how to go back. A run that was killed is finished by the next one.

    Raises:
        UsageError: It cannot be moved, with every reason; nothing was changed.
        PreflightFailed: A host has a problem; nothing was changed.
        K3sError: A step failed; its `report` has what was done. Unless the copy was whole, K3s runs again as before.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
    """
    run = _prepare(nr, base, state, options, keep=True, ignore_window=ignore_window)
    with changing(run, "move"):
        _move(run, confirm)
        return _deploy(run, nr, base=base, state=state, options=options)


def _move(run: Run, confirm: Callable[[Move], bool] | None) -> None:
    try:
        _carry_out(run, confirm)
    except (K3sError, KeyboardInterrupt) as raised:
        error = raised if isinstance(raised, K3sError) else Interrupted("stopped between two phases", hint=AGAIN)
        if isinstance(error, Interrupted):
            error.hint = AGAIN
        run.report.end(error, "interrupted" if isinstance(error, Interrupted) else "failed")
        error.report = run.report
        raise error from None


def plan_move(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Move:
    """Return what `move` would do; nothing is changed.

    Arguments:
        nr, base, state, options: As for `move`.

    Raises:
        K3sError: As `move` does before its first change.
    """
    run = _prepare(nr, base, state, options, keep=False)
    _read(run)
    return planned(run)


def move_back(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Start K3s again on the old datastore after a move that was interrupted before its copy was whole.

    Arguments:
        nr, base, state, options: As for `move`.

    Raises:
        UsageError: A server has begun with the new datastore: what it wrote there would be lost; or the copy is whole.
        K3sError: It failed on a host.
    """
    run = _prepare(nr, base, state, options, keep=False)
    with changing(run, "move"):
        own, stores = ([m.name for m in run.cluster.of(role)] for role in ("servers", "datastore"))
        run.phase(
            "observe", dict.fromkeys([*own, *stores]), gather.gather_host, lenient=set(stores) - set(own), reads=True
        )
        stopped = checks.stopped(run.cluster, run.facts)  # no server has begun, whatever the inventory is by now
        if not stopped and (on_new := checks.switched(run.cluster, run.facts)):
            hint = f"run `nornir-k3s move` again; docs/day2.md says how to go back by hand, with {MOVED}"
            raise UsageError(f"{', '.join(on_new)} use the datastore of the inventory already", hint=hint)
        _require_no_copy(run, stopped)
        names = list(dict.fromkeys([*stopped, *moving.servers(run)]))
        moving.go_back(run, names)
        shutil.rmtree(run.store.folder / moving.FOLDER, ignore_errors=True)  # of a run that was killed
    run.report.notes.append(f"K3s was started on {', '.join(names)}, as it was before the move")
    run.end()
    return run.report


def _require_no_copy(run: Run, stopped: Collection[str]) -> None:
    """Check that no deploy could take servers to a copy that is older than what they run on by then.

    Raises:
        UsageError: The datastore of the inventory has the copy.
    """
    # The mark of a move goes when its copy is whole: a run may have been killed before the first server started there.
    found = checks.origins(run.cluster, run.facts)
    origins = {name: one for name, one in found.items() if name in stopped or not checks.runs(run.facts[name])}
    if not origins or not any(facts.database.bootstrap for facts in run.facts.values()):
        return
    hint = "run `nornir-k3s move` again, which starts K3s there; to stay, put the old one into the inventory first"
    if any(one.endpoint is None for one in origins.values()):
        content = "remove its keys" if checks.wanted(run.cluster).kind == "etcd" else "drop its table kine"
        hint = f"run `nornir-k3s move` again, which starts K3s there; to stay on SQLite, {content} first"
    raise UsageError("the copy is whole: the datastore of the inventory has the data already", hint=hint)


def planned(run: Run) -> Move:
    """Return the plan of a run whose hosts were read."""
    begun = checks.switched(run.cluster, run.facts)
    names, changes = moving.servers(run), dict[str, list[str]]()
    origin = moving.way(run).origin
    if not begun:
        for member in run.of("datastore"):
            plan = run.planned(member.name)
            changes[member.name] = [step.summary for step in (*plan.stage, *plan.by_role["datastore"])]
        changes |= {name: ["stop K3s until the copy is whole"] for name in names}
        changes["cluster"] = [f"copy {origin} to {checks.describe(checks.wanted(run.cluster))}, and compare"]
        if checks.wanted(run.cluster).kind == "etcd":
            changes["cluster"].insert(0, f"raise etcd's revision above that of {origin}, while the cluster runs")
    changes.setdefault("cluster", []).append("deploy: the first server, then all others, with the new datastore")
    notes = [
        "the API does not answer from the stop to the first server's start; pods keep running",
        _way_back(str(origin)),
    ]
    notes += _revisions(run, origin)
    return Move(
        cluster=run.cluster.name,
        origin=str(origin),
        target=checks.describe(checks.wanted(run.cluster)),
        servers=names,
        changes={name: said for name, said in changes.items() if said},
        notes=notes,
    )


def _revisions(run: Run, origin: checks.Origin) -> list[str]:
    """Return what whoever watches the API notices, besides its pause."""
    if checks.wanted(run.cluster).kind == "etcd":
        found = "objects get new, higher resourceVersions: whoever watches the API lists again, by itself"
        return [f"{found}; the revision is raised by some 1,000 a second, which can take long where it is high"]
    if origin.endpoint and origin.endpoint.kind == "etcd":
        return ["objects keep their resourceVersion; older revisions are not copied: who watches from one lists again"]
    return []


def _way_back(origin: str) -> str:
    return f"the old datastore, {origin}, stays as it is; the servers keep their previous settings in {MOVED}"


def _prepare(
    nr: Nornir,
    base: Path | str | None,
    state: Path | str | None,
    options: Mapping[str, Any] | None,
    *,
    keep: bool,
    ignore_window: bool = False,
) -> Run:
    folders = paths.of(nr, base, state)
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=complete(nr, options), keep=keep)
    run.first = partial(gather.begin, elsewhere=True)
    run.ignore_window = ignore_window
    if run.away:
        names = ", ".join(sorted(run.away))
        raise UsageError(f"{names}: not in this inventory: a move needs the whole one", hint="nothing was changed")
    return run


def _read(run: Run) -> None:
    """Read and check every host.

    Raises:
        UsageError: The data cannot be moved.
        PreflightFailed: A host has a problem.
    """
    observe.observe(run)
    if problems := list(checks.refusals(run.cluster, run.facts)):
        raise UsageError("; ".join(problems), hint="nothing was changed; docs/day2.md has what can be moved")
    observe.find_artifacts(run)
    moving.require_sound(run)


def _carry_out(run: Run, confirm: Callable[[Move], bool] | None) -> None:
    """Carry out the phases up to the deploy; after a switch that has begun, that is all that is left."""
    read = Phase("preflight", "read every host, and find every problem", _read, reads=True)
    run.report.phases = [PhaseReport(name=name) for name in ("preflight", "prepare", "copy")]
    carry_out(run, [read], together=False)
    begun = bool(checks.switched(run.cluster, run.facts))
    if not begun:
        moving.require_open(run)
    if confirm and not confirm(planned(run)):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes moves without asking")
    if begun:
        return
    way = moving.way(run)

    def prepare(run: Run) -> None:
        moving.prepare(run)
        moving.rehearse(run, way)

    def copy(run: Run) -> None:
        found = moving.stop_and_copy(run, way)
        run.report.notes.append(f"copied and compared: {found}")
        run.report.notes.append(_way_back(str(way.origin)))

    carry_out(run, [Phase("prepare", "set up the new datastore, while the cluster runs on", prepare)], together=False)
    carry_out(run, [Phase("copy", "stop K3s, copy, compare", copy)], together=False)


def _deploy(run: Run, nr: Nornir, **arguments: Any) -> Report:  # noqa: ANN401 - those of `deploy`
    """Start the servers with the new datastore, and return the report of the whole.

    Raises:
        K3sError: As `deploy`; the data are in the new datastore.
    """
    try:
        # Servers are stopped: a window that has closed meanwhile must not keep them so.
        report = deploy(nr, **arguments, choice=Choice(ignore_window=True))
    except K3sError as error:
        error.message += "\nthe data are in the new datastore, compared"
        error.hint = f"{error.hint}; then run `nornir-k3s move` again" if error.hint else AGAIN
        if error.report:
            _add(run, error.report)
        raise
    _add(run, report)
    return report


def _add(run: Run, report: Report) -> None:
    report.phases = [*run.report.phases, *report.phases]
    report.notes = [*(note for note in run.report.notes if note not in report.notes), *report.notes]
    for name, host in run.report.hosts.items():
        if name in report.hosts:
            report.hosts[name].changes = [*host.changes, *report.hosts[name].changes]
            report.hosts[name].restarts = [*host.restarts, *report.hosts[name].restarts]
