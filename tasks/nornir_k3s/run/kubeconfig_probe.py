"""Probe the kubeconfig from the controller, through the registration address.

Nothing is written: the client's key stays in memory. Source: docs.k3s.io `cluster-access.md`.
"""

from __future__ import annotations

import base64
import http.client
import os
import ssl
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509

from nornir_k3s.model.kubeconfig import KubeconfigAnswer

TIMEOUT = 5.0
# What reading a kubeconfig raises if it is none.
UNUSABLE = (OSError, yaml.YAMLError, ValueError, KeyError, IndexError, TypeError)


def probe(path: Path) -> KubeconfigAnswer:
    """Request `/readyz` with a kubeconfig and return the result."""
    return replace(_request(path), expires=_expires(path))


@dataclass(frozen=True)
class Access:
    """What a kubeconfig leads to: the server's name or address, its port, and TLS with the client's certificate."""

    host: str
    port: int
    context: ssl.SSLContext


def access(path: Path) -> Access:
    """Return the access that a kubeconfig gives.

    Raises:
        ValueError: In words: it is missing, or no valid kubeconfig.
    """
    try:
        data = yaml.safe_load(path.read_text())
        cluster, user = data["clusters"][0]["cluster"], data["users"][0]["user"]
        url, context = urlsplit(cluster["server"]), _context(cluster, user)
        port = url.port or 443
    except UNUSABLE:
        raise ValueError(f"{path} is not a valid kubeconfig" if path.is_file() else f"{path} is missing") from None
    if not url.hostname:
        raise ValueError(f"{path} names no server")
    return Access(url.hostname, port, context)


def _request(path: Path) -> KubeconfigAnswer:
    if not path.is_file():
        return KubeconfigAnswer(f"{path} is missing", missing=True)
    try:
        to = access(path)
    except ValueError as error:
        return KubeconfigAnswer(str(error))
    connection = http.client.HTTPSConnection(to.host, to.port, timeout=TIMEOUT, context=to.context)
    try:
        connection.connect()
        found = names(connection.sock.getpeercert(binary_form=True))
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        return KubeconfigAnswer(f"the server's certificate is not trusted: {error.verify_message}")
    except (OSError, http.client.HTTPException) as error:
        return KubeconfigAnswer(str(getattr(error, "strerror", None) or error or type(error).__name__).lower())
    finally:
        connection.close()
    return KubeconfigAnswer("" if status == 200 else f"/readyz answers {status}", found)


def _context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Go's library, in kubectl, takes more
    _load(context, user)
    return context


def log_in(context: ssl.SSLContext, text: str) -> None:
    """Add the client certificate of a kubeconfig to a TLS context.

    Raises:
        One of UNUSABLE: It is no kubeconfig.
    """
    _load(context, yaml.safe_load(text)["users"][0]["user"])


def _load(context: ssl.SSLContext, user: dict[str, Any]) -> None:
    pair = b"\n".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data"))
    descriptor = os.memfd_create("client")
    try:
        os.write(descriptor, pair)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def names(certificate: bytes | None) -> tuple[str, ...]:
    """Return the names in a certificate, which is in DER."""
    if not certificate:
        return ()
    try:
        extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def _expires(path: Path) -> datetime | None:
    try:
        data = yaml.safe_load(path.read_text())
        pem = base64.b64decode(data["users"][0]["user"]["client-certificate-data"])
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except UNUSABLE:
        return None
