"""When certificates expire: K3s' own, those of the datastore, and that of the load balancers' health check.

Source: docs.k3s.io `cli/certificate.md`: K3s renews its certificates when it starts with fewer than 120 days left (90
before the releases of late 2024); its CAs last ten years.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_report import CertificateExpiry
from nornir_k3s.model.finding import CLUSTER, Finding, Severity
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.planner import PlannedHost
from nornir_k3s.roles import server

SOON = 7  # days; what expires earlier is an error, and a deploy renews it where it can
OURS = 30  # the same for what every deploy renews from 90 days before its end: there was none for two months


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
    cluster: Cluster,
    found: Iterable[CertificateExpiry],
    *,
    days: int,
    hosts: Mapping[str, PlannedHost] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Yield the certificates that expire within `days`, or that the next deploy renews by a restart of K3s.

    Arguments:
        hosts: The plans of the hosts.
    """
    for one in found:
        renewed = _renewed(one, hosts.get(one.host))
        if one.days >= days and not (renewed and one.days < SOON):
            continue
        severity: Severity = "warning" if one.days >= (OURS if _is_ours(cluster, one) else SOON) else "error"
        yield Finding(
            host=one.host, kind="certificate", subject=one.path, found=f"{when(one)}, on {one.ends:%Y-%m-%d}",
            expected=f"valid for at least {days} days", remedy=renewed or remedy(cluster, one),
            fixed_by="deploy" if renewed else "person", severity=severity,
        )  # fmt: skip


def when(one: CertificateExpiry) -> str:
    """Return when it expires, or has expired."""
    return f"expires in {one.days} days" if one.days >= 0 else f"expired {-one.days} days ago"


def _renewed(one: CertificateExpiry, host: PlannedHost | None) -> str:
    """Return what the next deploy does, or nothing if it does not renew this one."""
    if host is None or one.authority:
        return ""
    if one.path.startswith(k3s.DATA) and host.starts_k3s:
        return "the next deploy restarts K3s: it renews its certificates when it starts"
    if any(step.kind == "file" and step.target == one.path for step in host.steps):
        return "the next deploy renews it"
    return ""


def _is_ours(cluster: Cluster, one: CertificateExpiry) -> bool:
    """Return whether any deploy renews it in its last 90 days."""
    return not (one.authority or one.host == CLUSTER or one.path.startswith(k3s.DATA) or _is_given(cluster, one))


def _is_given(cluster: Cluster, one: CertificateExpiry) -> bool:
    """Return whether it is a copy of a file that the inventory names."""
    return one.path.startswith(f"{server.FOLDER}/") and not cluster.is_managed


def remedy(cluster: Cluster, one: CertificateExpiry) -> str:
    """Return what renews a certificate."""
    if one.authority:
        if one.path.startswith(k3s.DATA):
            return "give the cluster new CAs: nornir-k3s rotate ca"
        return "renew it where it was made, then deploy"
    if one.host == CLUSTER:
        return "renew it: K3s cannot connect after that"
    if one.path.startswith(k3s.DATA):
        unit = k3s.UNITS["server" if cluster.member(one.host).role == "servers" else "agent"]
        return f"restart {unit} on this host, one host at a time, or run nornir-k3s rotate certificates"
    if _is_given(cluster, one):
        return "renew the file that the inventory names, then deploy"
    return "deploy: it renews the certificate in its last months"
