"""When certificates end: K3s' own on servers and agents, and that of someone else's datastore.

Source: docs.k3s.io `cli/certificate.md`: K3s renews its certificates when it starts with fewer than 120 days left (90
before the releases of late 2024); its CAs last ten years and are renewed by hand.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from cryptography import x509
from pydantic import BaseModel

from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import Observed

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Ending(BaseModel):
    """A certificate, and when it ends."""

    host: str
    path: str
    ends: datetime
    authority: bool

    @property
    def days(self) -> int:
        """The days until then; negative where it has ended."""
        return (self.ends - datetime.now(UTC)).days


def endings(observed: Mapping[str, Observed]) -> list[Ending]:
    """Return the first end within each file of certificates that was read, those that end first before the others."""
    found = []
    for host, seen in observed.items():
        for (encoded,) in seen.facts.get("certs", []):
            text = base64.b64decode(encoded).decode(errors="replace")
            for path, part in re.findall(r"^==> (.+?) <==\n(.*?)(?=^==> |\Z)", text, re.MULTILINE | re.DOTALL):
                certificates = list(_certificates(part))
                if certificates:
                    first = min(certificates, key=lambda one: one.not_valid_after_utc)
                    authority = first.subject == first.issuer or path.endswith("-ca.crt")
                    found.append(Ending(host=host, path=path, ends=first.not_valid_after_utc, authority=authority))
        for place, ends in seen.facts.get("ends", []):
            path, at = f"the datastore at {place}", datetime.fromtimestamp(int(ends), UTC)
            if all(one.path != path for one in found):  # every server has asked it
                found.append(Ending(host=CLUSTER, path=path, ends=at, authority=False))
    return sorted(found, key=lambda one: one.ends)


def _certificates(text: str) -> Iterator[x509.Certificate]:
    for pem in _PEM.findall(text):
        try:
            yield x509.load_pem_x509_certificate(pem.encode())
        except ValueError:
            continue  # K3s is just writing it


def differences(cluster: Cluster, found: Iterable[Ending], *, days: int) -> Iterator[Finding]:
    """Yield the certificates that end within so many days."""
    for one in found:
        if one.days >= days:
            continue
        if one.host == CLUSTER:
            remedy = "renew it: no K3s can connect from then on"
        else:
            unit = "k3s" if cluster.member(one.host).role == "servers" else "k3s-agent"
            remedy = f"restart {unit} on it, one host at a time: K3s renews its certificates when it starts"
        if one.authority:
            remedy = "renew the CA by hand: docs.k3s.io, cli/certificate (`k3s certificate rotate-ca`)"
        text = f"it ends in {one.days} days" if one.days >= 0 else f"it has ended {-one.days} days ago"
        yield Finding(
            host=one.host, kind="certificate", subject=one.path, found=f"{text}, on {one.ends:%Y-%m-%d}",
            expected=f"{days} days or more", remedy=remedy, severity="warning" if one.days >= 7 else "error",
        )  # fmt: skip
