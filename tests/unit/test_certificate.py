from __future__ import annotations

import base64
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nornir_k3s.apply import check_certificate as signing
from nornir_k3s.state import check_certificate, kubeconfig
from nornir_k3s.state.store import Store

CA = "K10" + "a" * 64


def signed(csr: str, days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.load_pem_x509_csr(csr.encode())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        request.subject, request.subject, request.public_key(), x509.random_serial_number()
    )
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=days)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_a_certificate_is_kept_0600_and_belongs_to_its_cluster(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", base=tmp_path)
    assert not check_certificate.load(store, CA)
    csr, key = check_certificate.request()
    check_certificate.save(store, CA, signed(csr, 365), key)
    kept = check_certificate.load(store, CA)
    assert "BEGIN CERTIFICATE" in kept.reveal()
    assert "PRIVATE KEY" in kept.reveal()
    assert not check_certificate.load(store, "K10" + "b" * 64)
    assert not check_certificate.load(store, "")
    assert stat.S_IMODE((tmp_path / "state" / "lb-check.json").stat().st_mode) == 0o600


def test_one_that_ends_soon_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", base=tmp_path)
    csr, key = check_certificate.request()
    check_certificate.save(store, CA, signed(csr, 80), key)
    assert not check_certificate.load(store, CA)


def test_the_signing_script_carries_the_request_and_no_key() -> None:
    csr, key = check_certificate.request()
    script = signing.script(csr)
    assert base64.b64encode(csr.encode()).decode() in script
    assert key.reveal() not in script


def test_the_signed_certificate_is_found_in_the_answer() -> None:
    encoded = base64.b64encode(b"PEM").decode()
    assert signing.parse(f"noise\n@certificate\t{encoded}\n@end\n") == "PEM"
    with pytest.raises(ValueError, match="no certificate"):
        signing.parse("noise\n@end\n")


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: default, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: default127.0.0.1}}]
contexts: [{name: default, context: {cluster: default, user: default}}]
users: [{name: default, user: {client-key-data: default}}]
current-context: default
"""


def test_a_kubeconfig_is_pointed_at_the_registration_address_and_named() -> None:
    made = yaml.safe_load(kubeconfig.rewrite(KUBECONFIG, server="https://10.0.0.100:6443", name="prod").reveal())
    assert made["clusters"][0]["cluster"]["server"] == "https://10.0.0.100:6443"
    assert made["current-context"] == made["users"][0]["name"] == made["contexts"][0]["context"]["user"] == "prod"
    # Values that happen to look like names or addresses stay as they are.
    assert made["clusters"][0]["cluster"]["certificate-authority-data"] == "default127.0.0.1"
    assert made["users"][0]["user"]["client-key-data"] == "default"


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{"])
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a kubeconfig"):
        kubeconfig.rewrite(text, server="https://x", name="n")
