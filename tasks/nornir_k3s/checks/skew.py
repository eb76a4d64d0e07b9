"""How far the versions of servers, agents and kubectl may be apart.

Source: kubernetes.io `releases/version-skew-policy`: servers one minor version, agents never newer than servers and up
to three older, kubectl one minor version from the servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.k3s_facts import NodeState


def problems(cluster: Cluster, nodes: Sequence[NodeState]) -> list[str]:
    """Return which nodes are too far apart, one sentence each."""
    servers, agents = (_minors(cluster, nodes, role) for role in ("servers", "agents"))
    if not servers:
        return []
    oldest, newest = min(servers.values()), max(servers.values())
    found = []
    if newest[1] - oldest[1] > 1:
        found.append(f"servers are {newest[1] - oldest[1]} minor versions apart, at most 1 is supported")
    for name, minor in agents.items():
        behind = newest[1] - minor[1]
        if minor > oldest:
            found.append(f"node {name} has {_shown(minor)}, a server {_shown(oldest)}: agents may not be newer")
        elif behind > 3:
            found.append(f"node {name} is {behind} minor versions older than a server, at most 3 are supported")
    return found


def kubectl(version: str, servers: Sequence[str]) -> str:
    """Return that kubectl does not fit the servers, or nothing.

    Arguments:
        version: Of kubectl, `v1.34.2`; empty if it is not known.
        servers: Their versions.
    """
    own, theirs = _minor(version), list(filter(None, map(_minor, servers)))
    if own is None or all(minor[0] == own[0] and abs(minor[1] - own[1]) <= 1 for minor in theirs):
        return ""
    return f"kubectl on this machine is {version}: it is made for servers within one minor version of it"


def _minors(cluster: Cluster, nodes: Sequence[NodeState], role: str) -> Mapping[str, tuple[int, int]]:
    names = {member.node_name for member in cluster.of(role)}
    found = ((node.name, _minor(node.version)) for node in nodes if node.name in names)
    return {name: minor for name, minor in found if minor}


def _minor(version: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def _shown(minor: tuple[int, int]) -> str:
    return ".".join(map(str, minor))
