"""The load balancers' health check certificate: made by the cluster's own CA, good for `/readyz` and nothing else.

Source: Kubernetes `certificates.k8s.io`, signer `kubernetes.io/kube-apiserver-client`; a user without a group may read
`/readyz` (ClusterRole `system:public-info-viewer`) and gets 403 from everything else.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

from nornir_k3s.model.secret import Secret
from nornir_k3s.state import certificates
from nornir_k3s.state.store import Store

NAME = "lb-check"
RENEW_BEFORE = timedelta(days=90)


def load(store: Store, ca_prefix: str, *, since: float = 0) -> Secret:
    """Return certificate and key as HAProxy reads them; empty where there is none of this cluster, or it expires soon.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA; another cluster's certificate does not count.
        since: Nor does one that was signed earlier, in seconds since the epoch.
    """
    text = store.read(f"{NAME}.json")
    saved = json.loads(text) if text and ca_prefix else {}
    if saved.get("signed", 0) < since:
        return Secret("")
    if saved.get("ca") == ca_prefix and certificates.valid_for(saved["certificate"], RENEW_BEFORE, datetime.now(UTC)):
        return Secret(saved["certificate"] + saved["key"])
    return Secret("")


def request() -> tuple[str, Secret]:
    """Return a certificate request and its new private key, both PEM."""
    pair = certificates.request(NAME)
    return pair["certificate"], Secret(pair["key"])


def save(store: Store, ca_prefix: str, certificate: str, key: Secret) -> None:
    """Save a signed certificate with its key and the CA it belongs to."""
    text = json.dumps({"ca": ca_prefix, "certificate": certificate, "key": key.reveal(), "signed": time.time()})
    store.write(f"{NAME}.json", text + "\n")
