"""Probe an external datastore from a server's place in the network, with K3s' credentials.

Nothing is installed on the server: a client on the controller connects through the server's SSH connection. Nothing is
left in the datastore: what tests the rights is undone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import paramiko

from nornir_k3s.datastore_probe import etcd, mysql, postgresql, tls
from nornir_k3s.datastore_probe.answers import Answers, ProbeFailed, problem
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import UNFINISHED, Database, DatastoreHealth
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import CertificateFile
from nornir_k3s.roles.datastore_login import server_connections
from nornir_k3s.ssh.forward import forward

TIMEOUT = 10.0
SLOW = 0.020  # seconds; every API request waits for the datastore, and K3s exits after 10 s without an answer
MAX_SKEW = 3.0  # seconds
_PROBES = {"mysql": mysql.ask, "postgresql": postgresql.ask, "etcd": etcd.ask}


def probe(cluster: Cluster, facts: HostFacts, transport: paramiko.Transport, *, test_rights: bool = True) -> HostFacts:
    """Return a server's facts, completed with the state and the problems of the external datastore as seen from it.

    Arguments:
        cluster: With an external datastore.
        facts: Of the server; addresses that it cannot reach are not probed.
        transport: Its SSH connection.
        test_rights: Test rights with statements that are undone, if there is no table yet.
    """
    if cluster.endpoint is None:
        return facts
    endpoint, unreachable = parse(cluster.endpoint), {one.address for one in facts.unreachable}
    all_answers: dict[str, Answers] = {}
    for host, port in endpoint.hosts:
        if (address := f"{host}:{port}") not in unreachable:
            all_answers[address] = _probe(cluster, endpoint, (host, port), transport, test_rights=test_rights)
    problems = [one for answers in all_answers.values() for one in answers.problems]
    problems += replica_findings(endpoint, all_answers)
    bootstrap = {key: size for answers in all_answers.values() for key, size in answers.bootstrap.items()}
    versions = [(answers.product, answers.version) for answers in all_answers.values() if answers.product]
    certificates = [
        CertificateFile(f"the datastore at {address}", datetime.fromtimestamp(answers.expires, UTC), authority=False)
        for address, answers in all_answers.items()
        if answers.expires
    ]
    return replace(
        facts,
        datastore=tuple(one.model_copy(update={"host": facts.host}) for one in problems),
        database=Database(
            alive=bool(versions),
            versions=tuple(dict.fromkeys(versions)),
            bootstrap={key: size for key, size in bootstrap.items() if key != UNFINISHED},
            revision=max(((answers.health.revisions or (0, 0))[0] for answers in all_answers.values()), default=0),
            unfinished=UNFINISHED in bootstrap,
            aside={name: "table" for answers in all_answers.values() for name in answers.aside},
        ),
        datastore_health=_merged([answers.health for answers in all_answers.values()]),
        datastore_certificates=tuple(certificates),
    )


def _merged(found: list[DatastoreHealth]) -> DatastoreHealth:
    """Return each value from the first address that has it; all of them have the same data."""
    result = DatastoreHealth()
    for health in reversed(found):
        result = replace(result, **{key: value for key, value in vars(health).items() if value})
    return result


def _probe(
    cluster: Cluster, endpoint: Endpoint, at: tuple[str, int], transport: paramiko.Transport, *, test_rights: bool
) -> Answers:
    address = f"{at[0]}:{at[1]}"
    answers = Answers()
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(forward(transport, *at, timeout=TIMEOUT))

        try:
            context = _context(cluster, wanted=endpoint.tls)
            connector = Connector(connect, at[0], context, cluster.version, test_rights)
            answers = _PROBES[endpoint.kind](endpoint, connector)
            answers.problems += findings(cluster, address, answers)
            if test_rights:
                answers.problems += tls.expiry_warning(address, context)
            elif context:  # drift has limits of its own
                answers.expires = context.expires
        except ProbeFailed as failed:
            answers.problems.append(failed.finding)
        except ssl.SSLError as error:
            names = None
            if tls.is_other_name(error):
                names = _names(cluster, endpoint, Connector(connect, at[0], None, cluster.version))
            answers.problems.append(tls.handshake_failed(address, error, names))
        except (paramiko.SSHException, OSError) as error:
            answers.problems.append(_no_connection(address, error))
    return answers


def _names(cluster: Cluster, endpoint: Endpoint, connector: Connector) -> tuple[str, ...] | None:
    """Return the names of a certificate that has not the right one; None if it is not shown again."""
    if context := _context(cluster, wanted=True):
        with contextlib.suppress(ProbeFailed, paramiko.SSHException, OSError):  # it ends with an SSL error, an OSError
            _PROBES[endpoint.kind](endpoint, replace(connector, context=tls.inspecting(context)))
        return context.names
    return None


def _context(cluster: Cluster, *, wanted: bool) -> tls.Context | None:
    # As K3s does: it verifies only with TLS files, or with https for etcd.
    ca, certificate, key = (getattr(cluster.datastore, name, None) for name in ("cafile", "certfile", "keyfile"))
    return tls.context(ca, certificate, key) if ca or certificate or wanted else None


def findings(cluster: Cluster, address: str, answers: Answers) -> Iterator[Finding]:
    """Yield the problems of one address: too few connections, high latency, a wrong clock."""
    need = server_connections(cluster)
    if answers.connections and answers.connections < need:
        found = f"the datastore at {address} allows {answers.connections} connections"
        lower = "or lower `max_open`" if cluster.datastore_pool else "or limit K3s' pool with `datastore_pool`"
        remedy = f"raise max_connections, {lower}"
        yield problem(
            "datastore-settings", found, f"at least {need} for {len(cluster.of('servers'))} servers", remedy, "warning"
        )
    if answers.round_trips and (median := statistics.median(answers.round_trips)) > SLOW:
        found = f"the datastore at {address} answers in {median * 1000:.0f} ms"
        wanted = f"at most {SLOW * 1000:.0f} ms"
        yield problem("datastore-latency", found, wanted, "move it closer to the servers", "warning")
    if abs(answers.skew) - answers.skew_error > MAX_SKEW:
        found = f"the clock of the datastore at {address} is {answers.skew:+.1f} s off the controller's"
        yield problem("clock", found, f"within {MAX_SKEW:.0f} s", "run an NTP client on both", "warning")


def replica_findings(endpoint: Endpoint, all_answers: Mapping[str, Answers]) -> Iterator[Finding]:
    """Yield a problem if the endpoint leads to a read-only replica."""
    replicas = [address for address, answers in all_answers.items() if not answers.writable]
    selected = endpoint.parameters.get("target_session_attrs") in ("read-write", "primary")
    if replicas and not (selected and len(replicas) < len(all_answers)):
        found = f"the database at {' and '.join(replicas)} is a read-only replica"
        remedy = "use the primary's address; with several hosts, `target_session_attrs=read-write` selects it"
        yield problem("datastore-settings", found, "the primary", remedy)


def _no_connection(address: str, error: Exception) -> Finding:
    forbidden = isinstance(error, paramiko.ChannelException) and error.code == 1
    if forbidden:
        found = "sshd forbids TCP forwarding: the datastore cannot be checked from this server"
        remedy = "allow it (AllowTcpForwarding), or accept this"
        return problem("datastore-asked", found, "a check of the datastore before the first change", remedy, "warning")
    found = f"cannot connect to the datastore at {address}"
    remedy = "check that the datastore is running, its address in the endpoint, routes and firewalls"
    return problem("datastore", found, "a connection", remedy)
