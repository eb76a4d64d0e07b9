"""What runs on servers beside the API: the lease each server holds, the leader's work, and compaction."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from k3s_standin import certs, credentials
from k3s_standin.kinds import KINDS
from k3s_standin.log import log
from k3s_standin.serving import Serving
from k3s_standin.store import Store, StoreError
from k3s_standin.supervisor import LEASE

LEADER = "/registry/leases/kube-system/"
LEADER_SECONDS = 15
RENEW_DEADLINE = 10
_CSRS = KINDS["certificatesigningrequests"].prefix
_USAGES = {"client auth": certs.CLIENT, "server auth": certs.SERVER}


class Control:
    """One server's part."""

    def __init__(self, store: Store, server: Path, name: str, address: str, port: int, serving: Serving) -> None:
        self.store, self.server, self.name, self.serving = store, server, name, serving
        self.lease_key, self.port = LEASE + address, port
        self.leads = False
        self.trying: float | None = None  # since when, without success

    def announce(self) -> None:
        """Renew the lease by which all servers and agents know this server."""
        self.store.put(self.lease_key, json.dumps({"renewed": time.time(), "port": self.port}).encode())

    def run(self) -> None:
        """Work until the process ends."""
        threading.Thread(target=self._watch, daemon=True).start()
        tick = 0
        while True:
            time.sleep(1)
            tick += 1
            self.trying = self.trying or time.monotonic()
            try:
                self._work(tick)
                self.trying = None
            except StoreError as error:
                log("error", f"error retrieving resource lock kube-system/kube-controller-manager: {error}")

    def _watch(self) -> None:
        """End when the lease could not be renewed in time, also while the datastore leaves a question unanswered."""
        while True:
            since = self.trying
            if self.leads and since and time.monotonic() - since > RENEW_DEADLINE:
                _lost()
            time.sleep(0.5)

    def _work(self, tick: int) -> None:
        if tick % 5 == 0:
            self.announce()
            with contextlib.suppress(StoreError):
                self.serving.share(self.store)
        if tick % 3 == 0 or not self.leads:
            held = self._lead()
            if self.leads and not held:
                _lost()
            self.leads = held
        if self.leads:
            self._sign_requests()
            if tick % 300 == 0:
                self.store.compact()

    def _lead(self) -> bool:
        """Hold the leader's lease, or take it when its holder has let it run out."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "kube-controller-manager", "namespace": "kube-system"},
            "spec": {"holderIdentity": self.name, "renewTime": _micro(), "leaseDurationSeconds": LEADER_SECONDS},
        }
        held = False
        for name in ("kube-controller-manager", "kube-scheduler"):
            lease["metadata"] = {"name": name, "namespace": "kube-system"}
            held = self._take(LEADER + name, lease)
        return held

    def _take(self, key: str, lease: dict[str, Any]) -> bool:
        entry, value = self.store.get(key), json.dumps(lease).encode()
        if entry is None:
            return self.store.create(key, value)
        spec = entry.json()["spec"]
        age = time.time() - datetime.fromisoformat(spec["renewTime"]).timestamp()
        if spec["holderIdentity"] != self.name and age < LEADER_SECONDS:
            return False
        return self.store.swap(key, value, entry.revision)

    def _sign_requests(self) -> None:
        """Sign what was approved, as the controller manager does: a moment after the approval."""
        for key, entry in self.store.list(_CSRS):
            item = entry.json()
            states = {one["type"] for one in item.get("status", {}).get("conditions", [])}
            if "Approved" in states and "Denied" not in states and not item["status"].get("certificate"):
                pem = sign_request(self.server, item)
                if pem:
                    item["metadata"].pop("resourceVersion", None)
                    item["status"]["certificate"] = base64.b64encode(pem.encode()).decode()
                    self.store.swap(key, json.dumps(item).encode(), entry.revision)


def sign_request(server: Path, item: dict[str, Any]) -> str:
    """Return the certificate for an approved request; nothing for a signer that is not Kubernetes' own."""
    spec = item["spec"]
    if spec["signerName"] not in ("kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet"):
        return ""
    request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    groups = [str(one.value) for one in request.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)]
    usages = [_USAGES[usage] for usage in spec.get("usages", []) if usage in _USAGES]
    days = max(1, int(spec.get("expirationSeconds") or 365 * 86400) // 86400)
    names = request.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return certs.sign(
        credentials.pair(server, "client-ca"), name, groups, request.public_key(), usages=usages, days=days
    )


def _lost() -> None:
    """End as a server does that held the lead: only those die of a datastore that is away."""
    log("fatal", "leaderelection lost for k3s")
    sys.stderr.flush()
    os._exit(1)


def _micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
