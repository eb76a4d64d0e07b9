"""Facts about K3s on a host: API, nodes, certificates, settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class SettingsFile(NamedTuple):
    """A file of other K3s settings: only their names, because values may be secrets."""

    path: str
    names: tuple[str, ...]
    changed: int


class RequestedApi(NamedTuple):
    """A deprecated API that somebody asks a server for, and the release of Kubernetes that does not have it."""

    group: str
    version: str
    resource: str
    removed: str


class SystemPod(NamedTuple):
    """A pod of kube-system that runs for ever: its owner, as `Deployment coredns`, its node, and if it is ready."""

    owner: str
    node: str
    ready: bool


@dataclass(frozen=True)
class BeforeUpgrade:
    """What is compared after an upgrade: the pods of kube-system, if they were listed, and nodes that were cordoned."""

    pods: tuple[SystemPod, ...] | None
    cordoned: frozenset[str]


@dataclass(frozen=True)
class ServerFiles:
    """The cluster according to a server's files.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA.
        token: Fingerprint of the token that it was started with.
        ca_certificate: The CA of the servers' certificates, PEM.
    """

    ca_prefix: str = ""
    token: str = ""
    ca_certificate: str = ""


@dataclass(frozen=True)
class NodeState:
    """One Kubernetes node as a server lists it.

    Arguments:
        since: When it became Ready or NotReady, in seconds since the epoch; 0 if unknown.
        args: The arguments of K3s, secrets masked: `k3s.io/node-args`.
        lacks_cni: It is not Ready, for the only reason that no network plugin (CNI) runs on it yet.
        ours: This tool has cordoned it.
        address: Its first InternalIP; empty if it has none.
    """

    name: str
    ready: bool
    version: str
    roles: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    schedulable: bool = True
    since: int = 0
    args: tuple[str, ...] = ()
    lacks_cni: bool = False
    ours: bool = False
    address: str = ""


@dataclass(frozen=True)
class Api:
    """The answers of a server's API.

    Arguments:
        ready: `/readyz` returns ok, with credentials.
        nodes: The nodes; None if it did not list them.
        through_address: The nodes were listed through the registration address.
        error: Why they could not be listed, if that was read.
    """

    ready: bool = False
    nodes: tuple[NodeState, ...] | None = None
    through_address: bool = False
    error: str = ""


class Backend(NamedTuple):
    """The state of a server in a load balancer, and since how many seconds."""

    state: str
    seconds: int | None = None


class CertificateFile(NamedTuple):
    """When the first certificate of a file expires, whether it is a CA's, and when the file was written (mtime)."""

    path: str
    expires: datetime
    authority: bool
    written: int = 0
