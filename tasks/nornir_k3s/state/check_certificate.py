"""The load balancers' health check certificate: made by the cluster's own CA, good for `/readyz` and nothing else.

Source: Kubernetes `certificates.k8s.io`, signer `kubernetes.io/kube-apiserver-client`; a user without a group may read
`/readyz` (ClusterRole `system:public-info-viewer`) and gets 403 from everything else.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

from nornir_k3s.model import pem
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
    saved = (store.read_json(f"{NAME}.json") if ca_prefix else None) or {}
    if saved.get("signed", 0) < since:
        return Secret("")
    if saved.get("ca") == ca_prefix and certificates.valid_for(saved["certificate"], RENEW_BEFORE, datetime.now(UTC)):
        return Secret(saved["certificate"] + saved["key"])
    return Secret("")


def take(store: Store, ca_prefix: str, text: str, authority: str) -> bool:
    """Take back the certificate and key that load balancers have, if they are newer than what is saved.

    Arguments:
        ca_prefix: `K10` and the hash of the cluster's CA.
        text: As HAProxy reads them.
        authority: The CA of K3s' clients, PEM: its first certificate signs.

    Returns:
        Whether they were; not if the CA has not signed it, or it expires soon.
    """
    own, issuers = pem.blocks(text), pem.blocks(authority)
    if not (own and issuers and ca_prefix):
        return False
    end = text.index(own[0]) + len(own[0])
    key = text[end:].lstrip("\n")
    certificate = text.removesuffix(key)
    try:
        signed = certificates.signed_at(certificate)
        pair = {"certificate": certificate, "key": key}
        lasts = certificates.valid_for(certificate, RENEW_BEFORE, datetime.now(UTC))
        if not lasts or not certificates.has_signed({"certificate": issuers[0]}, pair):
            return False
        before = load(store, ca_prefix).reveal()
        if before and certificates.signed_at(pem.blocks(before)[0]) >= signed:
            return False
    except (ValueError, TypeError):
        return False
    name = f"{NAME}.json"
    store.take(name, _text(ca_prefix, certificate, Secret(key), signed.timestamp()), store.read(name))
    return True


def request() -> tuple[str, Secret]:
    """Return a certificate request and its new private key, both PEM."""
    pair = certificates.request(NAME)
    return pair["certificate"], Secret(pair["key"])


def save(store: Store, ca_prefix: str, certificate: str, key: Secret) -> None:
    """Save a signed certificate with its key and the CA it belongs to."""
    store.write(f"{NAME}.json", _text(ca_prefix, certificate, key, time.time()))


def _text(ca_prefix: str, certificate: str, key: Secret, signed: float) -> str:
    return json.dumps({"ca": ca_prefix, "certificate": certificate, "key": key.reveal(), "signed": signed}) + "\n"
