"""Ask a datastore someone else runs, from a server's own place in the network, with the real credentials.

Nothing is installed on the server: a client on the controller talks through the server's SSH connection. Nothing is
left in the datastore: what is tried there is rolled back.
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
from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import CertificateFile, Database, DatastoreHealth, HostFacts
from nornir_k3s.roles.datastore_login import server_connections
from nornir_k3s.ssh.forward import forward

TIMEOUT = 10.0
SLOW = 0.020  # seconds; K3s dies of a datastore that is silent for 10 s, and every request waits for it
MAX_SKEW = 3.0  # seconds
_ASK = {"mysql": mysql.ask, "postgresql": postgresql.ask, "etcd": etcd.ask}


def probe(cluster: Cluster, facts: HostFacts, transport: paramiko.Transport, *, tries: bool = True) -> HostFacts:
    """Return a server's facts with what it finds wrong with the external datastore, and whose data is in it.

    Arguments:
        cluster: With an external datastore.
        facts: Of the server; addresses that it cannot reach are left out.
        transport: Its SSH connection.
        tries: Try rights out where there is no table yet; what is tried is undone.
    """
    if cluster.endpoint is None:
        return facts
    endpoint, lost = parse(cluster.endpoint), {one.place for one in facts.unreachable}
    asked: dict[str, Answers] = {}
    for address, port in endpoint.hosts:
        if (place := f"{address}:{port}") not in lost:
            asked[place] = _ask(cluster, endpoint, (address, port), transport, tries=tries)
    problems = [one for answers in asked.values() for one in answers.problems]
    problems += _together(endpoint, asked)
    versions = [(answers.product, answers.version) for answers in asked.values() if answers.product]
    certificates = [
        CertificateFile(f"the datastore at {place}", datetime.fromtimestamp(answers.expires, UTC), authority=False)
        for place, answers in asked.items()
        if answers.expires
    ]
    return replace(
        facts,
        datastore=tuple(one.model_copy(update={"host": facts.host}) for one in problems),
        database=Database(
            alive=bool(versions),
            versions=tuple(dict.fromkeys(versions)),
            bootstrap={key: size for answers in asked.values() for key, size in answers.bootstrap.items()},
        ),
        datastore_health=_first([answers.health for answers in asked.values()]),
        datastore_certificates=tuple(certificates),
    )


def _first(found: list[DatastoreHealth]) -> DatastoreHealth:
    """Return what the first address that says it says; all of them have the same data."""
    result = DatastoreHealth()
    for health in reversed(found):
        result = replace(result, **{key: value for key, value in vars(health).items() if value})
    return result


def _ask(
    cluster: Cluster, endpoint: Endpoint, at: tuple[str, int], transport: paramiko.Transport, *, tries: bool
) -> Answers:
    place = f"{at[0]}:{at[1]}"
    answers = Answers()
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(forward(transport, *at, timeout=TIMEOUT))

        try:
            context = _context(cluster, wanted=endpoint.tls)
            answers = _ASK[endpoint.kind](endpoint, Connector(connect, at[0], context, tries=tries))
            answers.problems += judge(cluster, place, answers)
            if tries:
                answers.problems += tls.ending(place, context)
            elif context:  # drift has limits of its own
                answers.expires = context.ends
        except ProbeFailed as failed:
            answers.problems.append(failed.finding)
        except ssl.SSLError as error:
            answers.problems.append(tls.refused(place, error))
        except (paramiko.SSHException, OSError) as error:
            answers.problems.append(_no_connection(place, error))
    return answers


def _context(cluster: Cluster, *, wanted: bool) -> tls.Context | None:
    # As K3s does: it verifies only where it is given files, or https for etcd.
    ca, certificate, key = (getattr(cluster.datastore, name, None) for name in ("cafile", "certfile", "keyfile"))
    return tls.context(ca, certificate, key) if ca or certificate or wanted else None


def judge(cluster: Cluster, place: str, answers: Answers) -> Iterator[Finding]:
    """Yield what is wrong with what a datastore has answered."""
    need = server_connections(cluster)
    if answers.connections and answers.connections < need:
        found = f"the datastore at {place} allows {answers.connections} connections"
        lower = "or lower `max_open`" if cluster.datastore_pool else "or bound K3s' pool with `datastore_pool`"
        remedy = f"raise max_connections, {lower}"
        yield problem(
            "datastore-settings", found, f"{need} for {len(cluster.of('servers'))} servers", remedy, "warning"
        )
    if answers.round_trips and (median := statistics.median(answers.round_trips)) > SLOW:
        found = f"the datastore at {place} answers in {median * 1000:.0f} ms"
        wanted = f"{SLOW * 1000:.0f} ms at most"
        yield problem("datastore-latency", found, wanted, "move it nearer to the servers", "warning")
    if abs(answers.skew) > MAX_SKEW:
        found = f"the clock of the datastore at {place} is {answers.skew:+.1f} s off the controller's"
        yield problem("clock", found, f"within {MAX_SKEW:.0f} s", "run an NTP client there, and here", "warning")


def _together(endpoint: Endpoint, asked: Mapping[str, Answers]) -> Iterator[Finding]:
    replicas = [place for place, answers in asked.items() if not answers.writable]
    chosen = endpoint.parameters.get("target_session_attrs") in ("read-write", "primary")
    if replicas and not (chosen and len(replicas) < len(asked)):
        found = f"the database at {' and '.join(replicas)} is a read-only replica"
        remedy = "name it; of several hosts, `target_session_attrs=read-write` chooses it"
        yield problem("datastore-settings", found, "the primary", remedy)


def _no_connection(place: str, error: Exception) -> Finding:
    forbidden = isinstance(error, paramiko.ChannelException) and error.code == 1
    if forbidden:
        found = "its sshd forbids forwarding, so the datastore cannot be asked from it"
        remedy = "allow it (AllowTcpForwarding), or accept this"
        return problem("datastore-asked", found, "a look at the datastore before the first change", remedy, "warning")
    found = f"it cannot connect to the datastore at {place}"
    remedy = "check that it runs, the address in the endpoint, routes and firewalls"
    return problem("datastore", found, "a connection", remedy)
