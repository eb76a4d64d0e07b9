"""The cluster's certificate authorities and what they sign, in K3s' names and lifetimes."""

from __future__ import annotations

import ipaddress
import re
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k3s_standin.log import log

Pair = tuple[str, str]
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
RENEW_BELOW = timedelta(days=120)
# Version 3, then the serial number. K3s' own authorities have number 0 (rancher/dynamiclistener, NewSelfSignedCACert),
# which cryptography does not write, and warns of where it reads it.
_SERIAL_0, _SERIAL_1 = b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x01\x01"
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def new_key() -> str:
    """Return a new private key."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _name(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    words = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    return x509.Name([*words, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, True, False, False, signs, False, False, False)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: int, serial: int = 0
) -> x509.CertificateBuilder:
    # An hour back, as K3s does: clocks of hosts differ.
    now = datetime.now(UTC) - timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return (
        builder.serial_number(serial or x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
    )


def authority(name: str) -> Pair:
    """Return certificate and key of a new authority, good for ten years, with serial number 0."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name}@{int(time.time())}")
    certificate = (
        _builder(subject, subject, key.public_key(), 3650, serial=1)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    log("info", f"generated self-signed CA certificate CN={common_name(certificate)}: {_validity(certificate)}")
    signed_part = certificate.tbs_certificate_bytes.replace(_SERIAL_1, _SERIAL_0, 1)
    signature = b"\0" + key.sign(signed_part, ec.ECDSA(hashes.SHA256()))
    der = _der(0x30, signed_part + _ECDSA_WITH_SHA256 + _der(0x03, signature))
    return ssl.DER_cert_to_PEM_cert(der), _pem(key)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8 or 1)
    return bytes([tag, *([0x80 + len(length)] if size > 127 else []), *length]) + content


def load(pem: str) -> list[x509.Certificate]:
    """Return certificates; where a serial number is 0 it is read as 1, and nothing else is another."""
    ders = [ssl.PEM_cert_to_DER_cert(one) for one in _PEM.findall(pem)]
    return [x509.load_der_x509_certificate(der.replace(_SERIAL_0, _SERIAL_1, 1)) for der in ders]


def request(key: str, name: str, organizations: Sequence[str] = ()) -> str:
    """Return a signing request for a key."""
    made = x509.CertificateSigningRequestBuilder().subject_name(_name(name, organizations))
    return made.sign(_load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def sign(
    issuer: Pair,
    name: str,
    organizations: Sequence[str],
    public_key: CertificatePublicKeyTypes,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    sans: Sequence[str] = (),
    days: int = 365,
) -> str:
    """Return a certificate for a public key."""
    ca, ca_key = load(issuer[0])[0], _load_key(issuer[1])
    builder = (
        _builder(_name(name, organizations), ca.subject, public_key, days)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(one) for one in sans]), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    who = ",".join([f"CN={name}", *(f"O={one}" for one in organizations)])
    log("info", f"certificate {who} signed by CN={common_name(ca)}: {_validity(certificate)}")
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def signed(
    issuer: Pair,
    name: str,
    organizations: Sequence[str] = (),
    *,
    usages: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    sans: Sequence[str] = (),
    key: str | None = None,
) -> Pair:
    """Return a certificate, with its authority's behind it, and its key."""
    key = key or new_key()
    public = _load_key(key).public_key()
    return sign(issuer, name, organizations, public, usages=usages, sans=sans) + issuer[0], key


def fits(path: Path, issuer: Pair, sans: Sequence[str] = ()) -> bool:
    """Tell whether a certificate on disk is by this authority, has these names, and lasts long enough to be kept."""
    try:
        certificate = load(path.read_text())[0]
        certificate.verify_directly_issued_by(load(issuer[0])[0])
    except (OSError, ValueError, IndexError, TypeError, InvalidSignature):
        return False
    lasting = certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BELOW
    return lasting and set(sans) <= names(certificate)


def leads(one: x509.Certificate, between: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Tell whether a certificate leads to one of these roots."""
    if any(issued(one, root) for root in roots):
        return True
    return any(leads(other, [c for c in between if c != other], roots) for other in between if issued(one, other))


def issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether one certificate has signed another."""
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return one.subject != issuer.subject


def names(certificate: x509.Certificate) -> set[str]:
    """Return the names and addresses a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one.value) for one in found}


def common_name(certificate: x509.Certificate) -> str:
    """Return the subject's common name."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _validity(certificate: x509.Certificate) -> str:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"notBefore={first:%Y-%m-%d %H:%M:%S} +0000 UTC notAfter={last:%Y-%m-%d %H:%M:%S} +0000 UTC"


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def public_key(pem: str) -> CertificatePublicKeyTypes:
    """Return a private key's public half."""
    return _load_key(pem).public_key()
