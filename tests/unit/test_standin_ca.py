"""The stand-in's `k3s certificate rotate-ca`, as it was observed."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from k3s_standin import certs, tokens

from nornir_k3s.model.secret import Secret
from nornir_k3s.state import cluster_ca

from .test_standin_running import Node, new_agent, new_server, ready, says


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Node:
    node = new_server(tmp_path_factory.mktemp("ca") / "s", "--token", "secret")
    node.start()
    ready(node, "s1")
    return node


def rotate(node: Node, folder: Path) -> tuple[int, str, str]:
    where = ["--data-dir", f"{node.home}/data", "--server", f"https://127.0.0.1:{node.port}"]
    done = node.run("certificate", "rotate-ca", *where, "--path", str(folder))
    return done.returncode, done.stdout, done.stderr


def of_port(node: Node) -> x509.Certificate:
    """Return the certificate that the server shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="kubernetes") as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")


def test_an_empty_folder_is_only_warned_of(server: Node, tmp_path: Path) -> None:
    code, said, warned = rotate(server, tmp_path)
    assert (code, said) == (0, "certificates saved to datastore\n")
    assert warned.count("failed to stat") == 11
    assert f"failed to stat ServerCA: stat {tmp_path}/tls/server-ca.crt: no such file or directory" in warned


def test_one_that_does_not_lead_to_the_old_one_is_refused(server: Node, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    ca, key = tmp_path / "tls" / "server-ca.crt", tmp_path / "tls" / "server-ca.key"
    for text, why in (
        (certs.authority("x"), "contains only a single certificate"),
        (("".join(certs.authority(name)[0] for name in "xy"), ""), "cannot be verified using old CA chain"),
    ):
        ca.write_text(text[0])
        key.write_text(text[1] or certs.new_key())
        code, _, said = rotate(server, tmp_path)
        assert code == 1
        assert "Error: see server log for details: Internal error occurred: certificate error ID" in said
        says(server, why)


def test_servers_take_it_when_they_start_and_share_the_old_certificate_until_it_is_made_anew(
    server: Node, tmp_path: Path
) -> None:
    tls = server.home / "data/server/tls"
    names = [f"{name}-ca.{kind}" for name in cluster_ca.NAMES for kind in ("crt", "key")]
    old = {name: Secret((tls / name).read_text()) for name in names}
    (tmp_path / "tls" / "etcd").mkdir(parents=True)
    new = cluster_ca.renewed(old, datetime.now(UTC))
    for name, text in new.items():
        (tmp_path / "tls" / name).write_text(text.reveal())
    # With another's key K3s does not take it.
    (tmp_path / "tls" / "server-ca.key").write_text(new["client-ca.key"].reveal())
    assert rotate(server, tmp_path)[0] == 1
    says(server, "private key does not match public key")
    (tmp_path / "tls" / "server-ca.key").write_text(new["server-ca.key"].reveal())
    code, said, warned = rotate(server, tmp_path)
    assert (code, said) == (0, "certificates saved to datastore\n")
    assert warned.count("failed to stat") == 1, "the key of service accounts stays"
    assert (tls / "server-ca.crt").read_text() == old["server-ca.crt"].reveal(), "nothing changes before the restart"
    before = (server.home / "data/server/token").read_text()
    restart(server)
    says(server, f"{tls}/server-ca.crt will be updated from the datastore.")
    assert (tls / "server-ca.crt").read_text() == new["server-ca.crt"].reveal()
    token = (server.home / "data/server/token").read_text()
    assert token != before
    assert token.startswith(f"K10{tokens.ca_hash(tls / 'server-ca.crt')}::")
    old_ca, ca = certs.load(old["server-ca.crt"].reveal())[0], certs.load(new["server-ca.crt"].reveal())[0]
    assert certs.issued(of_port(server), old_ca)
    assert server.run("certificate", "rotate", "--data-dir", f"{server.home}/data").returncode == 0
    restart(server)
    assert certs.issued(of_port(server), ca)
    refused, welcome = (
        new_agent(tmp_path / name, server, one.strip(), name) for name, one in (("x", before), ("y", token))
    )
    refused.start()
    says(refused, "token CA hash does not match the Cluster CA certificate hash")
    refused.stop()
    welcome.start()
    ready(server, "y")
    welcome.stop()
    server.stop()


def restart(node: Node) -> None:
    node.stop()
    (node.home / "journal").write_text("")
    node.start()
    ready(node, "s1")
