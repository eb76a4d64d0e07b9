"""Networks of pods and services with which K3s does not start, or not on all nodes.

Sources: kubernetes `pkg/controller/nodeipam` (a part of cluster-cidr for each node, `node-cidr-mask-size`),
`cmd/kube-apiserver/app/options/validation.go` (at least 8 services); k3s `pkg/cli/server/server.go` (cluster-dns).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nornir_k3s.inventory.rules import Found, Network, listed, networks
from nornir_k3s.model.cluster import Setting

_PART = {4: 24, 6: 64}  # of one node, by IP version
_WIDEST = 16  # bits between cluster-cidr and the part of one node, with IPv6


def problems(server: Mapping[str, Setting], version: int, nodes: int) -> Iterator[Found]:
    """Yield the networks that are too small or too large.

    Arguments:
        server: The cluster-wide settings of servers, typed.
        version: The IP version of the servers' first address.
        nodes: How many servers and agents there are.
    """
    for network in networks(server, "cluster-cidr", version):
        part = _part(server, network.version)
        argument = "`node-cidr-mask-size` in kube-controller-manager-arg"
        where = ("cluster-cidr",) if "cluster-cidr" in server else ("kube-controller-manager-arg",)
        if network.prefixlen > part:
            yield where, f"{network} is too small: each node gets a /{part} of it; make it larger, or set {argument}"
        elif network.version == 6 and part - network.prefixlen > _WIDEST:
            text = f"{network} is too large for parts of /{part}: K3s takes /{part - _WIDEST} at most"
            yield where, f"{text}; make it smaller, or set {argument}"
        elif 1 << (part - network.prefixlen) < nodes:
            have = 1 << (part - network.prefixlen)
            yield where, f"{network} has a /{part} for {have} nodes, and there are {nodes}: make it larger"
    yield from _services(server, networks(server, "service-cidr", version))


def _services(server: Mapping[str, Setting], found: list[Network]) -> Iterator[Found]:
    least = 8 if "cluster-dns" in server else 16
    for network in found:
        if network.num_addresses < least:
            why = "K3s takes its tenth address for cluster-dns" if least > 8 else "K3s needs 8 addresses"
            yield ("service-cidr",), f"{network} is too small: {why}"
    for item in listed(server.get("cluster-dns", [])):
        if any(item in (str(network[0]), str(network[1])) for network in found if network.num_addresses > 1):
            yield ("cluster-dns",), f"{item} is the network itself, or the address of the service `kubernetes`"


def _part(server: Mapping[str, Setting], version: int) -> int:
    """Return the prefix length of the network that one node gets."""
    found = _PART[version]
    arguments = server.get("kube-controller-manager-arg", [])
    for item in arguments if isinstance(arguments, list) else []:
        match = re.fullmatch(rf"(--)?node-cidr-mask-size(-ipv{version})?=([0-9]{{1,3}})", str(item))
        found = int(match[3]) if match else found
    return found
