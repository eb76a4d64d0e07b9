"""The kubeconfig of the last deploy, and the names of the certificate behind the registration address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime

from nornir_k3s.model.cluster import (
    Cluster,
)
from nornir_k3s.model.difference import CLUSTER, Difference
from nornir_k3s.model.kubeconfig import KubeconfigAnswer


def differences(cluster: Cluster, name: str, answer: KubeconfigAnswer, *, days: int) -> Iterator[Difference]:
    """Yield what is wrong with the kubeconfig, and with the names behind the address."""
    if answer.error:
        todo = "deploy.py writes it anew" + ("" if answer.missing else "; look at the way to the VIP, too")
        yield Difference(
            host=CLUSTER, kind="kubeconfig", what=name, found=f"it does not work from here: {answer.error}",
            expected=f"an answer of {cluster.url}", todo=todo, by="deploy",
            severity="warning" if answer.missing else "error",
        )  # fmt: skip
    end = answer.expires
    if end and (left := (end - datetime.now(UTC)).days) < days:
        yield Difference(
            host=CLUSTER, kind="certificate", what=name, found=f"its client certificate ends in {left} days",
            expected=f"{days} days or more", todo="restart k3s on the servers, one at a time, then run deploy.py",
            severity="warning" if left >= 7 else "error",
        )  # fmt: skip
    if answer.names:
        have = {_plain(name) for name in answer.names}
        for wanted in cluster.names:
            if _plain(wanted) not in have:
                yield Difference(
                    host=CLUSTER, kind="names", what=wanted,
                    found=f"the certificate has only {', '.join(sorted(have))}",
                    expected=f"{wanted} among its names",
                    todo="put it into tls-san (the registration address is, by itself), then `k3s certificate rotate`",
                    severity="error",
                )  # fmt: skip


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
