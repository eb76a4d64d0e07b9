"""replace: lets a reinstalled machine, or another one, take the place of the node of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.apply import removal as scripts
from nornir_k3s.errors import Declined, PreflightFailed, UsageError
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.model.removal import Removal
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.phases import removal
from nornir_k3s.phases.changing import changing
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import remove
from nornir_k3s.workflows.chain import carry_out
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.plan import plan


def replace(
    nr: Nornir,
    name: str,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    confirm: Callable[[Removal], bool] | None = None,
) -> Report:
    """Delete the node that a machine had before it was reinstalled, with its password, and deploy.

    Arguments:
        nr: A Nornir with all hosts of the cluster.
        name: A server or an agent of the inventory, whose node is not Ready.
        base, state, options: As for `deploy`.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report of the deploy.

    Raises:
        UsageError: There is nothing to replace, or the cluster cannot do without that server now; nothing was changed.
        K3sError: As `deploy` does.
        Declined: It was not confirmed.
    """
    arguments: dict[str, Any] = {"base": base, "state": state, "options": options}
    run, member = _look(nr, name, arguments)
    if confirm and not confirm(_planned(run, member)):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes replaces without asking")
    with changing(run, "replace"):
        phase = next(one for one in removal.phases([member], lost=True, anew=True) if one.name == "node")
        run.report.phases = [PhaseReport(name=phase.name)]
        carry_out(run, [phase], together=False)
        return deploy(nr, **arguments)


def plan_replacement(
    nr: Nornir,
    name: str,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Removal:
    """Return what `replace` would do; nothing is changed.

    Arguments:
        nr, name, base, state, options: As for `replace`.

    Raises:
        K3sError: As `replace` does before its first change.
    """
    run, member = _look(nr, name, {"base": base, "state": state, "options": options})
    return _planned(run, member)


def _look(nr: Nornir, name: str, arguments: Mapping[str, Any]) -> tuple[Run, Member]:
    """Read all hosts, and find what speaks against it before the first change.

    Raises:
        PreflightFailed: The deploy would fail for another reason than the lost password.
    """
    run = remove.prepare(nr, arguments["base"], arguments["state"], arguments["options"])
    if name not in run.present:
        raise UsageError(f"{name} is not in the inventory", hint="add the new machine under this name first")
    own: list[str] = []
    try:
        plan(nr, **arguments)
    except PreflightFailed as error:
        own = [one for one in error.problems if one.startswith(f"{name}: ") and one.endswith("[reimaged]")]
        if others := [one for one in error.problems if one not in own]:
            raise PreflightFailed(others) from None
    try:
        # A node may be listed as Ready some time after its end.
        (member,) = remove.read(run, [name], lost=not own, anew=True)
    except UsageError as error:
        error.hint = f"to replace a node that works: remove {name}, then deploy; nothing was changed"
        raise
    return run, member


def _planned(run: Run, member: Member) -> Removal:
    return Removal(
        cluster=run.cluster.name,
        hosts=[member.name],
        changes={CLUSTER: [scripts.of_node(member.node_name).summary]},
        notes=[f"then deploy: {member.name} joins as a new node"],
    )
