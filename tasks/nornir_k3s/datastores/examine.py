"""Examine: ask a datastore someone else runs, from a server's own place in the network, with the real credentials.

Nothing is installed on the server: a client on the controller talks through the server's SSH connection. Nothing is
written: rights are read, not tried.
"""

from __future__ import annotations

import ssl
import statistics
from collections.abc import Iterator

import paramiko

from nornir_k3s import k3s
from nornir_k3s.cluster import Cluster
from nornir_k3s.datastores import ask_etcd, ask_mysql, ask_postgresql
from nornir_k3s.datastores.endpoint import parse
from nornir_k3s.datastores.problem import Answers, Problem
from nornir_k3s.findings import Finding
from nornir_k3s.remote.forward import forward

TIMEOUT = 10.0
SLOW = 0.020  # seconds; K3s dies of a datastore that is silent for 10 s, and every request waits for it
_ASK = {"mysql": ask_mysql.ask, "postgresql": ask_postgresql.ask, "etcd": ask_etcd.ask}


def examine(cluster: Cluster, host: str, transport: paramiko.Transport) -> list[Finding]:
    """Return what one server finds wrong with the external datastore.

    Arguments:
        cluster: With an external datastore.
        host: The server's name.
        transport: Its SSH connection.
    """
    if cluster.endpoint is None:
        return []
    endpoint = parse(cluster.endpoint)
    found: list[Problem] = []
    for address, port in endpoint.hosts:
        place = f"{address}:{port}"
        try:
            context = tls_context(cluster, wanted=endpoint.tls)
            with forward(transport, address, port, timeout=TIMEOUT) as sock:
                answers = _ASK[endpoint.kind](endpoint, sock, address, context)
            found += judge(cluster, place, answers)
        except Problem as problem:
            found.append(problem)
        except (paramiko.SSHException, OSError) as error:
            if isinstance(error, ssl.SSLError):
                found.append(_tls_problem(place, error))
            else:
                found.append(_no_connection(place, error))
    return [Finding(host, p.id, p.found, p.wanted, p.todo, p.level) for p in found]


def tls_context(cluster: Cluster, *, wanted: bool) -> ssl.SSLContext | None:
    """Return how the datastore is verified, as K3s does: only where it is given files (or https for etcd).

    Raises:
        Problem: The files do not fit each other.
    """
    files = [getattr(cluster.datastore, key, None) for key in ("cafile", "certfile", "keyfile")]
    if not any(files) and not wanted:
        return None
    ca, certificate, key = (str(path) if path else None for path in files)
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "it cannot be read"
        what = f"the TLS files of the datastore cannot be used: {reason}"
        raise Problem("datastore-tls", what, "a CA, and a key that fits its certificate", "check the files") from None
    return context


def judge(cluster: Cluster, place: str, answers: Answers) -> Iterator[Problem]:
    """Yield what is wrong with what a datastore has answered."""
    yield from answers.problems
    for key in answers.bootstrap:
        wanted = k3s.bootstrap_key(cluster.token)
        if key != wanted:
            found = f"the datastore at {place} holds a cluster made with another token (its key is {key})"
            todo = "give that cluster's token, or another database"
            yield Problem("foreign-data", found, f"{wanted}, this token's key, or nothing", todo)
    need = cluster.connections
    if answers.connections and answers.connections < need:
        found = f"the datastore at {place} allows {answers.connections} connections"
        lower = "or lower `max_open`" if cluster.datastore_pool else "or bound K3s' pool with `datastore_pool`"
        todo = f"raise max_connections, {lower}"
        yield Problem("datastore-settings", found, f"{need} for {len(cluster.of('servers'))} servers", todo, "warning")
    if answers.round_trips and (median := statistics.median(answers.round_trips)) > SLOW:
        found = f"the datastore at {place} answers in {median * 1000:.0f} ms"
        wanted = f"{SLOW * 1000:.0f} ms at most"
        yield Problem("datastore-latency", found, wanted, "move it nearer to the servers", "warning")


def _tls_problem(place: str, error: ssl.SSLError) -> Problem:
    reason = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or str(error)
    todo = "check cafile, the names in its certificate (an address needs to be one of them) and when it ends"
    found = f"TLS with the datastore at {place} fails: {reason}"
    return Problem("datastore-tls", found, "a certificate of the CA that the inventory names", todo)


def _no_connection(place: str, error: Exception) -> Problem:
    forbidden = isinstance(error, paramiko.ChannelException) and error.code == 1
    if forbidden:
        found = "its sshd forbids forwarding, so the datastore cannot be asked from it"
        todo = "allow it (AllowTcpForwarding), or accept this"
        return Problem("datastore-asked", found, "a look at the datastore before the first change", todo, "warning")
    found = f"it cannot connect to the datastore at {place}"
    todo = "check that it runs, the address in the endpoint, routes and firewalls"
    return Problem("datastore", found, "a connection", todo)
