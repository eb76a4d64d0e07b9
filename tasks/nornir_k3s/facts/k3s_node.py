"""Certificates of hosts, and files on servers and agents that set other settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import family, pem
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.k3s_facts import CertificateFile, SettingsFile
from nornir_k3s.records import Record, decoded, integer
from nornir_k3s.roles import datastore, haproxy, server


class AgentCA(Fact[str]):
    """SHA-256 of the cluster's CA that an agent has joined with (k3s: pkg/agent/config)."""

    name, source, roles, when = "agent_ca", "k3s_node", NODES, "setup"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read K3s' data folder."""
        return (k3s.DATA,)

    def parse(self, records: Sequence[Record]) -> str:
        """Return it in hex."""
        return records[0].take(1)[0]


class ThroughAddress(Fact[str]):
    """Why this agent does not reach the API through the registration address; empty if it does."""

    name, source, roles = "registration", "k3s_node", ("agents",)

    def arguments(self, query: Query) -> Iterable[object]:
        """Use K3s' own kubectl, and the kubelet's kubeconfig."""
        return (k3s.BINARY, query.cluster.url, k3s.DATA)

    def parse(self, records: Sequence[Record]) -> str:
        """Return the reason."""
        return records[0].take(1)[0].strip()


class NodePassword(Fact[bool]):
    """Whether this host has the password that its node was registered with (k3s: pkg/agent/config, nodepassword)."""

    name, source, roles, when = "node_password", "k3s_node", NODES, "setup"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read K3s' data folder."""
        return (k3s.DATA,)

    def parse(self, records: Sequence[Record]) -> bool:
        """Return it."""
        return records[0].take(1)[0] != "no"


# Those of K3s (docs.k3s.io `cli/certificate.md`), and those that a deploy writes.
_CERTIFICATES = {
    "servers": (
        *(f"{k3s.DATA}/{folder}/*.crt" for folder in ("server/tls", "server/tls/etcd", "server/tls/kube-*", "agent")),
        f"{k3s.DATA}/server/tls/dynamic-cert.json",
        f"{server.FOLDER}/datastore-cafile.pem",
        f"{server.FOLDER}/datastore-certfile.pem",
    ),
    "agents": (f"{k3s.DATA}/agent/*.crt",),
    "lb": (haproxy.CHECK_CERT,),
    "datastore": tuple(
        dict.fromkeys(
            f"{one.at('*').folder}/{'' if kind == 'etcd' else 'nornir-k3s-'}{name}.pem"
            for kind in datastore.KINDS
            for one in family.every(kind)
            for name in ("cert", "ca")
        )
    ),
}


class Certificates(Fact[tuple[CertificateFile, ...]]):
    """When certificates expire: K3s' own, those of a managed datastore, that of the load balancers' health check."""

    name, source = "certificates", "k3s_node"

    def arguments(self, query: Query) -> Iterable[object]:
        """Name the role's files."""
        return [path for role in query.member.roles for path in _CERTIFICATES[role]]

    def parse(self, records: Sequence[Record]) -> tuple[CertificateFile, ...]:
        """Return the first certificate to expire of each file."""
        found = []
        for record in records:
            path, text, written = record.take(3)
            if certificates := list(pem.certificates(decoded(text))):  # K3s may just be writing it
                first = min(certificates, key=lambda one: one.not_valid_after_utc)
                authority = first.subject == first.issuer or path.endswith(("-ca.crt", "-ca.nochain.crt"))
                found.append(CertificateFile(path, first.not_valid_after_utc, authority, integer(written)))
        return tuple(found)


class ExtraSettings(Fact[tuple[SettingsFile, ...]]):
    """Files that set K3s settings beside ours: config.yaml.d and the unit's environment files.

    Sources: docs.k3s.io `installation/configuration.md`; K3s' `install.sh`.
    """

    name, source, roles = "extra_settings", "k3s_node", NODES

    def arguments(self, query: Query) -> Iterable[object]:
        """Name the unit, after which environment files are named."""
        return ("k3s" if query.member.role == "servers" else "k3s-agent",)

    def parse(self, records: Sequence[Record]) -> tuple[SettingsFile, ...]:
        """Return each file with the names that it sets."""
        rows = (record.take(3) for record in records)
        return tuple(SettingsFile(path, tuple(names.split()), integer(changed)) for path, names, changed in rows)
