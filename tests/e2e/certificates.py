"""Certificates of a datastore that someone else runs, and one that has expired."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nornir_k3s.model import pem

from .conftest import DB


def expired() -> str:
    """Return a certificate that has expired, of an authority that nobody knows."""
    now, key = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP256R1())
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("expired", "nobody"))
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=365))
        .not_valid_after(now - datetime.timedelta(days=3))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def ended(authority: str, key: str, name: str) -> str:
    """Return a client's certificate that this CA has signed and that ended yesterday, with its key, PEM."""
    now, own = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP256R1())
    signs = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(signs, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = next(pem.certificates(authority)).subject
    builder = (
        x509.CertificateBuilder(issuer, subject, own.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL
    text = own.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return (builder.sign(signs, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + text).decode()


def certificate(folder: Path) -> None:
    """Make a CA, another CA, certificates of the first for the database's address and for a client, and keys.

    The database's is db.crt; ending.crt ends soon, expired.crt has ended.
    """
    now = datetime.datetime.now(datetime.UTC)

    def sign(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, days: int = 90
    ) -> bytes:
        authority = name == issuer
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
        if authority:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(DB))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca, other, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (folder / "ca.pem").write_bytes(sign("ca", "ca", ca, ca))
    (folder / "other.pem").write_bytes(sign("other", "other", other, other))
    for name, days in {"db.crt": 90, "ending.crt": 5, "expired.crt": -1, "client.pem": 90}.items():
        (folder / name).write_bytes(sign("db", "ca", key, ca, days))
    for name, one in {"db.key": key, "client-key.pem": key, "other-key.pem": other}.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(
            one.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
