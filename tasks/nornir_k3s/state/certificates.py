"""X.509 certificates: a CA, what it signs, and a request for another CA to sign. Nothing here touches a file.

Sources: etcd `op-guide/security.md` (members show their certificate to each other, so it is for both sides); kine
`pkg/drivers` (an address in the endpoint must be one of the certificate's names).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nornir_k3s.model import pem

CA_VALIDITY = timedelta(days=20 * 365)
VALIDITY = timedelta(days=365)
BEHIND = timedelta(hours=1)  # a host's clock may be: certificates are valid from that much before they are signed

PemPair = dict[str, str]  # `certificate` and `key`, both PEM


def create_ca(cluster: str, now: datetime) -> PemPair:
    """Return a new CA for a cluster's datastore."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The name holds the time, so that the CA that replaces a lost one has another name.
    subject = _name(f"{cluster} datastore CA {now:%Y%m%d%H%M%S}")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(subject, subject, key, key, (now, now + CA_VALIDITY))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _pair(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def issue(name: str, names: Sequence[str], ca: PemPair, now: datetime) -> PemPair:
    """Return a certificate signed by a CA, and its key.

    Arguments:
        name: The common name.
        names: DNS names and addresses of a server; none for a client.
        ca: The CA.
        now: When it is signed.

    Raises:
        ValueError, TypeError: The CA is damaged.
    """
    authority = x509.load_pem_x509_certificate(ca["certificate"].encode())
    signer = serialization.load_pem_private_key(ca["key"].encode(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the CA's key")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), authority.subject, key, signer, (now, now + VALIDITY))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if names:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        alternatives = x509.SubjectAlternativeName([_general_name(word) for word in names])
        builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def request(name: str) -> PemPair:
    """Return a certificate request, as `certificate`, and its new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _pair(x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA256()), key)


def valid_for(certificate: str, left: timedelta, now: datetime) -> bool:
    """Return whether a certificate, PEM, is valid for at least that long."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc - left >= now


def matches(certificate: str, names: Sequence[str], ca: PemPair) -> bool:
    """Return whether a certificate, PEM, is this CA's and has exactly these names."""
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    authority = x509.load_pem_x509_certificate(ca["certificate"].encode())
    return loaded.issuer == authority.subject and _names(loaded) == set(names)


def signed_at(certificate: str) -> datetime:
    """Return since when a certificate, PEM, is valid: one that was signed later is newer."""
    return pem.certificate(certificate).not_valid_before_utc


def is_older(certificate: str, since: float) -> bool:
    """Return whether a certificate of `issue`, PEM, was signed before then, in seconds since the epoch."""
    return (signed_at(certificate) + BEHIND).timestamp() < int(since)


def has_signed(ca: PemPair, pair: PemPair) -> bool:
    """Return whether a CA has signed a certificate, and the key is the one of that certificate.

    Arguments:
        ca: Its `certificate` is enough.

    Raises:
        ValueError, TypeError: One of them is damaged.
    """
    authority, own = pem.certificate(ca["certificate"]), pem.certificate(pair["certificate"])
    key = serialization.load_pem_private_key(pair["key"].encode(), password=None)
    try:
        own.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return key.public_key() == own.public_key()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _general_name(word: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(word))
    except ValueError:
        return x509.DNSName(word)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    valid: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0] - BEHIND)
        .not_valid_after(valid[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _pair(signed: x509.Certificate | x509.CertificateSigningRequest, key: ec.EllipticCurvePrivateKey) -> PemPair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"certificate": signed.public_bytes(serialization.Encoding.PEM).decode(), "key": private.decode()}
