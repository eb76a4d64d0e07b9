"""The kubeconfig of the last deploy, and the names in the certificate at the registration address."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from nornir_k3s.checks import works
from nornir_k3s.model.address_answer import AddressAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.kubeconfig import KubeconfigAnswer


def differences(
    cluster: Cluster, name: str, answer: KubeconfigAnswer, *, days: int, address: AddressAnswer | None = None
) -> Iterator[Finding]:
    """Yield the problems of the kubeconfig, and of the names in the API's certificate.

    Arguments:
        name: The kubeconfig's.
        answer: What it gets.
        days: A certificate that expires earlier is a finding.
        address: What was found at the registration address.
    """
    if answer.error:
        remedy = "the next deploy writes it again" + ("" if answer.missing else "; also check the route to it")
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
    names = (address.names if address else ()) or answer.names
    for wanted in works.missing_names(cluster, names):
        yield Finding(
            host=CLUSTER, kind="names", subject=wanted,
            found=f"the API's certificate is only for {', '.join(sorted(names))}",
            expected=f"{wanted} among its names",
            remedy="deploy: a server that restarts with it in tls-san adds it; if that is not enough, run "
            "`k3s certificate rotate` on one server and restart k3s there",
            severity="error",
        )  # fmt: skip
