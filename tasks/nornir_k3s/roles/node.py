"""The files that servers and agents have in common: registries, and K3s' environment (proxy, datastore pool).

Sources: docs.k3s.io `installation/private-registry.md`, `advanced.md` (HTTP proxy); k3s `install.sh` (the unit reads
/etc/default/NAME); kine `pkg/app/app.go` (KINE_*; K3s reads them from about v1.33.4).
"""

from __future__ import annotations

from nornir_k3s.inventory.rules import CIDRS, networks
from nornir_k3s.k3s import UNITS
from nornir_k3s.model.cluster import Cluster, UserFile
from nornir_k3s.model.host_spec import HEADER, File, Gone
from nornir_k3s.model.secret import Secret

REGISTRIES = "/etc/rancher/k3s/registries.yaml"


def files(cluster: Cluster, unit: str) -> tuple[tuple[File, ...], tuple[Gone, ...]]:
    """Return the files of a node besides its config.yaml, and those that it must not have any more."""
    environment = f"/etc/default/{unit.removesuffix('.service')}"
    wanted: dict[str, Secret | None] = {
        REGISTRIES: cluster.delivered.get("registries"),
        environment: _environment(_proxy(cluster) | (_pool(cluster) if unit == UNITS["server"] else {})),
    }
    present = (File(path, text, 0o600, masking="all", unit=unit) for path, text in wanted.items() if text)
    role = "servers" if unit == UNITS["server"] else "agents"
    own = (_own(file, unit) for file in cluster.files if role in file.roles)
    return (*present, *own), tuple(Gone(path, unit) for path, text in wanted.items() if not text)


def _own(file: UserFile, unit: str) -> File:
    reader = unit if file.restart else ""
    return File(file.path, file.text, file.mode, masking="all", unit=reader, owner=file.owner, group=file.group)


def _environment(values: dict[str, str | None]) -> Secret | None:
    lines = [f'{name}="{value}"\n' for name, value in values.items() if value]
    return Secret(HEADER + "".join(lines)) if lines else None


def _pool(cluster: Cluster) -> dict[str, str | None]:
    pool = cluster.datastore_pool
    if pool is None:
        return {}
    return {
        "KINE_DATASTORE_MAX_OPEN_CONNECTIONS": str(pool.max_open or ""),
        "KINE_DATASTORE_MAX_IDLE_CONNECTIONS": str(pool.max_idle or ""),
        "KINE_DATASTORE_CONNECTION_MAX_LIFETIME": pool.max_lifetime,
    }


def _proxy(cluster: Cluster) -> dict[str, str | None]:
    if cluster.proxy is None:
        return {}
    own = [str(network) for key in CIDRS for network in networks(cluster.server, key, cluster.ip_version)]
    hosts = [address for member in cluster.members for address in member.addresses]
    domain = f".{cluster.server.get('cluster-domain', 'cluster.local')}"
    none = ["127.0.0.0/8", "::1", "localhost", ".svc", domain, *own, *hosts, *cluster.names, *cluster.proxy.no_proxy]
    return {
        "HTTP_PROXY": cluster.urls["proxy.http"].reveal() if cluster.proxy.http else None,
        "HTTPS_PROXY": cluster.urls["proxy.https"].reveal() if cluster.proxy.https else None,
        "NO_PROXY": ",".join(dict.fromkeys(none)),
    }
