"""The load balancers: the servers' states in HAProxy, and the VIP."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nornir_k3s.compare.host import at
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts

HAPROXY = "haproxy.service"


def states(facts: HostFacts) -> dict[str, str]:
    """Return the state of each server in this load balancer's HAProxy; empty if HAProxy does not answer."""
    return {name: backend.state for name, backend in facts.backends.items()}


def holders(cluster: Cluster, all_facts: Mapping[str, HostFacts], vip: str = "") -> list[str]:
    """Return the load balancers that have the VIP: that of the registration address, unless another is given."""
    vip = vip or str(cluster.registration.address or "")
    return [m.name for m in cluster.of("lb") if m.name in all_facts and all_facts[m.name].interface_of(vip)]


def differences(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], *, loaded: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield the problems of the load balancers.

    Arguments:
        loaded: The hosts where the next deploy starts, restarts or reloads HAProxy.
    """
    balancers = cluster.of("lb")
    for member in balancers:
        if member.name in all_facts:
            yield from _backends(cluster, member.name, all_facts[member.name], deploys=member.name in loaded)
    for vip in cluster.vips:
        yield from _vip(cluster, all_facts, vip)


def _vip(cluster: Cluster, all_facts: Mapping[str, HostFacts], vip: str) -> Iterator[Finding]:
    balancers, names = cluster.of("lb"), holders(cluster, all_facts, vip)
    if not balancers or len(names) == 1 or (not names and any(m.name not in all_facts for m in balancers)):
        return  # a load balancer that could not be read may have it
    yield Finding(
        host=CLUSTER, kind="vip", subject=vip,
        found=f"the VIP is on {' and '.join(names) or 'no load balancer'}", expected="on exactly one load balancer",
        remedy="check keepalived on each, and that VRRP (IP protocol 112) passes between them", severity="error",
    )  # fmt: skip


def _backends(cluster: Cluster, host: str, facts: HostFacts, *, deploys: bool) -> Iterator[Finding]:
    if facts.unit(HAPROXY).active != "active":
        return  # reported as a unit
    if not facts.backends:
        yield Finding(
            host=host, kind="backend", subject="haproxy", found="HAProxy does not answer at its socket",
            expected="the state of each server", remedy="find the cause: journalctl -u haproxy", severity="error",
        )  # fmt: skip
        return
    for server in cluster.of("servers"):
        backend = facts.backends.get(server.node_name)
        if backend is None:
            does = "the next deploy makes HAProxy read its configuration"
            yield Finding(
                host=host, kind="backend", subject=server.node_name,
                found=f"HAProxy does not have server {server.node_name}",
                expected="every server", remedy=does if deploys else f"systemctl reload {HAPROXY}",
                fixed_by="deploy" if deploys else "person", severity="error",
            )  # fmt: skip
        elif not backend.state.startswith("UP") and server.node_name not in facts.ledger.drained:
            yield Finding(
                host=host, kind="backend", subject=server.node_name,
                found=f"HAProxy reports server {server.node_name} as {backend.state}", expected="UP",
                since=at(facts.now - backend.seconds) if backend.seconds is not None else None,
                remedy=f"check {server.name}, and the network from {host} to it", severity="error",
            )  # fmt: skip
