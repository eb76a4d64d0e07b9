"""What matters only before an upgrade: APIs in use that go, templates for containerd, pods of kube-system, Traefik."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.k3s_facts import RequestedApi, SystemPod
from nornir_k3s.records import Record, RecordError, decoded

_LABEL = re.compile(r'[{,](\w+)="([^"]*)"')


class RequestedApis(Fact[tuple[RequestedApi, ...]]):
    """Deprecated APIs that this server was asked for (kubernetes: apiserver `pkg/endpoints/metrics`)."""

    name, source, roles, when = "requested_apis", "upgrade", ("servers",), "upgrade"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Use K3s' own kubectl."""
        return (k3s.BINARY,)

    def parse(self, records: Sequence[Record]) -> tuple[RequestedApi, ...]:
        """Return those whose release of removal is known."""
        found = []
        for record in records:
            labels = dict(_LABEL.findall(record.take(1)[0]))
            if not {"group", "version", "resource"} <= labels.keys():
                raise RecordError("not a line of apiserver_requested_deprecated_apis")
            if removed := labels.get("removed_release"):
                found.append(RequestedApi(labels["group"], labels["version"], labels["resource"], removed))
        return tuple(dict.fromkeys(found))


class ContainerdTemplates(Fact[Mapping[str, str]]):
    """The user's templates of containerd's configuration, by path (docs.k3s.io `advanced.md`)."""

    name, source, roles, when = "containerd_templates", "upgrade", NODES, "upgrade"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name their folder."""
        return (f"{k3s.DATA}/agent/etc/containerd",)

    def parse(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Return their texts."""
        pairs = (record.take(2) for record in records)
        return {path: decoded(text) for path, text in pairs}


class SystemPods(Fact[tuple[SystemPod, ...] | None]):
    """The pods of kube-system that run for ever; None if this server does not list them."""

    name, source, roles, when = "system_pods", "upgrade", ("servers",), "upgrade"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Use K3s' own kubectl."""
        return (k3s.BINARY,)

    def parse(self, records: Sequence[Record]) -> tuple[SystemPod, ...] | None:
        """Return those that do not belong to a Job, and are not being deleted."""
        try:
            items = json.loads(decoded(records[0].take(1)[0]))["items"]
            return tuple(pod for pod in map(_pod, items) if pod)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise RecordError("the pods of kube-system are not a list of pods") from None


def _pod(item: Mapping[str, Any]) -> SystemPod | None:
    metadata, status = item["metadata"], item.get("status") or {}
    owner = next((one for one in metadata.get("ownerReferences") or [] if one.get("controller")), None)
    kind, name = (owner["kind"], owner["name"]) if owner else ("Pod", metadata["name"])
    if kind == "Job" or "deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed"):
        return None
    if kind == "ReplicaSet":  # each version of a Deployment has one, named after it and a hash
        kind, name = "Deployment", name.rpartition("-")[0] or name
    conditions = status.get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return SystemPod(f"{kind} {name}", (item.get("spec") or {}).get("nodeName", ""), ready)


class TraefikValues(Fact[str]):
    """What the user's HelmChartConfig of Traefik has: a name that its chart has changed, `others`, or nothing."""

    name, source, roles, when = "traefik_values", "upgrade", ("servers",), "upgrade"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Use K3s' own kubectl."""
        return (k3s.BINARY,)

    def parse(self, records: Sequence[Record]) -> str:
        """Return it."""
        return records[0].take(1)[0]


class InstalledVersion(Fact[str]):
    """The version of the K3s on a host where it does not run; empty if it does not say."""

    name, source, roles, when = "installed_version", "upgrade", NODES, "setup"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Ask K3s itself, which unpacks nothing for that."""
        return (k3s.BINARY,)

    def parse(self, records: Sequence[Record]) -> str:
        """Return it."""
        return records[0].take(1)[0]
