"""When certificates expire: K3s' own on servers and agents, and that of an external datastore.

Source: docs.k3s.io `cli/certificate.md`: K3s renews its certificates when it starts with fewer than 120 days left (90
before the releases of late 2024); its CAs last ten years and are renewed by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_report import CertificateExpiry
from nornir_k3s.model.finding import CLUSTER, Finding, Severity
from nornir_k3s.model.host_facts import HostFacts

SOON = 7  # days; what expires earlier is an error, and a deploy renews it where it can


def expiries(all_facts: Mapping[str, HostFacts]) -> list[CertificateExpiry]:
    """Return when the first certificate of each file expires, the earliest first."""
    found = [
        CertificateExpiry(host=host, path=one.path, ends=one.expires, authority=one.authority)
        for host, facts in all_facts.items()
        for one in facts.certificates
    ]
    # Every server reports the same ones.
    external = {one.path: one for facts in all_facts.values() for one in facts.datastore_certificates}
    found += [
        CertificateExpiry(host=CLUSTER, path=one.path, ends=one.expires, authority=False) for one in external.values()
    ]
    return sorted(found, key=lambda one: one.ends)


def differences(
    cluster: Cluster, found: Iterable[CertificateExpiry], *, days: int, started: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield the certificates that expire within `days`, or that the next deploy renews.

    Arguments:
        started: The hosts whose K3s the next deploy starts or restarts.
    """
    for one in found:
        if one.days >= days and (one.host not in started or one.days >= SOON):
            continue
        by: Literal["deploy", "person"] = "person"
        if one.host == CLUSTER:
            remedy = "renew it: K3s cannot connect after that"
        else:
            unit = "k3s" if cluster.member(one.host).role == "servers" else "k3s-agent"
            remedy = f"restart {unit} on this host, one host at a time: K3s renews its certificates when it starts"
            if one.host in started and not one.authority:
                remedy, by = f"the next deploy restarts {unit}: K3s renews its certificates when it starts", "deploy"
        if one.authority:
            remedy = "renew the CA by hand: docs.k3s.io, cli/certificate (`k3s certificate rotate-ca`)"
        severity: Severity = "warning" if one.days >= SOON else "error"
        text = f"expires in {one.days} days" if one.days >= 0 else f"expired {-one.days} days ago"
        yield Finding(
            host=one.host, kind="certificate", subject=one.path, found=f"{text}, on {one.ends:%Y-%m-%d}",
            expected=f"valid for at least {days} days", remedy=remedy, fixed_by=by, severity=severity,
        )  # fmt: skip
