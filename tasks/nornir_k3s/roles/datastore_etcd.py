"""The desired state of an etcd that this tool sets up, with 1, 3 or 5 members.

Sources: etcd `op-guide/configuration.md` (every flag is a variable, too), `op-guide/clustering.md` (static bootstrap),
`op-guide/security.md`; K3s docs `datastore/datastore.md`; k3s#8061 (K3s logs in with a certificate, not a password).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nornir_k3s import shell
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.family import DEBIAN, Service
from nornir_k3s.model.host_spec import HEADER, File, HostSpec, Unit
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret

PORT = 2379
PEERS = 2380
FOLDER = DEBIAN.service("etcd").folder  # no other family has it
_GIB = 1 << 30


@dataclass(frozen=True)
class Etcd:
    """The distribution's etcd, with TLS between members and to K3s; client certificates are its only login."""

    ports: tuple[int, ...] = (PORT, PEERS)

    def endpoint(self, cluster: Cluster) -> Secret:
        """Return K3s' endpoint string: every member."""
        return Secret(",".join(url(member, PORT) for member in cluster.of("datastore")))

    def spec(self, cluster: Cluster, member: Member, service: Service) -> HostSpec:
        """Return the desired state of a member's host."""
        settings = {
            "NAME": member.name,
            "DATA_DIR": data_folder(cluster),
            "LISTEN_CLIENT_URLS": url(member, PORT),
            "ADVERTISE_CLIENT_URLS": url(member, PORT),
            "LISTEN_PEER_URLS": url(member, PEERS),
            "INITIAL_ADVERTISE_PEER_URLS": url(member, PEERS),
            "INITIAL_CLUSTER": _peers(cluster),
            "INITIAL_CLUSTER_TOKEN": cluster.name,
            "INITIAL_CLUSTER_STATE": "new",
            "CLIENT_CERT_AUTH": "true",
            "PEER_CLIENT_CERT_AUTH": "true",
            "QUOTA_BACKEND_BYTES": str(8 * _GIB),
        }
        for side in ("", "PEER_"):
            settings |= {f"{side}CERT_FILE": _pem("cert"), f"{side}KEY_FILE": _pem("key")}
            settings[f"{side}TRUSTED_CA_FILE"] = _pem("ca")
        text = HEADER + "".join(f"ETCD_{key}={value}\n" for key, value in settings.items())
        keys = cluster.keys
        pair = keys.hosts[member.name] if keys else None
        texts = {"ca": Secret(keys.ca), "cert": Secret(pair.certificate), "key": pair.key} if keys and pair else {}
        files = [
            File(_pem(name), content, 0o640, masking="all", unit=service.unit, action="reload", group="etcd")
            for name, content in texts.items()
        ]
        files += [File(DATASTORE_KEYS, keys.text, 0o600, masking="all")] if keys else []
        # It reads its certificates for every connection anew.
        unit = Unit(
            service.unit, reloadable=True, reload=":", proof=shell.call("etcd_alive", url(member, PORT), FOLDER)
        )
        config = File(service.config, Secret(text), unit=service.unit)
        return HostSpec(packages=service.packages, files=(*files, config), units=(unit,))

    def missing(self, cluster: Cluster, content: Database) -> list[str]:  # noqa: ARG002 - as every kind
        """Return nothing: K3s creates all content."""
        return []

    def prepare(self, cluster: Cluster) -> Secret:  # noqa: ARG002 - as every kind
        """Return no script: K3s creates all content."""
        return Secret("")

    def dump(self, cluster: Cluster, member: Member) -> Recipe:
        """Return how everything is written to a file, a snapshot."""
        size = shell.call("size_etcd", data_folder(cluster))
        write = shell.call("write_etcd", url(member, PORT), FOLDER)
        options = {
            "name": member.name,
            "initial-cluster": _peers(cluster),
            "initial-advertise-peer-urls": url(member, PEERS),
        }
        words = [f"--{key}={value}" for key, value in options.items()]
        verify = shell.call("verify_etcd", data_folder(cluster))
        replace = shell.call("replace_etcd", url(member, PORT), FOLDER, data_folder(cluster), *words)
        return Recipe("etcd", size, write, "etcdctl snapshot restore FILE (on every member)", replace, verify)

    def obsolete_users(self, cluster: Cluster, content: Database) -> list[str]:  # noqa: ARG002 - as every kind
        """Return nothing: there are no users."""
        return []

    def tidy(self, users: Sequence[str]) -> Secret:  # noqa: ARG002 - as every kind
        """Return no script: there are no users."""
        return Secret("")

    def own_users(self, cluster: Cluster, content: Database) -> list[str]:  # noqa: ARG002 - as every kind
        """Return nothing: there are no users."""
        return []

    def drop(self, cluster: Cluster, users: Sequence[str]) -> Secret:  # noqa: ARG002 - as every kind
        """Return a script that removes the member's data."""
        return Secret(f'systemctl stop etcd.service\nrm -rf {data_folder(cluster)}\nsay did "$STEP" changed\n')


def _peers(cluster: Cluster) -> str:
    return ",".join(f"{one.name}={url(one, PEERS)}" for one in cluster.of("datastore"))


def url(member: Member, port: int) -> str:
    """Return the URL of a member's port."""
    return f"https://[{member.address}]:{port}" if ":" in member.address else f"https://{member.address}:{port}"


def data_folder(cluster: Cluster) -> str:
    """Return the data folder of a member."""
    return f"/var/lib/etcd/{cluster.name}"


def _pem(name: str) -> str:
    return f"{FOLDER}/{name}.pem"


ETCD = Etcd()
