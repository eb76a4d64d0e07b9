"""Probe the registration address: does it lead to this cluster's servers, without ending their TLS?

The controller asks, or an agent by way of its SSH connection if the controller cannot connect. Sources: rancher
dynamiclistener (all servers share one certificate, so it tells none from another); kubernetes `apiserver/pkg/endpoints/
discovery` (`/api` has the advertised address of the server that answers).
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from cryptography import x509

from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.run import dns_ttl, kubeconfig_probe
from nornir_k3s.ssh.forward import forward
from nornir_k3s.ssh.session import Session

TIMEOUT = 3.0  # seconds for one connection
LIMIT = 10.0  # seconds for all of them
_EACH, _MOST = 4, 24  # connections for each server, and in all

Connect = Callable[[], AbstractContextManager[socket.socket]]


def probe(
    cluster: Cluster,
    ca: str,
    kubeconfig: str,
    *,
    others: dict[str, Session],
    idle: float = 0,
) -> AddressAnswer:
    """Return what is at the registration address.

    Arguments:
        ca: The CA of the servers' certificates, PEM; empty before there is one.
        kubeconfig: A server's own, or nothing: servers tell their addresses only to those who log in.
        others: Hosts that are asked if the controller cannot connect, and their sessions.
        idle: Seconds that a connection is kept idle; 0 for none.
    """
    url = urlsplit(cluster.url)
    host, port = str(url.hostname), int(url.port or 443)
    answer = resolved(cluster)
    context, servers = _context(ca), len(cluster.of("servers"))
    logged_in = False
    with contextlib.suppress(*kubeconfig_probe.UNUSABLE):
        kubeconfig_probe.log_in(context, kubeconfig)
        logged_in = bool(ca)

    def asked(connect: Connect) -> AddressAnswer:
        answer = _asked(connect, context, host, servers)
        answer = answer if logged_in else replace(answer, refused=0)
        return replace(answer, idle=_closed_after(connect, context, host, idle)) if idle and answer.answers else answer

    found = AddressAnswer(failure="connection", error="the name cannot be resolved")
    if answer.resolved != ():
        found = asked(lambda: _direct(host, port))
    for name, session in others.items():
        if found.failure != "connection":
            break
        other = asked(partial(_through, session, host, port))
        if other.failure != "connection":
            found = replace(other, via=name, unreached=found.error)
    return replace(found, resolved=answer.resolved, ttl=answer.ttl)


def resolved(cluster: Cluster) -> AddressAnswer:
    """Return to which addresses the controller resolves the name, without a connection."""
    name = cluster.registration.name
    ttl = dns_ttl.ttl(name) if name and cluster.registration.way == "dns" else None
    return AddressAnswer(_resolved(name, cluster.registration.port) if name else None, ttl=ttl)


def _resolved(host: str, port: int) -> tuple[str, ...]:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(row[4][0]) for row in rows))


def _direct(host: str, port: int) -> AbstractContextManager[socket.socket]:
    return socket.create_connection((host, port), timeout=TIMEOUT)


@contextlib.contextmanager
def _through(session: Session, host: str, port: int) -> Iterator[socket.socket]:
    try:
        with forward(session.transport, host, port, timeout=TIMEOUT) as made:
            yield made
    except EOFError:
        raise ConnectionError("closed") from None
    except Exception as error:
        if type(error).__module__.startswith("paramiko"):
            raise ConnectionError(str(error)) from None
        raise


def _asked(connect: Connect, context: ssl.SSLContext, host: str, servers: int) -> AddressAnswer:
    """Connect again and again until every server has had its turn, or a connection fails."""
    found, seen, begin = AddressAnswer(), set[str](), time.monotonic()
    for _ in range(min(_MOST, _EACH * max(2, servers))):
        if found.answers and (time.monotonic() - begin > LIMIT or len(seen) >= servers):
            break
        one = _one(connect, context, host)
        if one.failure:
            return one
        seen |= one.seen
        answers, refused = found.answers + 1, found.refused + one.refused
        found = replace(one, answers=answers, refused=refused, seen=frozenset(seen))
    return found


def _context(ca: str) -> ssl.SSLContext:
    if not ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    context = ssl.create_default_context(cadata=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Go's library, in K3s and kubectl, takes more
    context.check_hostname = False  # the names are compared apart: those of the cluster may just be added
    return context


def _one(connect: Connect, context: ssl.SSLContext, host: str) -> AddressAnswer:
    """Return what one connection finds."""
    try:
        with connect() as plain, context.wrap_socket(plain, server_hostname=host) as tls:
            der = tls.getpeercert(binary_form=True)
            if context.verify_mode == ssl.CERT_NONE:
                text = f"the certificate of {_subject(der)}, although no server of this cluster has ever run"
                return AddressAnswer(failure="certificate", error=text)
            status, server = _server(tls, host)
            seen, refused = frozenset({server} - {""}), int(status == http.client.UNAUTHORIZED)
            return AddressAnswer(names=kubeconfig_probe.names(der), seen=seen, refused=refused)
    except ssl.SSLCertVerificationError as error:
        return AddressAnswer(failure="certificate", error=_presented(connect, host, error.verify_message))
    except (ssl.SSLEOFError, ConnectionError, ssl.SSLZeroReturnError) as error:
        return AddressAnswer(failure="connection", error=_words(error))
    except ssl.SSLError as error:
        return AddressAnswer(failure="tls", error=(error.reason or str(error)).replace("_", " ").lower())
    except OSError as error:
        return AddressAnswer(failure="connection", error=_words(error))


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it closes connections before a server answers"
    if isinstance(error, TimeoutError):
        return f"timeout after {TIMEOUT:.0f} s"
    return str(error.strerror or error or type(error).__name__).lower()


def _presented(connect: Connect, host: str, why: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError), connect() as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        subject = _subject(tls.getpeercert(binary_form=True))
        return f"the certificate of {subject}, which the cluster's CA has not signed"
    return f"a certificate that is not trusted: {why}"


def _subject(der: bytes | None) -> str:
    try:
        return x509.load_der_x509_certificate(der or b"").subject.rfc4514_string() or "nobody"
    except ValueError:
        return "nobody"


def _server(tls: ssl.SSLSocket, host: str) -> tuple[int, str]:
    """Return the status, and the advertised address of the server; nothing where it does not say it."""
    connection = http.client.HTTPSConnection(host, timeout=TIMEOUT)
    connection.sock, status = tls, 0
    try:
        connection.request("GET", "/api", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        text, status = answer.read(1 << 16), answer.status
        data = json.loads(text) if status == http.client.OK else {}
        address = str(data["serverAddressByClientCIDRs"][-1]["serverAddress"]).rpartition(":")[0].strip("[]")
        return status, str(ipaddress.ip_address(address))
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError):
        return status, ""


def _closed_after(connect: Connect, context: ssl.SSLContext, host: str, seconds: float) -> float | None:
    """Return the seconds after which an idle connection was closed; None if it stayed open."""
    begin = time.monotonic()
    try:
        with connect() as plain, context.wrap_socket(plain, server_hostname=host) as tls:
            _server(tls, host)
            tls.settimeout(seconds)
            begin = time.monotonic()
            if tls.recv(1):
                return None
    except TimeoutError:
        return None
    except OSError:
        pass
    return time.monotonic() - begin
