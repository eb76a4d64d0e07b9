"""Certificates in PEM, also those that X.509 does not allow."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from cryptography import x509

# Version 3, then the serial number 0, which K3s' own CAs have (rancher/dynamiclistener, `NewSelfSignedCACert`). X.509
# does not allow it: cryptography warns, and will refuse it.
_SERIAL_0, _SERIAL_1 = b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x01\x01"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def blocks(text: str) -> list[str]:
    """Return the text of each certificate."""
    return _PEM.findall(text)


def certificate(block: str) -> x509.Certificate:
    """Return one certificate; where its serial number is 0 it is read as 1, and nothing else is another.

    Raises:
        ValueError: It is damaged.
    """
    der = ssl.PEM_cert_to_DER_cert(block)
    return x509.load_der_x509_certificate(der.replace(_SERIAL_0, _SERIAL_1, 1))


def certificates(text: str) -> Iterator[x509.Certificate]:
    """Yield the certificates of a text; one that is only half there is left out."""
    for block in blocks(text):
        try:
            yield certificate(block)
        except ValueError:
            continue
