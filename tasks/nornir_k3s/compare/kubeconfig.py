"""The kubeconfig of the last deploy, and the names of the certificate behind the registration address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime

from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.kubeconfig import KubeconfigAnswer


def differences(cluster: Cluster, name: str, answer: KubeconfigAnswer, *, days: int) -> Iterator[Finding]:
    """Yield what is wrong with the kubeconfig, and with the names behind the address."""
    if answer.error:
        remedy = "deploy.py writes it anew" + ("" if answer.missing else "; look at the way to the VIP, too")
        yield Finding(
            host=CLUSTER, kind="kubeconfig", subject=name, found=f"it does not work from here: {answer.error}",
            expected=f"an answer of {cluster.url}", remedy=remedy, fixed_by="deploy",
            severity="warning" if answer.missing else "error",
        )  # fmt: skip
    end = answer.expires
    if end and (left := (end - datetime.now(UTC)).days) < days:
        yield Finding(
            host=CLUSTER, kind="certificate", subject=name, found=f"its client certificate ends in {left} days",
            expected=f"{days} days or more", remedy="restart k3s on the servers, one at a time, then run deploy.py",
            severity="warning" if left >= 7 else "error",
        )  # fmt: skip
    if answer.names:
        have = {_plain(name) for name in answer.names}
        for wanted in cluster.names:
            if _plain(wanted) not in have:
                yield Finding(
                    host=CLUSTER, kind="names", subject=wanted,
                    found=f"the certificate has only {', '.join(sorted(have))}",
                    expected=f"{wanted} among its names",
                    remedy="add it to tls-san (the registration address is in it), then `k3s certificate rotate`",
                    severity="error",
                )  # fmt: skip


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
