"""What matters only before an upgrade: APIs that are in use and deprecated, and the user's templates for containerd."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.k3s_facts import RequestedApi
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
