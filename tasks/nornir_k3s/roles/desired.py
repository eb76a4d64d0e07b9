"""The desired state of a host of any role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.family import DEBIAN, Family
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec, together
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.went_back import WentBack
from nornir_k3s.roles import agent, datastore, load_balancer, server


@dataclass(frozen=True)
class Known:
    """What is known besides the inventory and the host's own facts; empty while unknown.

    Arguments:
        bundle: The release for the host's architecture.
        ca_prefix: `K10` and the hash of the cluster's CA.
        ca_certificate: The CA of the servers' certificates, PEM.
        check_certificate: Certificate and key of the load balancers' health check.
        packages: Versions of a datastore host's packages at the last deploy.
        former_vips: VIPs of before a change, which load balancers hold until no host uses them.
        family: Its family of distributions at the last deploy.
        left: Servers and agents that are not in the inventory any more, and still belong to the cluster.
        nodes: The K3s version of each node, for servers and agents; None if no server lists them.
        went_back: The datastore's newest revision is lower than it was, and this server may not know it.
        stored: The fingerprint of the token that the datastore's data are encrypted with.
        keys: The hash of the keys of secrets that each server must have, while they are changed.
        new_ca: The certificates that replace `ca_certificate`, PEM: K3s has stored them in the datastore.
        renew: Certificates of K3s that are older are made anew, in seconds since the epoch; 0 for none.
    """

    bundle: Bundle | None = None
    ca_prefix: str = ""
    ca_certificate: str = ""
    check_certificate: Secret = field(default=Secret(""))
    packages: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] | None = None
    former_vips: tuple[str, ...] = ()
    left: tuple[Member, ...] = ()
    family: Family = DEBIAN
    went_back: WentBack | None = None
    stored: str = ""
    keys: str = ""
    renew: float = 0
    new_ca: str = ""


def desired_by_role(cluster: Cluster, member: Member, facts: HostFacts | None, known: Known) -> dict[str, HostSpec]:
    """Return the desired state of each role of a host, as far as it is known now.

    Arguments:
        facts: None before the host was read.
    """
    cluster = replace(cluster, left=known.left)
    return {role: _of_role(role, cluster, member, facts, known) for role in member.roles}


def desired(cluster: Cluster, member: Member, facts: HostFacts | None, known: Known) -> HostSpec:
    """Return the desired state of a host, as far as it is known now.

    Arguments:
        facts: None before the host was read.
    """
    return together(desired_by_role(cluster, member, facts, known).values())


def _of_role(role: str, cluster: Cluster, member: Member, facts: HostFacts | None, known: Known) -> HostSpec:
    family = facts.family if facts else known.family
    match role:
        case "servers":
            return server.spec(cluster, member, known.bundle)
        case "agents":
            return agent.spec(cluster, member, known.bundle, known.ca_prefix)
        case "lb":
            interface = member.interface or (facts.interface_of(member.address) if facts else "")
            return load_balancer.spec(
                replace(cluster, former_vips=known.former_vips),
                member,
                interface=interface,
                check_pem=known.check_certificate,
                server_ca=known.new_ca or known.ca_certificate,
                round_trips=facts.round_trips if facts else load_balancer.NOTHING,
                family=family,
            )
        case _:
            return datastore.spec(cluster, member, family, facts.versions if facts else known.packages)
