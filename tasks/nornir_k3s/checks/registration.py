"""Checks of a registration address that is not ours: an external load balancer, or a name of the servers. Pure.

Sources: docs.k3s.io `datastore/ha.md`, `cluster-loadbalancer.md`; k3s `pkg/clientaccess/token.go` (agents compare the
CA at the address with that of their token, so TLS must not end before a server); client-go asks for a sign of life on
an HTTP/2 connection that is idle for 30 s (`ReadIdleTimeout`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.checks.names import addresses_of
from nornir_k3s.model.address_answer import CONTROLLER, AddressAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts

_REMEDY = "let the load balancer pass TCP through, without TLS of its own: clients verify the servers' certificate"


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts], address: AddressAnswer | None) -> Iterator[Finding]:
    """Yield what is wrong with a registration address that someone else runs.

    Arguments:
        address: What was found there; None if nobody has asked.
    """
    if address is None or cluster.registration.way == "vip":
        return
    ready = [m for m in cluster.of("servers") if m.name in all_facts and all_facts[m.name].ready]
    if address.failure == "tls":
        found = f"the TLS handshake with {cluster.url} failed: {address.error}"
        yield _problem(found, "the servers' TLS", _REMEDY)
    elif address.failure == "certificate":
        found = f"{cluster.url} presents {address.error}"
        yield _problem(found, "the servers' certificate, signed by the cluster's CA", _REMEDY)
    elif ready and address.answers and address.refused == address.answers:
        found = f"{cluster.url} does not pass the certificates of clients on: it answers 401 to an administrator"
        yield _problem(found, "the servers' own TLS", _REMEDY)
    elif address.resolved == ():
        pass  # `name` says it
    elif address.failure == "connection" and ready:
        found = f"{address.via} cannot connect to {cluster.url}: {address.error}"
        yield _problem(found, "an answer of a server", todo(cluster), "warning")
    elif address.unreached:
        found = f"{CONTROLLER} cannot connect to {cluster.url}: {address.unreached}; {address.via} can"
        yield _problem(found, "the kubeconfig works here", "nothing to do if nobody uses it here", "note")
    if address.ttl is not None:
        found = f"the addresses of {cluster.registration.name} may be cached for {address.ttl} s (TTL)"
        remedy = "nothing to do; the shorter it is, the sooner clients leave a server that was taken out"
        yield _problem(found, "a short time", remedy, "note")
    never = [m.name for m in ready if not addresses_of(cluster, m, all_facts) & address.seen]
    hosts = set(address.resolved or [str(cluster.registration.address)])
    alone = next((m.name for m in ready if hosts and hosts <= addresses_of(cluster, m, all_facts)), "")
    wrong: list[tuple[str, str, str]] = []
    severity: Severity = "warning"
    if cluster.registration.way == "external" and address.seen and never:
        found = f"none of {address.answers} connections to {cluster.url} was answered by {', '.join(never)}"
        remedy = "add it to the load balancer; nothing to do if all connections of a client go to one server there"
        if alone:
            severity = "note"
            found = f"{cluster.url} is {alone} itself: while it is down, no agent joins, and kubectl has no cluster"
            remedy = "give `registration` a VIP, or a name of all servers"
        wrong.append((found, "every server", remedy))
    if address.idle is not None:
        severity = "warning"
        found = f"{cluster.url} closes a connection that is idle after {address.idle:.0f} s"
        wrong.append((found, "watches stay", "set its idle timeout to 10 minutes or more"))
    if wrong:
        found, expected, remedy = ("; ".join(words) for words in zip(*wrong, strict=True))
        yield _problem(found, expected, remedy, severity)


def _problem(found: str, expected: str, remedy: str, severity: Severity = "error") -> Finding:
    return problem(CLUSTER, "registration", found, expected, remedy, severity)


def todo(cluster: Cluster) -> str:
    """Return what someone else must configure at the registration address; nothing if that is our work."""
    port = cluster.server.get("https-listen-port", k3s.API_PORT)
    hosts = [f"[{m.address}]" if ":" in m.address else m.address for m in cluster.of("servers")]
    if cluster.registration.way == "external":
        backends = ", ".join(f"{host}:{port}" for host in hosts)
        return (
            f"the load balancer of {cluster.url} must pass TCP through to {backends}; health check: HTTPS GET"
            " /readyz, where 401 means ready, or TCP; idle timeout: 10 minutes or more"
        )
    if cluster.registration.way == "dns":
        given = str(cluster.registration.address or "") or ", ".join(m.address for m in cluster.of("servers"))
        return f"{cluster.registration.name} must resolve to {given}"
    return ""
