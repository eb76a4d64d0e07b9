"""The faults that a drill can make in a cluster. Pure: no host is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nornir_k3s import k3s
from nornir_k3s.errors import UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drill_limits import FAULTS, FaultKind
from nornir_k3s.model.suggest import closest
from nornir_k3s.roles import datastore

HAPROXY, KEEPALIVED = "haproxy.service", "keepalived.service"
STOP, CUT, DATASTORE = 8.0, 10.0, 5.0  # seconds that a fault lasts


@dataclass(frozen=True)
class Fault:
    """One fault.

    Arguments:
        kind: Which.
        host: Where; empty for the load balancer that holds the VIP, or the leader of etcd, when it begins.
        what: What is done, in words.
        how: What the script on the host does; `restart` is none of it.
        unit: The unit that is stopped or killed; of several the first one that the host has.
        seconds: How long it lasts; the host itself ends it then.
    """

    kind: FaultKind
    host: str
    what: str
    how: Literal["stop", "kill", "cut", "restart"]
    unit: str = ""
    seconds: float = STOP

    @property
    def id(self) -> str:
        """As `--only` takes it."""
        return f"{self.kind}:{self.host}" if self.host else self.kind


def faults(cluster: Cluster) -> tuple[list[Fault], list[str]]:
    """Return the faults that this cluster should survive, in order, and notes about what is left out."""
    notes: list[str] = []
    return [*_load_balancers(cluster, notes), *_servers(cluster, notes), *_datastore(cluster, notes)], notes


def _load_balancers(cluster: Cluster, notes: list[str]) -> Iterator[Fault]:
    count = len(cluster.of("lb"))
    if count < 2:
        why = "there is only one load balancer" if count else "the load balancers are not set up by this tool"
        notes.append(f"left out: faults of load balancers: {why}")
        return
    yield Fault("haproxy-stop", "", "stop HAProxy on the load balancer that holds the VIP", "stop", HAPROXY)
    yield Fault("keepalived-stop", "", "stop keepalived on the load balancer that holds the VIP", "stop", KEEPALIVED)
    yield Fault("keepalived-kill", "", "kill keepalived on the load balancer that holds the VIP", "kill", KEEPALIVED)
    yield Fault("holder-cut", "", "cut the network of the load balancer that holds the VIP", "cut", seconds=CUT)


def _servers(cluster: Cluster, notes: list[str]) -> Iterator[Fault]:
    servers, unit = cluster.of("servers"), k3s.UNITS["server"]
    if len(servers) < 2:
        notes.append("left out: faults of servers: there is only one")
        return
    stores = [member.name for member in cluster.of("datastore")]
    for member in servers:
        yield Fault("server-stop", member.name, f"stop K3s on {member.name}", "stop", unit)
        yield Fault("server-kill", member.name, f"kill K3s on {member.name}", "kill", unit)
        if member.name in stores and len(stores) < 3:
            notes.append(f"left out: server-cut:{member.name}: the datastore cannot do without this host")
            continue
        yield Fault("server-cut", member.name, f"cut the network of {member.name}", "cut", seconds=CUT)
    yield Fault("rolling-restart", "", "restart K3s on one server after the other", "restart", unit, 0)


def _datastore(cluster: Cluster, notes: list[str]) -> Iterator[Fault]:
    stores = cluster.of("datastore")
    if not cluster.is_managed or not stores:
        notes.append("left out: faults of the datastore: it is not set up by this tool")
        return
    host, where = ("", "the leader of etcd") if len(stores) > 1 else (stores[0].name, stores[0].name)
    yield Fault("datastore-stop", host, f"stop the datastore on {where}", "stop", datastore.units(cluster), DATASTORE)
    if len(stores) > 2:
        yield Fault("datastore-cut", "", f"cut the network of {where}", "cut", seconds=CUT)


def targets(cluster: Cluster, fault: Fault) -> list[str]:
    """Return the hosts that a fault may be made on."""
    if fault.host:
        return [fault.host]
    role = "servers" if fault.how == "restart" else "datastore" if fault.kind.startswith("datastore") else "lb"
    return [member.name for member in cluster.of(role)]


def select(found: Sequence[Fault], only: Sequence[str], skip: Sequence[str]) -> list[Fault]:
    """Return the faults that were chosen, in their order.

    Arguments:
        only: Kinds, or KIND:HOST; empty for all.
        skip: Likewise, left out.

    Raises:
        UsageError: There is no such fault, or none is left.
    """
    known = [*dict.fromkeys(one.kind for one in found), *(one.id for one in found if one.host)]
    for word in (*only, *skip):
        if word not in known:
            near = closest(word, known)
            here = word in FAULTS
            text = f"this cluster has no fault {word!r}" if here else f"there is no fault {word!r}"
            raise UsageError(text, hint=f"did you mean {near}?" if near else f"there are: {', '.join(known)}")
    chosen = [one for one in found if not only or one.kind in only or one.id in only]
    chosen = [one for one in chosen if one.kind not in skip and one.id not in skip]
    if not chosen:
        raise UsageError("no fault is left", hint="leave out --only or --skip, or some of their names")
    return chosen
