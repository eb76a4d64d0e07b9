"""What is found at a registration address: real TLS, and servers that only play their part."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.run import address_probe

from .conftest import HOSTS

Load = Callable[..., Cluster]
WITHOUT_LB = {name: one for name, one in HOSTS.items() if one[1] != "lb"}
DAY = datetime.timedelta(days=1)


class Authority:
    """A CA that signs for names."""

    def __init__(self, name: str) -> None:
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), name
        self.certificate = self._sign(name, self.key, ())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, names: tuple[str, ...]) -> x509.Certificate:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, self.name))
        now = datetime.datetime.now(datetime.UTC)
        authority = name == self.name
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())

    def pair(self, name: str, *names: str) -> tuple[bytes, bytes]:
        """Return a certificate and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._sign(name, key, names).public_bytes(serialization.Encoding.PEM), text


class Server(http.server.ThreadingHTTPServer):
    """Servers behind one address: each connection gets the next one's answer."""

    daemon_threads = True
    turns: list[str]
    context: ssl.SSLContext | None
    idle: float

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(self.idle)
        with self.context.wrap_socket(request, server_side=True) if self.context else request as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave without a word."""


class Handler(http.server.BaseHTTPRequestHandler):
    """`/api` of a server, for those who log in."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        address = self.server.turns.pop(0) if peer and self.server.turns else ""
        data = {"serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": f"{address}:6444"}]}
        body = json.dumps(data if address else {}).encode()
        self.send_response(200 if address else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing to tell."""


@contextmanager
def listening(
    pair: tuple[bytes, bytes] | None,
    folder: Path,
    *,
    clients: str = "",
    turns: list[str] | None = None,
    idle: float = 9,
) -> Iterator[int]:
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (folder / "server.pem").write_bytes(b"\n".join(pair))
        context.load_cert_chain(folder / "server.pem")
        if clients:
            context.load_verify_locations(cadata=clients)
            context.verify_mode = ssl.CERT_OPTIONAL
    server = Server(("127.0.0.1", 0), Handler)
    server.context, server.turns, server.idle = context, turns or [], idle
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ca() -> Authority:
    return Authority("k3s-server-ca")


def cluster_at(load: Load, port: int, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose name leads to a port of this machine."""
    found = load({"registration": {"way": "external", "name": "api.example.org", "port": port}}, hosts=WITHOUT_LB)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1" if host == "api.example.org" else host, *a, **k)
    )
    return found


def kubeconfig(ca: Authority) -> str:
    pair = zip(("client-certificate-data", "client-key-data"), ca.pair("admin"), strict=True)
    user = {key: base64.b64encode(text).decode() for key, text in pair}
    return yaml.safe_dump({"users": [{"user": user}]})


def test_the_servers_behind_an_address_and_the_names_in_their_certificate(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = ["10.0.0.12", "10.0.0.12", "10.0.0.13", "10.0.0.12"]
    pair = ca.pair("k3s", "api.example.org", "kubernetes")
    with listening(pair, tmp_path, clients=ca.pem, turns=turns) as port:
        cluster = cluster_at(load, port, monkeypatch)
        found = address_probe.probe(cluster, ca.pem, kubeconfig(ca), others={})
    assert (found.failure, found.resolved) == ("", ("127.0.0.1",))
    assert found.seen == {"10.0.0.12", "10.0.0.13"}
    assert (found.answers, turns) == (3, ["10.0.0.12"]), "both have been seen"
    assert set(found.names) == {"api.example.org", "kubernetes"}


def test_a_load_balancer_that_ends_tls_with_a_certificate_of_the_cluster_is_found(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(ca.pair("k3s", "kubernetes"), tmp_path) as port:
        found = address_probe.probe(cluster_at(load, port, monkeypatch), ca.pem, kubeconfig(ca), others={})
    assert (found.failure, found.seen, found.answers, found.refused) == ("", frozenset(), 8, 8)


def test_without_a_kubeconfig_no_server_tells_who_it_is(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(ca.pair("k3s", "kubernetes"), tmp_path, clients=ca.pem, turns=["10.0.0.12"]) as port:
        found = address_probe.probe(cluster_at(load, port, monkeypatch), ca.pem, "", others={})
    assert (found.failure, found.seen, found.answers, found.refused) == ("", frozenset(), 8, 0)


@pytest.mark.parametrize("known", [True, False])
def test_a_load_balancer_that_ends_tls_is_found(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    with listening(Authority("proxy-ca").pair("proxy.example.org"), tmp_path) as port:
        cluster = cluster_at(load, port, monkeypatch)
        found = address_probe.probe(cluster, ca.pem if known else "", "", others={})
    assert found.failure == "certificate"
    assert found.error.startswith("the certificate of CN=proxy.example.org, ")
    assert (
        "which the cluster's CA has not signed" if known else "no server of this cluster has ever run"
    ) in found.error


def test_an_address_without_tls_and_one_without_a_listener(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(None, tmp_path) as port:
        cluster = cluster_at(load, port, monkeypatch)
        assert address_probe.probe(cluster, ca.pem, "", others={}).failure == "tls"
    found = address_probe.probe(cluster, ca.pem, "", others={})
    assert (found.failure, found.error) == ("connection", "connection refused")


def test_an_idle_connection_that_is_closed_is_told_and_one_that_stays_is_not(
    load: Load, tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for idle, limit in ((0.2, 5.0), (9.0, 0.3)):
        with listening(ca.pair("k3s", "kubernetes"), tmp_path, idle=idle) as port:
            cluster = cluster_at(load, port, monkeypatch)
            found = address_probe.probe(cluster, ca.pem, "", others={}, idle=limit)
        assert (found.idle is not None) == (idle < limit), found


def test_a_name_that_this_machine_cannot_resolve(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    cluster = load({"registration": {"way": "dns", "name": "api.example.org"}}, hosts=WITHOUT_LB)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    found = address_probe.probe(cluster, "", "", others={})
    assert (found.resolved, found.failure) == ((), "connection")
    assert address_probe.resolved(cluster).resolved == ()
