"""The load balancers' health check certificate: made by the cluster's own CA, good for `/readyz` and nothing else.

Source: Kubernetes RBAC: a user without a group may read
`/readyz` (ClusterRole `system:public-info-viewer`) and gets 403 from everything else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

NAME = "lb-check"
RENEW_BEFORE = timedelta(days=60)


def kept(store: Store, ca_prefix: str) -> Secret:
    """Return certificate and key as HAProxy reads them; empty where this cluster has signed none that lasts.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA; another cluster's certificate does not count.
    """
    text = store.read(f"{NAME}.json")
    if not text or not ca_prefix:
        return Secret("")
    kept = json.loads(text)
    if kept["ca"] != ca_prefix:
        return Secret("")
    certificate = x509.load_pem_x509_certificate(kept["certificate"].encode())
    if certificate.not_valid_after_utc - RENEW_BEFORE < datetime.now(UTC):
        return Secret("")
    return Secret(kept["certificate"] + kept["key"])


def request() -> tuple[str, Secret]:
    """Return a certificate request and its new private key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), Secret(private.decode())


def keep(store: Store, ca_prefix: str, certificate: str, key: Secret) -> None:
    """Keep a signed certificate with its key and the CA it belongs to."""
    text = json.dumps({"ca": ca_prefix, "certificate": certificate, "key": key.reveal()})
    store.keep(f"{NAME}.json", text + "\n")
