"""plan: returns what a deploy would do, and changes nothing: no host, and no secret on the controller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.checks import at_work, upgrade
from nornir_k3s.errors import PreflightFailed
from nornir_k3s.model.plan import Change, HostPlan, NodeUpgrade, Plan
from nornir_k3s.model.saved_plan import SavedPlan
from nornir_k3s.model.together import few
from nornir_k3s.phases import (
    batches,
    datastore,
    drain,
    dump,
    encryption,
    observe,
    preflight,
    saved_plan,
    servers,
    window,
)
from nornir_k3s.run import gather, kubeconfig_probe, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows import deploy

_PHASES = {"datastore": "datastore", "servers": "servers", "agents": "agents", "lb": "load-balancers"}


def plan(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
) -> Plan:
    """Return what `deploy` would do now with the same arguments.

    Arguments:
        nr, base, state, options, choice: As for `deploy`.

    Raises:
        K3sError: As `deploy` does before its first change.
    """
    return _made(nr, base, state, options, choice or Choice())[1]


def plan_to_save(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
) -> SavedPlan:
    """Return what `deploy` would do, with what that stands on: `deploy(plan=…)` does exactly that, or nothing.

    Arguments:
        nr, base, state, options, choice: As for `deploy`.

    Raises:
        K3sError: As `deploy` does before its first change.
    """
    run, found = _made(nr, base, state, options, choice or Choice())
    return saved_plan.saved(run, choice or Choice(), found)


def _made(
    nr: Nornir, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None, choice: Choice
) -> tuple[Run, Plan]:
    folders, chain = paths.of(nr, base, state), choice.chain(deploy.phases())
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=options or {}, choice=choice, keep=False)
    observe.observe(run)
    gather.look_at_lease(run)
    observe.find_artifacts(run)
    _check(run)
    names = [phase.name for phase in chain]
    run.report.notes += [f"{one}: what is planned here may be done by then" for one in at_work.owners(run.facts)]
    if "dump" in names and dump.needed(run):
        run.report.notes.append("the datastore would be dumped first")
    if "dump" in names and (words := dump.command(run)):
        run.report.notes.append(f"datastore.dump_command would run first: {words[0]}")
    if "datastore" in names:
        run.report.notes += datastore.announced(run)
    if "verify" in names and run.ready_servers:
        answer = kubeconfig_probe.probe(run.store.folder / "kubeconfig")
        if answer.error:
            run.report.notes.append(f"the kubeconfig would be written again: {answer.error}")
    if "servers" in names:
        run.report.notes += encryption.announced(run)
    run.report.notes += _drains(run, names)
    if (waiting := window.restarting(run, names)) and (text := window.closed(run)):
        run.report.notes.append(f"now K3s would not restart on {few(waiting)}: only in the window {text}")
    hosts = {name: _host(run, name, names) for name in run.names}
    return run, Plan(
        cluster=run.cluster.name,
        version=run.cluster.version,
        hosts=hosts,
        phases=names,
        batches=_batches(run) if "agents" in names else [],
        upgrade=list(_upgrade(run, names)),
        findings=run.report.findings,
        notes=run.report.notes,
        skipped=run.report.skipped,
    )


def _check(run: Run) -> None:
    """Check the hosts; what another run changes now may be what is found.

    Raises:
        PreflightFailed: There are problems.
    """
    try:
        preflight.check(run)
    except PreflightFailed as error:
        if who := at_work.owners(run.facts):
            error.hint = f"{'; '.join(who)}: run it again when that has ended. {error.hint}"
        raise


def _drains(run: Run, phases: Sequence[str]) -> Iterator[str]:
    names = [name for name in run.names if run.member(name).role in phases and run.planned(name).starts_k3s]
    if moving := drain.wanted(run, names):
        yield f"{few(moving)} would be drained first, and uncordoned when K3s is ready again"
    if left := drain.left_cordoned(run):
        yield f"{few(left)} would be uncordoned: an earlier run has cordoned it, and was interrupted"


def _upgrade(run: Run, phases: list[str]) -> Iterator[NodeUpgrade]:
    """Yield the nodes that get another version of K3s: servers one by one, then agents by batch."""
    versions = upgrade.running(run.cluster, run.facts)
    servers = sorted((m.name for m in run.of("servers")), key=lambda name: run.facts[name].ready)
    agents = [name for batch in _batches(run) for name in batch]
    order = [*(servers if "servers" in phases else ()), *(agents if "agents" in phases else ())]
    drained = drain.wanted(run, run.chosen(order))
    for name in run.chosen(order):
        if versions.get(name, run.cluster.version) != run.cluster.version and run.planned(name).starts_k3s:
            yield NodeUpgrade(host=name, running=versions[name], version=run.cluster.version, drained=name in drained)


def _batches(run: Run) -> list[list[str]]:
    return batches.planned(run, run.chosen(member.name for member in run.of("agents")))


def _host(run: Run, name: str, phases: list[str]) -> HostPlan:
    planned, member = run.planned(name), run.member(name)
    own = {**_PHASES, "servers": "first-server" if name == servers.first_server(run) else "servers"}
    parts = [("stage", "", planned.stage), *((own[role], role, steps) for role, steps in planned.by_role.items())]
    changes = []
    for phase, role, steps in (*parts, ("tidy", "", planned.tidy)):
        needs_ca = role in ("agents", "lb") and not run.ca_prefix
        for step in steps if phase in phases else ():
            changes.append(
                Change(
                    id=f"{name}/{step.id}",
                    phase=phase,
                    kind=step.kind,
                    target=step.target,
                    summary=step.summary,
                    action=step.action,
                    diff=step.diff,
                    estimate=needs_ca and step.kind == "file",
                )
            )
    return HostPlan(role=member.role, roles=list(member.roles), changes=changes)
