"""The desired state of a K3s agent.

Sources: docs.k3s.io `cli/agent.md`; k3s `pkg/clientaccess/token.go` (the full token lets it verify the cluster's CA).
"""

from __future__ import annotations

from typing import Any

from nornir_k3s import k3s
from nornir_k3s.inventory.named_files import named
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.host_spec import File, HostSpec, Install, Unit, settings_yaml
from nornir_k3s.model.paths import (
    INSTALLER,
    PREVIOUS,
    SYSTEMD,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import node


def settings(cluster: Cluster, member: Member, ca_prefix: str) -> dict[str, Any]:
    """Return an agent's K3s settings.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA; empty before the first server has created it.
    """
    token: Secret = cluster.agent_token or cluster.token
    if ca_prefix:
        token = k3s.agent_token(ca_prefix, token=cluster.token, agent=cluster.agent_token)
    return {
        "server": cluster.url,
        "token": token,
        "node-name": member.node_name,
        "node-ip": [member.address],
        **cluster.agent,
        **member.settings,
    }


def spec(cluster: Cluster, member: Member, bundle: Bundle | None, ca_prefix: str) -> HostSpec:
    """Return the desired state of an agent's host."""
    unit = k3s.UNITS["agent"]
    more, gone = node.files(cluster, unit)
    return HostSpec(
        artifacts=bundle.artifacts() if bundle else (),
        install=Install("agent", INSTALLER, unit),
        files=(
            File(k3s.CONFIG, settings_yaml(settings(cluster, member, ca_prefix)), 0o600, masking="yaml", unit=unit),
            *more,
        ),
        gone=gone,
        units=(Unit(unit, patient=cluster.awaits_cni),),
        watch=(
            f"{k3s.DATA}/server/tls",
            f"{SYSTEMD}/{k3s.UNITS['server']}",
            f"{SYSTEMD}/{unit}",
            PREVIOUS,
            *named(settings(cluster, member, ca_prefix)),
        ),
    )
