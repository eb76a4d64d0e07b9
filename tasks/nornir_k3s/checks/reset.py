"""What speaks against taking a cluster down. Pure: cluster and facts in, sentences out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nornir_k3s.checks import shared_database, token
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.suggest import did_you_mean


def filtered(away: Collection[str]) -> Iterator[str]:
    """Yield that hosts of the cluster are not in this inventory."""
    if away:
        yield f"{', '.join(sorted(away))}: not in this inventory: a reset needs the whole one"


def unknown(names: Collection[str], lost: Collection[str]) -> Iterator[str]:
    """Yield lost hosts that are none of the cluster."""
    yield from (f"{one} is not in this cluster{did_you_mean(one, names)}" for one in lost if one not in names)


def refusals(cluster: Cluster, all_facts: Mapping[str, HostFacts], ca: str) -> Iterator[str]:
    """Yield servers and agents of another cluster: an address may be wrong.

    Arguments:
        ca: The hash of the cluster's CA, as the last deploy has seen it; empty if unknown.
    """
    for member in cluster.of("servers"):
        facts = all_facts.get(member.name)
        if facts and facts.made.state and ca and facts.server.ca_prefix not in ("", ca):
            yield f"{member.name} is a server of another cluster: its CA is not the one of {cluster.name}"
    for member in cluster.of("agents"):
        facts = all_facts.get(member.name)
        if facts and facts.made.state and ca and facts.agent_ca and f"K10{facts.agent_ca}" != ca:
            yield (
                f"{member.name} is an agent of another cluster: its CA is not the one of {cluster.name}"
                " (after a rotation of the CA that it missed: run deploy first)"
            )


def kept_token(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[str]:
    """Yield servers that have another token than the one that is kept for data that stay."""
    stored = token.stored(all_facts)
    names = [name for name in token.others(cluster, all_facts) if all_facts[name].made.state]
    if stored:
        names = [name for name in names if all_facts[name].server.token == stored != cluster.token.fingerprint()]
    if names:
        yield (
            f"the token was rotated on {', '.join(names)}, and the controller has the old one, which does not open the"
            " data that stay: run deploy first, which takes it over, or reset the datastore, too"
        )


def data(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[str]:
    """Yield hosts of a managed datastore whose content is not known, or is others'."""
    for member in cluster.of("datastore") if cluster.is_managed and cluster.managed.kind != "etcd" else ():
        facts = all_facts.get(member.name)
        if facts and cluster.managed.shared:
            said = (found for found, _ in shared_database.of_others(cluster, facts))
            yield from (f"{member.name}: {found}: leave the datastore out, or correct its names" for found in said)
        if facts is None or facts.database.alive:
            continue
        service = facts.family.service(cluster.managed.kind)
        stopped = service.main in facts.made.stopped - facts.made.shared
        if stopped or not set(service.packages[:1]) & set(facts.made.packages):
            continue
        yield (
            f"{member.name}: {service.main} does not answer, and may have more than this cluster's data: start it, or"
            " leave the datastore out"
        )
