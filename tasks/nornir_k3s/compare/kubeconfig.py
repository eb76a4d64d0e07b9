"""The kubeconfig of the last deploy, and the names in the certificate at the registration address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.kubeconfig import KubeconfigAnswer


def differences(cluster: Cluster, name: str, answer: KubeconfigAnswer, *, days: int) -> Iterator[Finding]:
    """Yield the problems of the kubeconfig, and of the names in the API's certificate."""
    if answer.error:
        remedy = "the next deploy writes it again" + ("" if answer.missing else "; also check the route to the VIP")
        yield Finding(
            host=CLUSTER, kind="kubeconfig", subject=name, found=f"the kubeconfig does not work: {answer.error}",
            expected=f"an answer from {cluster.url}", remedy=remedy, fixed_by="deploy",
            severity="warning" if answer.missing else "error",
        )  # fmt: skip
    end = answer.expires
    if end and (left := (end - datetime.now(UTC)).days) < days:
        yield Finding(
            host=CLUSTER, kind="certificate", subject=name, found=f"the client certificate expires in {left} days",
            expected=f"valid for at least {days} days", remedy="restart k3s on one server after the other, then deploy",
            severity="warning" if left >= 7 else "error",
        )  # fmt: skip
    if answer.names:
        names = {_normalized(name) for name in answer.names}
        for wanted in cluster.names:
            if _normalized(wanted) not in names:
                yield Finding(
                    host=CLUSTER, kind="names", subject=wanted,
                    found=f"the API's certificate is only for {', '.join(sorted(names))}",
                    expected=f"{wanted} among its names",
                    remedy="add it to tls-san (with the registration address) and deploy; if that is not enough, run "
                    "`k3s certificate rotate` on one server and restart k3s there",
                    severity="error",
                )  # fmt: skip


def _normalized(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
