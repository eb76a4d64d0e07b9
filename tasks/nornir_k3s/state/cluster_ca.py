"""New CAs for K3s, each signed by itself and by the old one, so that what either has signed is trusted meanwhile.

Sources: k3s `contrib/util/rotate-default-ca-certs.sh` (what the files hold), `pkg/server/handlers/cert.go` (what K3s
checks), `pkg/clientaccess/token.go` (the hash in tokens). A client that uses OpenSSL takes the first certificate that
may have signed another: the one that leads to the old CA comes first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nornir_k3s.model import pem
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

FILE = "ca-rotation.json"  # of a rotation that has begun
NAMES = ("client", "server", "request-header", "etcd/peer", "etcd/server")
VALIDITY = timedelta(days=7300)
_KEY = re.compile(r"-----BEGIN EC PRIVATE KEY-----.*?-----END EC PRIVATE KEY-----", re.DOTALL)
Files = dict[str, Secret]  # by name below `server/tls`


def renewed(found: Mapping[str, Secret], now: datetime) -> Files:
    """Return the files of new CAs.

    Arguments:
        found: The files of the present ones: `NAME-ca.crt` and `NAME-ca.key`.
        now: When they are signed.

    Raises:
        ValueError: One was not made by K3s, and can only be renewed by whoever has the key of its root.
    """
    files: Files = {}
    for name in NAMES:
        certificate, key = f"{name}-ca.crt", f"{name}-ca.key"
        old, signer = _root(found[certificate].reveal(), found[key].reveal(), name)
        title, at = f"k3s-{name.replace('/', '-')}", f"{now:%Y%m%d%H%M%S}"
        root_key, ca_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root_name, own = _name(f"{title}-root@{at}"), x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
        by_old = _Issuer(pem.certificate(old).subject, signer, _identifier(old))
        by_root = _Issuer(root_name, root_key, own)
        crossed = _signed(root_name, root_key, by_old, now)
        root = _signed(root_name, root_key, by_root, now)
        ca = _signed(_name(f"{title}-ca@{at}"), ca_key, by_root, now)
        files[certificate] = Secret("".join((ca, crossed, root, old + "\n")))
        files[key] = Secret(_text(ca_key) + _text(root_key))
    return files


def _root(certificates: str, keys: str, name: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Return the root of a CA as PEM, and its key."""
    loaded = [serialization.load_pem_private_key(one.encode(), None) for one in _KEY.findall(keys)]
    for block in pem.blocks(certificates):
        one = pem.certificate(block)
        for key in loaded if one.subject == one.issuer else ():
            if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == one.public_key():
                return block, key
    raise ValueError(f"{name}-ca.crt: the key of its root is not on the server")


def _identifier(block: str) -> x509.SubjectKeyIdentifier:
    one = pem.certificate(block)
    try:
        return one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(one.public_key())


class _Issuer(NamedTuple):
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    identifier: x509.SubjectKeyIdentifier


def _signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: _Issuer, now: datetime) -> str:
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=True, key_cert_sign=True, crl_sign=False, content_commitment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a host's clock may be behind
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.identifier), critical=False
        )
        .sign(issuer.key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _text(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def load(store: Store) -> tuple[Files, float]:
    """Return the files of a rotation that has begun, and when its servers had all restarted: 0 before; else nothing."""
    saved = json.loads(store.read(FILE) or "{}")
    return {name: Secret(text) for name, text in saved.get("files", {}).items()}, float(saved.get("restarted", 0))


def save(store: Store, files: Mapping[str, Secret], restarted: float = 0) -> None:
    """Save the files of a rotation, and when all servers had them."""
    texts = {name: text.reveal() for name, text in files.items()}
    store.write(FILE, json.dumps({"files": texts, "restarted": restarted}) + "\n")
