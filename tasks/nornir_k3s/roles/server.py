"""The desired state of a K3s server.

Sources: docs.k3s.io `datastore/ha.md`, `cli/server.md`; k3s `pkg/cli/server/server.go` (what is ready when).
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
    MOVED,
    MOVING,
    PREVIOUS,
    SYSTEMD,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore, node

FOLDER = "/etc/rancher/k3s"


def names(cluster: Cluster) -> list[str]:
    """Return the names that clients use, for the certificate of every server: K3s' tls-san.

    Agents connect to the advertised addresses; before 1.37 K3s adds them after it has made the certificate (k3s:
    pkg/cli/server/server.go).
    """
    more = cluster.server.get("tls-san", [])
    given = [str(one) for one in (more if isinstance(more, list) else [more])]
    advertised = [cluster.settings_of(member).get("advertise-address") for member in cluster.of("servers")]
    return list(dict.fromkeys([*cluster.names, *given, *(str(one) for one in advertised if one)]))


def settings(cluster: Cluster, member: Member) -> dict[str, Any]:
    """Return a server's K3s settings: those of the cluster, then those of the host."""
    result: dict[str, Any] = {
        "token": cluster.token,
        "datastore-endpoint": datastore.endpoint(cluster),
        "tls-san": names(cluster),
        "node-name": member.node_name,
        "node-ip": [member.address],
    }
    if cluster.agent_token:
        result["agent-token"] = cluster.agent_token
    result |= {key: f"{FOLDER}/{name}" for key, name in datastore_files(cluster).items()}
    result |= {key: value for key, value in cluster.settings_of(member).items() if key != "tls-san"}
    if cluster.server_taint:
        taints = result.get("node-taint", [])
        own = taints if isinstance(taints, list) else [str(taints)]
        result["node-taint"] = list(dict.fromkeys([k3s.SERVER_TAINT, *own]))
    return result


def datastore_files(cluster: Cluster) -> dict[str, str]:
    """Return the TLS files for the datastore: K3s' setting, and the file's name on the servers."""
    names = {"datastore-cafile": "cafile", "datastore-certfile": "certfile", "datastore-keyfile": "keyfile"}
    if cluster.is_managed:
        certificates = cluster.managed.kind == "etcd"
        return {key: f"{key}.pem" for key in names if cluster.keys and (certificates or key == "datastore-cafile")}
    return {key: f"{key}.pem" for key, field in names.items() if getattr(cluster.datastore, field, None)}


def tls_texts(cluster: Cluster) -> dict[str, Secret]:
    """Return the texts of the TLS files for the datastore, by K3s' setting."""
    return {key: _tls_file(cluster, key) for key in datastore_files(cluster)}


def _tls_file(cluster: Cluster, setting: str) -> Secret:
    if cluster.keys:
        mine = {"cafile": Secret(cluster.keys.ca), "certfile": Secret(cluster.keys.client.certificate)}
        return {**mine, "keyfile": cluster.keys.client.key}[setting.removeprefix("datastore-")]
    return cluster.delivered[setting]


def spec(cluster: Cluster, member: Member, bundle: Bundle | None) -> HostSpec:
    """Return the desired state of a server's host."""
    unit = k3s.UNITS["server"]
    files = [File(k3s.CONFIG, settings_yaml(settings(cluster, member)), 0o600, masking="yaml", unit=unit)]
    files += [
        File(f"{FOLDER}/{name}", _tls_file(cluster, key), 0o600, masking="all", unit=unit)
        for key, name in datastore_files(cluster).items()
    ]
    more, gone = node.files(cluster, unit)
    return HostSpec(
        artifacts=bundle.artifacts() if bundle else (),
        install=Install("server", INSTALLER, unit),
        files=(*files, *more),
        gone=gone,
        units=(Unit(unit),),
        watch=(
            f"{k3s.DATA}/server/db/etcd/member/wal",
            f"{k3s.DATA}/server/db/state.db",
            f"{k3s.DATA}/server/tls",
            f"{k3s.DATA}/server/token",
            f"{SYSTEMD}/{k3s.UNITS['agent']}",
            f"{SYSTEMD}/{unit}",
            PREVIOUS,
            MOVING,
            MOVED,
            *named(settings(cluster, member)),
        ),
    )
