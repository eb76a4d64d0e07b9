"""Who is in the cluster of this run: the inventory's hosts, those that a filter left out, and those that have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.checks import registration
from nornir_k3s.inventory import cluster
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.report import HostReport, Report
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store


def load(
    nr: Nornir,
    store: Store,
    base: Path,
    options: Mapping[str, Any],
    *,
    earlier: Sequence[Member],
    away: Sequence[Member],
) -> Cluster:
    """Return the cluster that the inventory describes, with the secrets that the state folder has now."""
    store.discard()
    sources, version = options.get("sources"), str(options.get("version") or "")
    renew = float(options.get("renew_datastore") or 0)
    wanted = cluster.load(
        nr.inventory, store=store, base=base, sources=sources, away=away, version=version, renew=renew
    )
    if away:  # in the order of the last deploy: the priorities of load balancers depend on it
        order = {member.name: number for number, member in enumerate(earlier)}
        wanted = replace(wanted, members=tuple(sorted(wanted.members, key=lambda m: order.get(m.name, len(order)))))
    before = [*earlier, *known_cluster.left(store)]
    return replace(wanted, left=_left(wanted, before, away), left_others=_left_others(nr, wanted, before, away))


def _left(wanted: Cluster, earlier: Sequence[Member], away: Sequence[Member]) -> tuple[Member, ...]:
    """Return servers and agents that were members, and that the inventory, which was not filtered, does not have."""
    nodes = [member for role in NODES for member in wanted.of(role)]
    known = {name for one in (*nodes, *away) for name in (one.name, one.node_name, one.address)}
    gone = [one for one in earlier if one.role in NODES and not known & {one.name, one.node_name, one.address}]
    return tuple({one.name: one for one in gone}.values())


def _left_others(nr: Nornir, wanted: Cluster, earlier: Sequence[Member], away: Sequence[Member]) -> tuple[Member, ...]:
    """Return load balancers and hosts of the datastore that were members, and that the inventory does not have.

    One that has no role any more, or another one, is still in it: deploy takes down what it must not go on with.
    """
    there = {member.address for member in (*wanted.members, *away)}
    names = {*nr.inventory.hosts, *(member.name for member in away)}
    gone = [one for one in earlier if one.role not in NODES and one.name not in names and one.address not in there]
    return tuple({one.name: one for one in gone}.values())


def changeable(nr: Nornir, wanted: Cluster, choice: Choice, away: Sequence[Member]) -> frozenset[str] | None:
    """Return the hosts that this run may change; None for all."""
    limit = choice.hosts(nr, wanted)
    if not away:
        return limit
    present = frozenset(member.name for member in wanted.members if member.name in nr.inventory.hosts)
    return present if limit is None else limit & present


def report(nr: Nornir, wanted: Cluster, away: Sequence[Member]) -> Report:
    """Return the report of a run that begins: its hosts, and what is to be noted about them."""
    made = Report(cluster=wanted.name, version=wanted.version, url=wanted.url, notes=list(wanted.notes))
    made.notes += wanted.hidden
    if todo := registration.todo(wanted):
        made.notes.append(todo)
    made.hosts = {
        m.name: HostReport(role=m.role, roles=list(m.roles)) for m in wanted.members if m.name in nr.inventory.hosts
    }
    if away:
        names = ", ".join(member.name for member in away)
        made.notes.append(f"left out: {names}: in the last deploy, but not in this inventory (`whole=True`: removed)")
    return made
