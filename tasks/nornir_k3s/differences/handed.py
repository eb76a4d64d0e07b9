"""The kubeconfig that was handed over, tried from the controller as its users will: through the VIP.

Nothing is written: the client's key goes to TLS through memory. Source: docs.k3s.io `cluster-access.md`.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509

from nornir_k3s.cluster import Cluster
from nornir_k3s.differences.difference import CLUSTER, Difference

TIMEOUT = 5.0


@dataclass(frozen=True)
class Tried:
    """What came of it: in words why not, and the names in the certificate behind the address."""

    error: str = ""
    names: tuple[str, ...] = ()
    missing: bool = False


def attempt(path: Path) -> Tried:
    """Ask for `/readyz` with a kubeconfig, and return what came of it."""
    if not path.is_file():
        return Tried(f"{path} is missing", missing=True)
    try:
        data = yaml.safe_load(path.read_text())
        cluster, user = data["clusters"][0]["cluster"], data["users"][0]["user"]
        place, context = urlsplit(cluster["server"]), _context(cluster, user)
    except (OSError, yaml.YAMLError, ValueError, KeyError, IndexError, TypeError, ssl.SSLError):
        return Tried(f"{path} is not a kubeconfig as it was handed over")
    if not place.hostname:
        return Tried(f"{path} names no server")
    connection = http.client.HTTPSConnection(place.hostname, place.port or 443, timeout=TIMEOUT, context=context)
    try:
        connection.connect()
        names = _names(connection.sock.getpeercert(binary_form=True))
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        return Tried(f"the certificate is refused: {error.verify_message}")
    except (OSError, http.client.HTTPException) as error:
        return Tried(str(getattr(error, "strerror", None) or error or type(error).__name__).lower())
    finally:
        connection.close()
    return Tried("" if status == 200 else f"/readyz answers {status}", names)


def _context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    pair = b"\n".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data"))
    descriptor = os.memfd_create("client")
    try:
        os.write(descriptor, pair)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _names(certificate: bytes | None) -> tuple[str, ...]:
    if not certificate:
        return ()
    try:
        extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def ends(path: Path) -> datetime | None:
    """Return when the client certificate in a kubeconfig ends, or None."""
    try:
        data = yaml.safe_load(path.read_text())
        pem = base64.b64decode(data["users"][0]["user"]["client-certificate-data"])
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except (OSError, yaml.YAMLError, ValueError, KeyError, IndexError, TypeError):
        return None


def differences(cluster: Cluster, path: Path, tried: Tried, *, days: int) -> Iterator[Difference]:
    """Yield what is wrong with the kubeconfig, and with the names behind the address."""
    if tried.error:
        todo = (
            "deploy.py writes it anew" if tried.missing else "deploy.py writes it anew; look at the way to the VIP, too"
        )
        yield Difference(
            host=CLUSTER, kind="kubeconfig", what=path.name, found=f"it does not work from here: {tried.error}",
            expected=f"an answer of {cluster.url}", todo=todo, by="deploy",
            severity="warning" if tried.missing else "error",
        )  # fmt: skip
    end = ends(path)
    if end and (left := (end - datetime.now(UTC)).days) < days:
        yield Difference(
            host=CLUSTER, kind="certificate", what=path.name, found=f"its client certificate ends in {left} days",
            expected=f"{days} days or more", todo="restart k3s on the servers, one at a time, then run deploy.py",
            severity="warning" if left >= 7 else "error",
        )  # fmt: skip
    if tried.names:
        have = {_plain(name) for name in tried.names}
        for name in cluster.names:
            if _plain(name) not in have:
                yield Difference(
                    host=CLUSTER, kind="names", what=name, found=f"the certificate has only {', '.join(sorted(have))}",
                    expected=f"{name} among its names",
                    todo="put it into tls-san (the registration address is, by itself), then `k3s certificate rotate`",
                    severity="error",
                )  # fmt: skip


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
