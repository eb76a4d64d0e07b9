"""A saved plan: what it stands on is read from the run, and a run that carries it out does nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

from nornir_k3s.checks import plan_basis
from nornir_k3s.errors import PlanMoved
from nornir_k3s.model.plan import Plan
from nornir_k3s.model.saved_plan import Basis, SavedChoice, SavedPlan
from nornir_k3s.phases.cluster_lock import me
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import datastore_keys

_HINT = "nothing was changed: plan again, and have that reviewed"


def saved(run: Run, choice: Choice, plan: Plan) -> SavedPlan:
    """Return the plan of a run that has read the hosts, with what it stands on."""
    chosen = SavedChoice(
        limit=tuple(choice.limit),
        until=choice.until,
        only=choice.only,
        skip_unreachable=choice.skip_unreachable,
        ignore_window=choice.ignore_window,
        trial=choice.trial,
    )
    return SavedPlan(
        tool=version("nornir-k3s"),
        cluster=run.cluster.name,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        by=f"{me().user}@{me().host}",
        choice=chosen,
        basis=_basis(run),
        plan=plan,
    )


def require_tool(plan: SavedPlan, cluster: str) -> None:
    """Check that the plan is of this cluster, and that this version of the tool made it.

    Raises:
        PlanMoved: It is not.
    """
    own = version("nornir-k3s")
    if plan.cluster != cluster:
        raise PlanMoved([f"it is a plan of {plan.cluster}, and this is {cluster}"], hint=_HINT)
    if plan.tool != own:
        raise PlanMoved([f"nornir-k3s {plan.tool} made it, and this is {own}"], hint=_HINT)


def require_unmoved(run: Run, plan: SavedPlan) -> None:
    """Check that everything that the plan stands on is as it was.

    Raises:
        PlanMoved: With all that is not, host by host.
    """
    if found := list(plan_basis.moved(plan.basis, _basis(run))):
        raise PlanMoved(found, hint=_HINT)
    run.allowed = frozenset(f"{name}/{step}" for name, steps in plan.basis.steps.items() for step in steps)


def _basis(run: Run) -> Basis:
    names = [name for name in run.present if name in run.facts]
    steps = {name: run.planned(name).steps for name in run.names}
    options = {"deadlines": dict(run.deadlines), "widths": dict(run.widths)}
    keys = run.cluster.keys.text.reveal() if run.cluster.keys else ""
    fresh = plan_basis.made(keys) - plan_basis.made((run.store.read(datastore_keys.FILE) or "") if keys else "")
    return plan_basis.of(run.cluster, {name: run.facts[name] for name in names}, steps, options, fresh)
