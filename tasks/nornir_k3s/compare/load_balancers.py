"""The registration address: HAProxy's view of the servers, and who has the VIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.compare.host import at
from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts


def states(seen: HostFacts) -> dict[str, str]:
    """Return each server as this load balancer's HAProxy sees it; empty where it does not answer."""
    return {name: backend.state for name, backend in seen.backends.items()}


def holders(cluster: Cluster, facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the load balancers that have the VIP."""
    vip = str(cluster.registration.address or "")
    return [m.name for m in cluster.of("lb") if m.name in facts and facts[m.name].interface_of(vip)]


def differences(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield what is wrong with the way in."""
    balancers = cluster.of("lb")
    for member in balancers:
        if member.name in facts:
            yield from _backends(cluster, member.name, facts[member.name])
    have = holders(cluster, facts)
    if not balancers or len(have) == 1 or (not have and any(m.name not in facts for m in balancers)):
        return  # one that could not be read may have it
    where = f"on {' and '.join(have)}" if have else "on no load balancer"
    remedy = "look at keepalived on each, and whether they reach each other (VRRP, protocol 112)"
    yield Finding(
        host=CLUSTER, kind="vip", subject=str(cluster.registration.address), found=f"the VIP is {where}",
        expected="on exactly one", remedy=remedy, severity="error",
    )  # fmt: skip


def _backends(cluster: Cluster, host: str, seen: HostFacts) -> Iterator[Finding]:
    if seen.unit("haproxy.service").active != "active":
        return  # told by the unit
    have = seen.backends
    if not have:
        yield Finding(
            host=host, kind="backend", subject="haproxy", found="HAProxy does not answer at its socket",
            expected="the state of each server", remedy="look at it: journalctl -u haproxy", severity="error",
        )  # fmt: skip
        return
    for server in cluster.of("servers"):
        backend = have.get(server.node_name)
        if backend is None:
            yield Finding(
                host=host, kind="backend", subject=server.node_name,
                found=f"it does not know server {server.node_name}",
                expected="every server", remedy="deploy.py writes its configuration and reloads it", fixed_by="deploy",
                severity="error",
            )  # fmt: skip
        elif not backend.state.startswith("UP"):
            yield Finding(
                host=host, kind="backend", subject=server.node_name,
                found=f"it sees server {server.node_name} {backend.state}", expected="UP",
                since=at(seen.now - backend.seconds) if backend.seconds is not None else None,
                remedy=f"look at {server.name}, and at the way from {host} to it", severity="error",
            )  # fmt: skip
