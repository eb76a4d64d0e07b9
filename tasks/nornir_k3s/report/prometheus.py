"""A drift report as a textfile for Prometheus' node_exporter.

Source: Prometheus' text-based exposition format, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from nornir_k3s.model.drift_report import DriftReport

_HELP = {
    "findings": "Differences between the cluster and its inventory, by severity.",
    "host_up": "Whether the host could be read.",
    "certificate_days": "Days until the first certificate of the host expires.",
    "last_run_timestamp_seconds": "When the last check began.",
    "duration_seconds": "How long the last check took.",
    "exit_code": "Exit code of the last check: 0 nothing, 3 drift, 4 a host could not be read.",
    "backup_age_seconds": "Age of the last backup.",
    "verified_backup_age_seconds": "Age of the last backup that was verified.",
    "vip_holders": "Load balancers that have the VIP; expected is exactly one.",
    "backend_up": "Whether a server is up in a load balancer.",
}


def metrics(report: DriftReport) -> str:
    """Return the metrics in Prometheus' text format."""
    days: dict[str, int] = {}
    for one in report.certificates:
        days[one.host] = min(one.days, days.get(one.host, one.days))
    samples: dict[str, list[tuple[dict[str, str], float]]] = {
        "findings": [({"severity": key}, value) for key, value in report.counts.items()],
        "host_up": [({"host": n, "role": h.role}, int(h.reached)) for n, h in report.hosts.items()],
        "certificate_days": [({"host": name}, value) for name, value in sorted(days.items())],
        "last_run_timestamp_seconds": [({}, round(report.started.timestamp(), 3))],
        "duration_seconds": [({}, report.seconds)],
        "exit_code": [({}, report.exit_code)],
        "backup_age_seconds": _age(report, report.backups.made),
        "verified_backup_age_seconds": _age(report, report.backups.verified),
        "vip_holders": [({}, len(report.holders))] if any("lb" in one.roles for one in report.hosts.values()) else [],
        "backend_up": [
            ({"host": name, "server": server}, int(state.startswith("UP")))
            for name, states in report.backends.items()
            for server, state in states.items()
        ],
    }
    return "".join(_family(name, report.cluster, rows) for name, rows in samples.items() if rows)


def _age(report: DriftReport, moment: datetime | None) -> list[tuple[dict[str, str], float]]:
    return [({}, round((report.started - moment).total_seconds(), 3))] if moment else []


def _family(name: str, cluster: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> str:
    full = f"nornir_k3s_drift_{name}"
    lines = [f"# HELP {full} {_HELP[name]}", f"# TYPE {full} gauge"]
    for labels, value in rows:
        text = ",".join(f'{key}="{_escaped(label)}"' for key, label in {"cluster": cluster, **labels}.items())
        lines.append(f"{full}{{{text}}} {value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
