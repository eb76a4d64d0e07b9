"""Have the cluster sign the load balancers' health check certificate.

Source: Kubernetes `certificates.k8s.io`, signer `kubernetes.io/kube-apiserver-client`.
"""

from __future__ import annotations

import base64
import json

from nornir_k3s import k3s, shell
from nornir_k3s.records import END, SAY, RecordError, decoded, read

NAME = "nornir-k3s-lb-check"


def script(csr: str) -> str:
    """Return a script that has the cluster sign a request, PEM, and prints the certificate."""
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": NAME},
        "spec": {
            "request": base64.b64encode(csr.encode()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    call = shell.call("sign_request", k3s.BINARY, NAME, json.dumps(manifest))
    return f"{SAY}{shell.source('apply/check_certificate.sh')}{call}\nsay {END}\n"


def parse(text: str) -> str:
    """Return the PEM certificate in the script's output.

    Raises:
        RecordError: It has none.
    """
    records = read(text).get("certificate")
    if not records:
        raise RecordError("the cluster signed no certificate")
    return decoded(records[-1].take(1)[0])
