"""What a server knows of its cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from nornir_k3s import k3s, shell
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.facts.nodes import nodes
from nornir_k3s.model import k3s_facts
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.lease import HOME, NAME, Lease
from nornir_k3s.records import Record, RecordError, decoded, integer

KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"


_SERVERS = ("servers",)


class ServerFiles(Fact[k3s_facts.ServerFiles]):
    """The CA's hash, the token's fingerprint and the CA's certificate (k3s: pkg/clientaccess/token.go, pkg/daemons)."""

    name, source, roles = "server", "k3s_server", _SERVERS

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read K3s' data folder."""
        return (k3s.DATA,)

    def parse(self, records: Sequence[Record]) -> k3s_facts.ServerFiles:
        """Return them; a token file that is not in the full form has no CA's hash."""
        prefix, token, certificate = records[0].take(3)
        return k3s_facts.ServerFiles(prefix if prefix.startswith("K10") else "", token, decoded(certificate))


class Api(Fact[k3s_facts.Api]):
    """`/readyz`, and the nodes through the registration address, as everybody else lists them; else directly."""

    name, source, roles = "api", "k3s_server", _SERVERS

    def arguments(self, query: Query) -> Iterable[object]:
        """Use K3s' own kubectl."""
        return (k3s.BINARY, query.cluster.url)

    def parse(self, records: Sequence[Record]) -> k3s_facts.Api:
        """Return what it answers."""
        found: dict[str, str] = {}
        for record in records:
            kind, value = record.take(2)
            found[kind] = value
        listed = found.get("through-address", found.get("directly"))
        return k3s_facts.Api(
            ready=found.get("ready") == "ok",
            nodes=nodes(decoded(listed)) if listed is not None else None,
            through_address="through-address" in found,
            error=found.get("error", ""),
        )


class DirectApi(Api):
    """The same of a server before there is a registration address."""

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Use K3s' own kubectl."""
        return (k3s.BINARY, "")


class ApiThroughAddress(Api):
    """The same, waited for until all nodes are Ready, with the reason where the address does not answer.

    Arguments:
        names: The nodes.
        seconds: How long at the most.
    """

    def __init__(self, names: Sequence[str], seconds: int) -> None:
        self._names, self._seconds = names, seconds

    def calls(self, query: Query) -> Iterable[str]:
        """Wait first."""
        url = query.cluster.url
        yield shell.call("wait_for_nodes", k3s.BINARY, url, self._seconds, *self._names)
        yield shell.call("fact_api", k3s.BINARY, url, "explain")


class ClusterLease(Fact[Lease]):
    """The Lease of the run that changes the cluster (kubernetes.io, concepts/architecture/leases)."""

    name, source, roles, when = "lease", "k3s_server", _SERVERS, "status"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Use K3s' own kubectl."""
        return (k3s.BINARY, f"{HOME}/{NAME}")

    def parse(self, records: Sequence[Record]) -> Lease:
        """Return it."""
        word, now = records[0].take(2)
        try:
            data = json.loads(decoded(word))
        except ValueError:
            raise RecordError("the Lease is not JSON") from None
        return Lease(data if isinstance(data, dict) else {}, integer(now))


class Kubeconfig(Fact[str]):
    """The administrator's kubeconfig (docs.k3s.io `cluster-access.md`); secret."""

    name, source, roles = "kubeconfig", "k3s_server", _SERVERS

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read the file."""
        return (KUBECONFIG,)

    def parse(self, records: Sequence[Record]) -> str:
        """Return its text."""
        return decoded(records[0].take(1)[0])


class EffectiveConfig(Fact[Mapping[str, Any] | None]):
    """The settings in force: what a server says at `/v1-k3s/config` to the user `node`.

    Source: k3s `pkg/server/handlers/handlers.go`, `pkg/daemons/config/types.go` (Control).
    """

    name, source, roles, when = "effective_config", "k3s_server", _SERVERS, "drift"

    def arguments(self, query: Query) -> Iterable[object]:
        """Ask the server itself, with a kubeconfig in two halves around its CA."""
        head, tail = halves(query.cluster, query.member)
        return (k3s.BINARY, f"{k3s.DATA}/server/tls/server-ca.crt", _encoded(head), _encoded(tail))

    def parse(self, records: Sequence[Record]) -> Mapping[str, Any] | None:
        """Return the settings; None where it did not answer."""
        text = decoded(records[0].take(1)[0])
        if not text:
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise RecordError("the answer of /v1-k3s/config is not JSON") from None
        return found if isinstance(found, dict) else None


class PasswordRefused(Fact[int]):
    """When K3s last found another node password than that of the node, in seconds since the epoch; 0 for never.

    A server starts nevertheless, and an event, which lasts an hour, is all that it says (k3s: pkg/nodepassword).
    """

    name, source, roles, when = "password_refused", "k3s_server", _SERVERS, "drift"

    def arguments(self, query: Query) -> Iterable[object]:
        """Ask for the events of the host's own node."""
        return (k3s.BINARY, query.member.node_name)

    def parse(self, records: Sequence[Record]) -> int:
        """Return the time of the newest event."""
        try:
            items = json.loads(decoded(records[0].take(1)[0]))["items"]
            times = [one.get("lastTimestamp") or one["metadata"]["creationTimestamp"] for one in items]
            return max((int(datetime.fromisoformat(time).timestamp()) for time in times), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RecordError("the events of the node are not a list of events") from None


def halves(cluster: Cluster, member: Member) -> tuple[str, str]:
    """Return a kubeconfig for the user `node` in two halves, between which the CA's certificate belongs; secret."""
    password = (cluster.agent_token or cluster.token).reveal()
    mark = "CA"
    text = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "k3s",
            "contexts": [{"name": "k3s", "context": {"cluster": "k3s", "user": "node"}}],
            "users": [{"name": "node", "user": {"username": "node", "password": password}}],
            "clusters": [
                {
                    "name": "k3s",
                    "cluster": {"server": own_url(cluster, member), "certificate-authority-data": mark},
                }
            ],
        }
    )
    head, _, tail = text.rpartition(mark)
    return head, tail


def own_url(cluster: Cluster, member: Member) -> str:
    """Return the URL at which a server answers itself."""
    bound = str(cluster.settings_of(member).get("bind-address") or "")
    host = bound if k3s.binds_one_address(bound) else "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"https://{host}:{cluster.server.get('https-listen-port', k3s.API_PORT)}"


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
