"""deploy: turns bare hosts into a highly available cluster, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import Busy, Declined, Interrupted, K3sError, OutsideWindow, PlanMoved
from nornir_k3s.model.report import Outcome, PhaseReport, Report
from nornir_k3s.model.saved_plan import SavedPlan
from nornir_k3s.phases import (
    agents,
    batches,
    datastore,
    dump,
    load_balancers,
    observe,
    preflight,
    put_back,
    saved_plan,
    servers,
    stage,
    tidy,
    token,
    verify,
    window,
)
from nornir_k3s.phases.changing import changing
from nornir_k3s.phases.cluster_lock import ClusterLock
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run import paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import prepare
from nornir_k3s.run.selection import ALWAYS, Choice
from nornir_k3s.state import database_password, restoring, revision
from nornir_k3s.workflows.chain import carry_out, in_steps


def phases() -> tuple[Phase, ...]:
    """Return the phases of a deploy, in order."""
    return (
        observe.PHASE,
        observe.ARTIFACTS,
        preflight.PHASE,
        dump.PHASE,
        stage.PHASE,
        datastore.PHASE,
        token.PHASE,
        servers.FIRST,
        servers.PHASE,
        load_balancers.PHASE,
        agents.PHASE,
        tidy.PHASE,
        verify.PHASE,
    )


def deploy(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
    plan: SavedPlan | None = None,
) -> Report:
    """Bring the hosts to the state that the inventory describes, phase by phase; only differences are changed.

    Arguments:
        nr: A Nornir whose inventory describes the cluster.
        base: The folder that relative paths of the inventory start from; the inventory's folder by default.
        state: The folder on the controller for generated secrets and the kubeconfig; by default that
            of `user_defined.k3s` in config.yaml, or `.state`.
        options: `deadlines` (seconds) and `widths` (hosts at the same time), by name; `cache` and `sources`; `whole`:
            other members of the last deploy have left the cluster; `version`: of K3s, instead of the inventory's;
            `renew`: a time in seconds since the epoch: K3s' certificates that are older are made anew;
            `renew_datastore`: the same for those of a managed datastore; `new_ca`: CA certificates, PEM, that K3s has
            stored in the datastore and servers take when they restart.
        choice: Hosts, phases and the confirmation; by default everything, without confirmation.
        plan: A saved plan: that is carried out, with the hosts and phases that it was made for, or nothing.

    Returns:
        The report: changes and restarts by host, seconds by phase, and the kubeconfig's path. Its `exit_code` is 4 if
        hosts were left out because they are down: agents, and with `skip_unreachable` load balancers.

    Raises:
        PlanMoved: What the saved plan stands on is not as it was.
        K3sError: See `nornir_k3s.errors`. Phases before the failed one are complete, those after it have not begun;
            its `report` has what was done. Also if only some agents have failed, after all other hosts are done.
    """
    choice, folders = choice or Choice(), paths.of(nr, base, state)
    if plan:
        choice = Choice(**plan.choice.model_dump())
    chain = choice.chain(phases())
    dry = bool(nr.data.dry_run)
    run = prepare(nr, base=folders.base, state=folders.state, options=options or {}, choice=choice, keep=not dry)
    if plan:
        saved_plan.require_tool(plan, run.cluster.name)
    if dry:
        return _dry_run(run, chain)
    run.report.phases = [PhaseReport(name=phase.name) for phase in chain]
    try:
        with changing(run, "deploy") as lock:
            _carry_out(run, choice, chain, lock, plan)
            revision.save(run.store, run.revision())
            if run.limit is None and not choice.until and not choice.only:
                database_password.end(run.store)
                if not run.failed:
                    restoring.save(run.store, None)
        batches.raise_failed(run)
    except K3sError as raised:
        error = batches.failure(run, raised)
        run.report.end(error, _outcome(error))
        error.report = run.report
        raise error from None
    except KeyboardInterrupt:
        stopped = Interrupted("stopped between two phases", hint="run deploy again: it resumes")
        run.report.end(stopped, "interrupted")
        stopped.report = run.report
        raise stopped from None
    run.end()
    return run.report


def _carry_out(
    run: Run, choice: Choice, chain: Sequence[Phase], lock: ClusterLock | None = None, plan: SavedPlan | None = None
) -> None:
    """Run the phases; what an earlier run has left away is put back before the first change, or before it fails."""
    changes = choice.first_change(chain)
    try:
        for step in in_steps(chain):
            if step[0].name == changes:
                _require_window(run, chain)
                _confirm(run, choice)
                if lock and not _still_holds(run, chain[: chain.index(step[0])], lock, confirmed=bool(choice.confirm)):
                    _require_window(run, chain)
                if plan:
                    saved_plan.require_unmoved(run, plan)
                put_back.put_back(run)
            carry_out(run, load_balancers.in_order(run, step), together=not servers.changes_running(run))
    except K3sError as error:
        begun = not changes or run.report.phase(changes).state != "not begun"
        if not begun and not isinstance(error, (Busy, Declined, Interrupted, PlanMoved)):
            with suppress(K3sError):
                put_back.put_back(run)
        raise


def _steps(run: Run) -> dict[str, list[str]]:
    """Return what is planned on each host that is changed."""
    steps = {name: [step.summary for step in run.planned(name).steps] for name in run.names}
    return {name: summaries for name, summaries in steps.items() if summaries}


def _require_window(run: Run, chain: Sequence[Phase]) -> None:
    """Check that K3s may restart now, where it would."""
    if not token.is_due(run):  # it is written before the first server restarts, which waits for the window
        window.require_open(run, window.restarting(run, [phase.name for phase in chain]))


def _still_holds(run: Run, read: Sequence[Phase], lock: ClusterLock, *, confirmed: bool) -> bool:
    """Lock the cluster if something is planned; return False if another run has changed it, and it was read again.

    Arguments:
        read: The phases that have read it.
        confirmed: Somebody was asked about these steps.

    Raises:
        Busy: Another run is changing it, or other steps are needed now than were confirmed.
    """
    if not run.sessions or not (before := _steps(run)) or lock.take(run):
        return True
    for phase in read:
        carry_out(run, [phase], together=False)
    if confirmed and _steps(run) != before:
        text = "another run has changed the cluster since this one has read it: other steps would be needed now"
        raise Busy(text, hint="run it again: it makes a new plan")
    return False


def _outcome(error: K3sError) -> Outcome:
    if isinstance(error, Declined):
        return "declined"
    if isinstance(error, OutsideWindow):
        return "postponed"
    return "interrupted" if isinstance(error, Interrupted) else "failed"


def _dry_run(run: Run, chain: Sequence[Phase]) -> Report:
    """Return the report of a dry run: the changes that would be made."""
    run.report.dry_run = True
    for phase in chain:
        if phase.name in ALWAYS:
            phase.work(run)
    for name in run.names:
        run.report.hosts[name].changes = [step.id for step in run.planned(name).steps]
    run.end()
    return run.report


def _confirm(run: Run, choice: Choice) -> None:
    """Ask for confirmation once, before a running cluster is changed."""
    if choice.confirm is None or not run.ready_servers:
        return
    steps = _steps(run)
    if steps and not choice.confirm(steps):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes deploys without asking")
