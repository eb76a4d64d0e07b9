"""reset: takes a whole cluster down; every host becomes what it was before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.apply import reset as scripts
from nornir_k3s.checks import reset as checks
from nornir_k3s.errors import Declined, HostsFailed, HostUnreachable
from nornir_k3s.model.report import Report
from nornir_k3s.model.reset import Reset
from nornir_k3s.model.step import Step
from nornir_k3s.phases import reset as phases
from nornir_k3s.phases.changing import changing
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster
from nornir_k3s.workflows import remove
from nornir_k3s.workflows.chain import one_by_one

Asked = Callable[[Reset], bool]


@dataclass(frozen=True)
class Steps:
    """The steps of each host: without its datastore, and those of the datastore."""

    hosts: Mapping[str, Sequence[Step]]
    data: Mapping[str, Sequence[Step]]


def reset(
    nr: Nornir,
    *,
    datastore: bool | Asked = False,
    lost: Collection[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    confirm: Asked | None = None,
) -> Report:
    """Take a whole cluster down: everything that this tool has put on hosts goes, and what was there before comes back.

    Arguments:
        nr: A Nornir with all hosts of the cluster.
        datastore: Also delete the managed datastore with all data of the cluster; or what is asked that, with the plan.
            With an external one, nothing there is touched, but what hosts and controller keep for its data goes.
        lost: Hosts that are dead or gone for good: nothing is done on them.
        base, state, options: As for `deploy`.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report; its notes say what stays. A run that was killed is finished by the next one.

    Raises:
        UsageError: It is refused; nothing was changed.
        HostUnreachable: A host is down that is not lost; nothing was changed.
        K3sError: A step failed; its `report` has what was done.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
    """
    run = remove.prepare(nr, base, state, options)
    with changing(run, "reset"):
        read(run, lost)
        plan = planned(run, lost, data_stay=datastore is not True)
        if confirm and not confirm(plan):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes resets without asking")
        if callable(datastore):
            datastore = not list(checks.data(run.cluster, run.facts)) and datastore(planned(run, lost, data_stay=False))
        _carry_out(run, lost, data_stay=not datastore)
    return run.report


def plan_reset(
    nr: Nornir,
    *,
    datastore: bool = False,
    lost: Collection[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Reset:
    """Return what `reset` would do; nothing is changed.

    Arguments:
        nr, datastore, lost, base, state, options: As for `reset`.

    Raises:
        K3sError: As `reset` does before its first change.
    """
    run = remove.prepare(nr, base, state, options)
    read(run, lost)
    return planned(run, lost, data_stay=not datastore)


def read(run: Run, lost: Collection[str]) -> None:
    """Read the hosts that take part: all of the inventory, and those that have left it.

    Raises:
        UsageError: It is refused.
        HostUnreachable: A host is down that is not lost.
    """
    remove.add(run, [*run.cluster.left, *run.cluster.left_others])
    names = [member.name for member in run.cluster.members]
    remove.refuse([*checks.filtered(run.away), *checks.unknown(names, lost)])
    try:
        run.phase("observe", [name for name in names if name not in lost], phases.read_host, reads=True)
    except (HostUnreachable, HostsFailed) as error:
        down = [one.host for one in getattr(error, "errors", [error]) if isinstance(one, HostUnreachable)]
        if down:
            more = f"if they are gone for good: --lost {','.join(down)}; nothing was changed"
            error.hint = f"{error.hint}; {more}" if error.hint else more
        raise
    remove.refuse(checks.refusals(run.cluster, run.facts, known_cluster.ca(run.store)[0]))


def steps(run: Run, *, data_stay: bool) -> Steps:
    """Return the steps of each host that was read."""
    hosts = {name: scripts.on_host(run.cluster, facts, data_stay=data_stay) for name, facts in run.facts.items()}
    data = [member.name for member in run.of("datastore")] if run.cluster.is_managed else []
    return Steps(hosts, {name: scripts.of_datastore(run.cluster, run.facts[name]) for name in data})


def planned(run: Run, lost: Collection[str], *, data_stay: bool) -> Reset:
    """Return what is done in a run whose hosts were read.

    Raises:
        UsageError: The datastore shall go, and its content is not known; or it stays, and its token would go.
    """
    refused = checks.kept_token if data_stay else checks.data
    remove.refuse(refused(run.cluster, run.facts))
    found = steps(run, data_stay=data_stay)
    said = [
        {name: [step.summary for step in some] for name, some in part.items() if some}
        for part in (found.hosts, found.data)
    ]
    notes = _notes(run, lost, data_stay=data_stay)
    return Reset(cluster=run.cluster.name, changes=said[0], datastore=said[1], lost=sorted(lost), notes=notes)


def _notes(run: Run, lost: Collection[str], *, data_stay: bool) -> list[str]:
    cluster, folder = run.cluster, run.store.folder
    notes = [f"{name}: nothing is done there, and it has the token: never start it again" for name in sorted(lost)]
    hosts = ", ".join(member.name for member in cluster.of("datastore"))
    if not cluster.is_managed:
        notes.append("the external datastore is not touched: the cluster's data stay there")
    elif data_stay:
        notes.append(f"the datastore on {hosts} stays, with all data of the cluster: deploy brings the cluster back")
    kept = [f"{name}: the datastore stays: its host left the inventory" for name in _former(run)]
    if data_stay:
        notes.append(f"{folder} stays: its token is the key to these data; /etc/rancher/node stays on nodes, too")
    else:
        notes.append(f"{folder} is kept as {folder.name}.reset-DATE: token, passwords, kubeconfig, backups and history")
    return [*notes, *kept, "kernel modules and sysctls of K3s stay until the hosts are booted again"]


def _former(run: Run) -> list[str]:
    """Return hosts with a datastore that are not of the group, or not any more."""
    hosts = {member.name for member in run.of("datastore")} if run.cluster.is_managed else set()
    return [name for name, facts in run.facts.items() if name not in hosts and scripts.has_datastore(facts)]


def _carry_out(run: Run, lost: Collection[str], *, data_stay: bool) -> None:
    found = steps(run, data_stay=data_stay)
    chain = phases.phases(run, found.hosts, {} if data_stay else found.data)
    run.report.notes = _notes(run, lost, data_stay=data_stay)
    one_by_one(run, chain, hint=remove.AGAIN)
    _forget(run, data_stay=data_stay)
    run.end()


def _forget(run: Run, *, data_stay: bool) -> None:
    """Leave to the controller what a later deploy needs; without data, all of it moves aside."""
    if data_stay:
        members = [one for one in run.cluster.members if "datastore" in one.roles]
        known_cluster.save_members(run.store, members)
        known_cluster.save_left(run.store, [])
        return
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = run.store.folder.with_name(f"{run.store.folder.name}.reset-{now}")
    try:
        run.store.folder.rename(kept)
    except OSError as error:
        text = f"{run.store.folder} cannot be renamed ({error.strerror}): move it away before this cluster is made anew"
        run.report.notes = [text if "reset-DATE" in note else note for note in run.report.notes]
        return
    run.report.notes = [note.replace(f"{kept.name[: -len(now)]}DATE", kept.name) for note in run.report.notes]
