"""remove: takes servers, agents and load balancers out of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.inventory import Host, ParentGroups

from nornir_k3s.apply import removal as scripts
from nornir_k3s.apply import reset as resets
from nornir_k3s.checks import removal as checks
from nornir_k3s.errors import Declined, HostsFailed, HostUnreachable, UsageError
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.model.removal import Removal
from nornir_k3s.model.report import HostReport, Report
from nornir_k3s.model.step import Step
from nornir_k3s.phases import removal, reset
from nornir_k3s.phases.changing import changing
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.state import known_cluster
from nornir_k3s.workflows.chain import one_by_one

AGAIN = "run the same command again: it goes on where this one ended"


def remove(
    nr: Nornir,
    names: Sequence[str],
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    lost: bool = False,
    confirm: Callable[[Removal], bool] | None = None,
) -> Report:
    """Take servers and agents out of the cluster: drained, out of every load balancer, K3s uninstalled, node deleted.

    Of load balancers keepalived and HAProxy go; the VIP moves to another one.

    Arguments:
        nr: A Nornir with the load balancers, the datastore and the servers of the cluster; those that leave may have
            left its inventory, and are added to it then.
        names: The hosts that leave.
        base, state, options: As for `deploy`.
        lost: They are dead or gone for good: everything is done but their own part.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report; its notes say what is left to do. A run that was killed is finished by the next one.

    Raises:
        UsageError: A name is not of this cluster, or the cluster cannot do without it now; nothing was changed.
        HostUnreachable: A host is down; nothing was changed.
        K3sError: A step failed; its `report` has what was done.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
    """
    run = prepare(nr, base, state, options)
    with changing(run, "remove"):
        leaving = read(run, names, lost=lost)
        if confirm and not confirm(planned(run, leaving, lost=lost)):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes removes without asking")
        carry_out_removal(run, leaving, lost=lost)
    return run.report


def plan_removal(
    nr: Nornir,
    names: Sequence[str],
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    lost: bool = False,
) -> Removal:
    """Return what `remove` would do; nothing is changed.

    Arguments:
        nr, names, base, state, options, lost: As for `remove`.

    Raises:
        K3sError: As `remove` does before its first change.
    """
    run = prepare(nr, base, state, options)
    return planned(run, read(run, names, lost=lost), lost=lost)


def prepare(nr: Nornir, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None) -> Run:
    """Return the run of a removal; no host is contacted."""
    folders = paths.of(nr, base, state)
    return gather.prepare(nr, base=folders.base, state=folders.state, options=complete(nr, options), keep=False)


def read(run: Run, names: Sequence[str], *, lost: bool, anew: bool = False) -> list[Member]:
    """Read the hosts that take part, and return the members that leave.

    Arguments:
        anew: They join again at once, with all their roles.

    Raises:
        UsageError: It is refused.
        HostUnreachable: A host is down that takes part.
    """
    if not names:
        raise UsageError("no host is named", hint="name the servers, agents or load balancers to remove")
    gone = {m.name for m in run.cluster.members if lost and {m.name, m.node_name} & set(names)}
    servers = [m.name for m in run.cluster.of("servers") if m.name not in {*run.away, *gone}]
    roles = ("lb", "datastore") if _may_be_servers(run, names) else ()
    others = [m.name for role in roles for m in run.cluster.of(role) if m.name not in {*run.away, *gone}]
    with _hint_at_lost(names):
        run.phase("observe", dict.fromkeys([*others, *servers]), gather.gather_host, lenient=servers, reads=True)
    gather.take_over(run, lenient=servers)
    refuse(checks.unknown(run.cluster, run.facts, names))
    found = (checks.find(run.cluster, run.facts, name) for name in dict.fromkeys(names))
    leaving = list({member.name: member for member in found if member}.values())
    refuse([*_filtered(run, names), *checks.refusals(run.cluster, run.facts, leaving, lost=lost, anew=anew)])
    add(run, leaving)
    if not lost:
        _reach(run, [member.name for member in leaving if member.name not in run.facts])
        run.phase("observe", removal.balancers(leaving), reset.read_host, reads=True)
    return leaving


def refuse(problems: Iterable[str]) -> None:
    """Raise all problems as one error; nothing was changed.

    Raises:
        UsageError: There are some.
    """
    if found := list(problems):
        raise UsageError("; ".join(found), hint="nothing was changed")


def _may_be_servers(run: Run, names: Sequence[str]) -> bool:
    """Return whether load balancers and datastore may take part: what leaves are not agents alone."""
    return not set(names) <= {name for member in run.cluster.of("agents") for name in (member.name, member.node_name)}


def _filtered(run: Run, names: Sequence[str]) -> list[str]:
    away = [name for name in sorted(run.away) if set(run.member(name).roles) != {"agents"}]
    if not _may_be_servers(run, names):
        away = [name for name in away if "servers" in run.member(name).roles]
    return [f"{', '.join(away)}: not in this inventory: a removal needs the whole one"] if away else []


def add(run: Run, leaving: Sequence[Member]) -> None:
    """Add those that have left the inventory to this run, with what their group and the defaults say."""
    gone = [member for member in leaving if member.name not in run.nr.inventory.hosts]
    inventory = run.nr.inventory
    for member in gone:
        groups = [inventory.groups[member.role]] if member.role in inventory.groups else []
        inventory.hosts[member.name] = Host(
            member.name, hostname=member.address, groups=ParentGroups(groups), defaults=inventory.defaults
        )
    new = [member for member in leaving if member.name not in {one.name for one in run.cluster.members}]
    kept = tuple(one for one in run.cluster.left if one.name not in {member.name for member in new})
    others = tuple(one for one in run.cluster.left_others if one.name not in {member.name for member in new})
    run.cluster = replace(run.cluster, members=(*run.cluster.members, *new), left=kept, left_others=others)
    for member in leaving:
        run.report.hosts.setdefault(member.name, HostReport(role=member.role, roles=list(member.roles)))


def _reach(run: Run, names: Sequence[str]) -> None:
    for name in names:
        run.nr.data.recover_host(name)  # read once, leniently
    with _hint_at_lost(names):
        run.phase("observe", names, gather.gather_host, reads=True)


@contextmanager
def _hint_at_lost(names: Collection[str]) -> Iterator[None]:
    """Have the error of a host that is down, and shall leave, say how it leaves without its part."""
    try:
        yield
    except (HostUnreachable, HostsFailed) as error:
        down = [one.host for one in getattr(error, "errors", [error]) if isinstance(one, HostUnreachable)]
        if set(down) & set(names):
            more = "if the host is gone for good: --lost"
            error.hint = f"{error.hint}; {more}" if error.hint else more
        raise


def planned(run: Run, leaving: Sequence[Member], *, lost: bool) -> Removal:
    """Return what is done in a run whose hosts were read."""
    later, changes = removal.without(run, leaving), dict[str, list[str]]()
    for member in leaving if not lost else ():
        drained = [f"drain node {member.node_name}"] if member in removal.drained(run, leaving) else []
        changes[member.name] = [*drained, *(step.summary for step in _on_host(run, member))]
    if removal.changes_balancers(leaving):
        for other in (*later.of("lb"), *later.of("datastore")):
            plan = later.planned(other.name)
            steps = [step for role in ("lb", "datastore") for step in plan.by_role.get(role, ())]
            if said := [step.summary for step in (*steps, *plan.tidy)]:
                changes[other.name] = said
    if nodes := [scripts.of_node(member.node_name).summary for member in leaving if removal.is_node(member)]:
        changes[CLUSTER] = nodes
    names = [member.name for member in leaving]
    return Removal(cluster=run.cluster.name, hosts=names, lost=lost, changes=changes, notes=_todo(run, leaving))


def _on_host(run: Run, member: Member) -> list[Step]:
    if removal.is_node(member):
        return scripts.on_host(member)
    return resets.on_host(run.cluster, run.facts[member.name], data_stay=True)


def _todo(run: Run, leaving: Sequence[Member]) -> list[str]:
    cluster, names = run.cluster, ", ".join(member.name for member in leaving)
    found = []
    servers = [member.address for member in leaving if member.role == "servers"]
    if servers and cluster.registration.way != "vip":
        what = "the record of the registration address" if cluster.registration.way == "dns" else "your load balancer"
        found.append(f"take {', '.join(servers)} out of {what} first")
    if not [one for one in cluster.of("agents") if one not in leaving] and cluster.server_taint:
        found.append("no agent is left for workloads: the servers have a taint")
    return [*found, f"delete {names} from the inventory, or the next deploy adds it again"]


def carry_out_removal(run: Run, leaving: Sequence[Member], *, lost: bool) -> None:
    """Carry out the removal in a run whose hosts were read.

    Raises:
        K3sError: A step failed; with the report.
    """
    chain = removal.phases(leaving, lost=lost)
    run.report.notes = _todo(run, leaving)
    one_by_one(run, chain, hint=AGAIN)
    names = {member.name for member in leaving}
    members = [one for one in known_cluster.members(run.store) if one.name not in names]
    known_cluster.save_members(run.store, members)
    known_cluster.save_left(run.store, [one for one in known_cluster.left(run.store) if one.name not in names])
    run.end()
