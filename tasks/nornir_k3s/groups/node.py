"""What servers and agents have in common: registries and proxy.

Sources: docs.k3s.io `installation/private-registry.md`, `advanced.md` (HTTP proxy); k3s `install.sh` (the unit reads
/etc/default/NAME).
"""

from __future__ import annotations

from nornir_k3s.artifacts import text_of
from nornir_k3s.cluster import Cluster
from nornir_k3s.rules import CIDRS, listed
from nornir_k3s.secret import Secret
from nornir_k3s.spec import HEADER, File, Gone

REGISTRIES = "/etc/rancher/k3s/registries.yaml"


def files(cluster: Cluster, unit: str) -> tuple[tuple[File, ...], tuple[Gone, ...]]:
    """Return the files that a node has beside its config.yaml, and those that it must not have any more."""
    environment = f"/etc/default/{unit.removesuffix('.service')}"
    wanted: dict[str, Secret | None] = {
        REGISTRIES: text_of(cluster.registries, "registries") if cluster.registries else None,
        environment: _proxy(cluster),
    }
    have = (File(path, text, 0o600, masking="all", unit=unit) for path, text in wanted.items() if text)
    return tuple(have), tuple(Gone(path, unit) for path, text in wanted.items() if not text)


def _proxy(cluster: Cluster) -> Secret | None:
    if cluster.proxy is None:
        return None
    own = [item for key, default in CIDRS.items() for item in listed(cluster.server.get(key, default))]
    hosts = [member.address for member in cluster.members]
    domain = f".{cluster.server.get('cluster-domain', 'cluster.local')}"
    none = ["127.0.0.0/8", "::1", "localhost", ".svc", domain, *own, *hosts, *cluster.names, *cluster.proxy.no_proxy]
    values = {
        "HTTP_PROXY": cluster.proxy.http,
        "HTTPS_PROXY": cluster.proxy.https,
        "NO_PROXY": ",".join(dict.fromkeys(none)),
    }
    return Secret(HEADER + "".join(f'{name}="{value}"\n' for name, value in values.items() if value))
