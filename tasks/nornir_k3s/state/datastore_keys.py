"""Keys of a managed datastore: a CA of the cluster's own, and what it has signed, kept 0600 on the controller.

Sources: etcd `op-guide/security.md` (members show their certificate to each other, so it is for both sides); kine
`pkg/drivers` (an address in the endpoint must be one of the certificate's names).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nornir_k3s.errors import UsageError
from nornir_k3s.model.datastore_keys import Keys, Pair
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

FILE = "datastore-keys.json"
CA_LASTS = timedelta(days=20 * 365)
LASTS = timedelta(days=365)
RENEW_BEFORE = timedelta(days=90)
CLIENT = "k3s"


def load(store: Store, *, cluster: str, hosts: Mapping[str, Sequence[str]], now: datetime | None = None) -> Keys:
    """Return the keys kept by an earlier run; what is missing, about to end or for other names is made anew.

    Arguments:
        store: Where they are kept; what is new is written by its `commit`.
        cluster: Its name, for people who look into a certificate.
        hosts: Names and addresses that each datastore host is reached by.
        now: Another moment than this one, for tests.

    Raises:
        UsageError: The file that keeps them is damaged.
    """
    now = now or datetime.now(UTC)
    text = store.read(FILE)
    try:
        kept: dict[str, Any] = json.loads(text) if text else {}
        ca = kept.get("ca") or _authority(cluster, now)
        issued = kept.get("issued", {})
        wanted = {**hosts, CLIENT: ()}
        fresh = {
            name: _kept(issued.get(name), names, ca, now) or _issue(name, names, ca, now)
            for name, names in wanted.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "put it back from a backup; without it the datastore gets a new CA, and every server a new file"
        raise UsageError(f"{store.folder / FILE} is damaged", hint=hint) from None
    have = {"ca": ca, "issued": fresh}
    if have != kept:
        store.hold(FILE, Secret(json.dumps(have)))
    pairs = {name: Pair(pair["certificate"], Secret(pair["key"])) for name, pair in fresh.items()}
    return Keys(ca["certificate"], {name: pairs[name] for name in hosts}, pairs[CLIENT])


def ends(certificate: str) -> datetime:
    """Return when a certificate ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def _kept(
    pair: dict[str, str] | None, names: Sequence[str], ca: dict[str, str], now: datetime
) -> dict[str, str] | None:
    if not pair:
        return None
    certificate = x509.load_pem_x509_certificate(pair["certificate"].encode())
    authority = x509.load_pem_x509_certificate(ca["certificate"].encode())
    if certificate.not_valid_after_utc - RENEW_BEFORE < now or certificate.issuer != authority.subject:
        return None
    return pair if _names(certificate) == set(names) else None


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _authority(cluster: str, now: datetime) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    # Its name holds its beginning: of two CAs of one cluster, one made after a loss, each is known by its name.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{cluster} datastore CA {now:%Y%m%d%H%M%S}")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(subject, subject, key, key, (now, CA_LASTS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _pair(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def _issue(name: str, names: Sequence[str], ca: dict[str, str], now: datetime) -> dict[str, str]:
    authority = x509.load_pem_x509_certificate(ca["certificate"].encode())
    signer = serialization.load_pem_private_key(ca["key"].encode(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the CA's key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.subject, key, signer, (now, LASTS))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if names:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        alternatives = x509.SubjectAlternativeName([_general(word) for word in names])
        builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    lasts: tuple[datetime, timedelta],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(lasts[0] - timedelta(hours=1))  # a host's clock may be behind
        .not_valid_after(lasts[0] + lasts[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _general(word: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(word))
    except ValueError:
        return x509.DNSName(word)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "key": private.decode()}
