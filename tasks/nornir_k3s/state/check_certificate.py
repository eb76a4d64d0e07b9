"""The load balancers' health check certificate: made by the cluster's own CA, good for `/readyz` and nothing else.

Source: Kubernetes `certificates.k8s.io`, signer `kubernetes.io/kube-apiserver-client`; a user without a group may read
`/readyz` (ClusterRole `system:public-info-viewer`) and gets 403 from everything else.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

from nornir_k3s import k3s
from nornir_k3s.model.secret import Secret
from nornir_k3s.state import certificates
from nornir_k3s.state.store import Store

NAME = "lb-check"
RENEW_BEFORE = timedelta(days=60)


def load(store: Store, ca_prefix: str) -> Secret:
    """Return certificate and key as HAProxy reads them; empty where there is none of this cluster, or it expires soon.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA; another cluster's certificate does not count.
    """
    text = store.read(f"{NAME}.json")
    saved = json.loads(text) if text and ca_prefix else {}
    if saved.get("ca") == ca_prefix and certificates.valid_for(saved["certificate"], RENEW_BEFORE, datetime.now(UTC)):
        return Secret(saved["certificate"] + saved["key"])
    return Secret("")


def request() -> tuple[str, Secret]:
    """Return a certificate request and its new private key, both PEM."""
    pair = certificates.request(NAME)
    return pair["certificate"], Secret(pair["key"])


def save(store: Store, ca_prefix: str, certificate: str, key: Secret) -> None:
    """Save a signed certificate with its key and the CA it belongs to."""
    text = json.dumps({"ca": ca_prefix, "certificate": certificate, "key": key.reveal()})
    store.write(f"{NAME}.json", text + "\n")


def sign_script(csr: str) -> str:
    """Return a script that has the cluster sign a request and prints `certificate` with the PEM, base64-encoded.

    The request object is removed afterwards; nothing on the host's disk changes.
    """
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"nornir-k3s-{NAME}"},
        "spec": {
            "request": base64.b64encode(csr.encode()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    return f"""set -eu
kubectl() {{ {k3s.BINARY} kubectl "$@"; }}
ask() {{ kubectl create -f - >/dev/null <<'END'
{json.dumps(manifest)}
END
}}
# One that a run that was killed has left holds another key.
ask 2>/dev/null || {{ kubectl delete csr nornir-k3s-{NAME} --ignore-not-found >/dev/null; ask; }}
kubectl certificate approve nornir-k3s-{NAME} >/dev/null
n=0
until pem=$(kubectl get csr nornir-k3s-{NAME} -o 'jsonpath={{.status.certificate}}') && [ -n "$pem" ]; do
  n=$((n+1)); [ "$n" -lt 150 ]; sleep 0.2
done
kubectl delete csr nornir-k3s-{NAME} >/dev/null
printf 'certificate\\t%s\\n' "$pem"
"""


def parse(text: str) -> str:
    """Return the PEM certificate in the signing script's answer.

    Raises:
        ValueError: There is none.
    """
    for line in text.splitlines():
        kind, _, value = line.partition("\t")
        if kind == "certificate" and value:
            return base64.b64decode(value).decode()
    raise ValueError("the cluster signed no certificate")
