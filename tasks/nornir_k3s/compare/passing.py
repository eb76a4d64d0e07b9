"""What may be passing, and is read a second time before it is reported: one lost connection is no drift. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CHECK, CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts

CONTROLLER = CLUSTER  # what the controller itself has asked


def hosts(cluster: Cluster, all_facts: Mapping[str, HostFacts], found: Iterable[Finding]) -> set[str]:
    """Return the hosts to read again, and CONTROLLER if its own connections are to be tried again.

    A load balancer without keepalived is not read again: its VIP does not move.

    Arguments:
        found: What differs after the first look.
    """
    again: set[str] = set()
    for one in found:
        check = one.subject if one.kind == CHECK else ""
        if one.kind in ("vip", "backend"):
            again |= {member.name for member in cluster.of("lb") if _moves(all_facts.get(member.name))}
        elif one.kind == "revision":
            again |= {member.name for member in cluster.members if set(member.roles) & {"datastore", "servers"}}
        elif one.severity != "note" and one.host in all_facts and (one.kind == "api" or check == "datastore"):
            again.add(one.host)
        elif one.severity == "error" and (one.kind == "kubeconfig" or check == "registration"):
            again.add(CONTROLLER)
    return again


def _moves(facts: HostFacts | None) -> bool:
    return facts is not None and facts.unit("keepalived.service").active == "active"
