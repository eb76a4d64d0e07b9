"""The Lease of the cluster, as the API has it (kubernetes.io, concepts/architecture/leases)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nornir_k3s.model.work import Owner, owner

NAMESPACE, NAME = "kube-system", "nornir-k3s"
HOME = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LASTS = 30  # seconds
OWNER, HOSTS = "nornir-k3s/owner", "nornir-k3s/hosts"  # annotations


@dataclass(frozen=True)
class Lease:
    """The Lease as the API has it.

    Arguments:
        data: The object; empty where there is none.
        now: The time of the server that was asked, in seconds since the epoch.
    """

    data: Mapping[str, Any]
    now: float

    @property
    def holder(self) -> str:
        """Its `holderIdentity`; nothing where nobody has it."""
        return str(self._spec.get("holderIdentity") or "")

    @property
    def renewed(self) -> str:
        """When it was last renewed, as its owner has written it."""
        return str(self._spec.get("renewTime") or "")

    @property
    def hosts(self) -> frozenset[str]:
        """The servers whose locks its owner holds."""
        return frozenset(filter(None, str(self._annotations.get(HOSTS) or "").split(",")))

    @property
    def age(self) -> float:
        """Seconds since it was renewed, by the clock of the server that was asked."""
        try:
            return self.now - datetime.fromisoformat(self.renewed).timestamp()
        except ValueError:
            return float("inf")

    @property
    def lasts(self) -> float:
        """Seconds after which it has run out, unless it is renewed."""
        try:
            return float(self._spec.get("leaseDurationSeconds") or LASTS)
        except (ValueError, TypeError):
            return LASTS

    @property
    def owner(self) -> Owner | None:
        """Who has it; None where nobody has."""
        if not self.holder:
            return None
        user, _, host = self.holder.partition("@")
        since = 0.0 if self.age == float("inf") else max(0.0, self.now - self.age)
        named = Owner(self.holder, user, host or "an unknown host", "work", since)
        return owner(str(self._annotations.get(OWNER) or "")) or named

    @property
    def _spec(self) -> Mapping[str, Any]:
        found = self.data.get("spec")
        return found if isinstance(found, dict) else {}

    @property
    def _annotations(self) -> Mapping[str, Any]:
        found = (self.data.get("metadata") or {}).get("annotations")
        return found if isinstance(found, dict) else {}
