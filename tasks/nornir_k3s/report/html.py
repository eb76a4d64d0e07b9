"""A drift report as one HTML page without external resources: picture of the cluster, findings, history."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from nornir_k3s.model.drift_report import DriftReport, HostState
from nornir_k3s.report.history import SavedRun

# From top to bottom as connections go: agents use the registration address, as users do.
_ROWS = (("agents", "Agents"), ("", ""), ("lb", "Load balancers"), ("servers", "Servers"), ("datastore", "Datastore"))
_SHOWN = 24  # tiles of a row; of more, those without a finding are folded


def page(report: DriftReport, history: Sequence[SavedRun] = ()) -> str:
    """Return the page.

    Arguments:
        report: What was found.
        history: Earlier runs, the latest first.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(files("nornir_k3s.report").joinpath("page.html.j2").read_text())
    return template.render(
        report=report,
        rows=[_row(report, role, title) for role, title in _ROWS],
        cluster_wide=[one for one in report.differences if one.host == "cluster" and not one.accepted],
        history=history,
        longest=max((len(run.differences) for run in history), default=1) or 1,
    )


def _row(report: DriftReport, role: str, title: str) -> dict[str, Any]:
    if not role:
        return {"way": report.url, "title": "", "tiles": [], "more": []}
    tiles = _tiles(report, role)
    fine = [tile for tile in tiles if tile["state"] == "ok"] if len(tiles) > _SHOWN else []
    return {"way": "", "title": title, "tiles": [tile for tile in tiles if tile not in fine], "more": fine}


def _tiles(report: DriftReport, role: str) -> list[dict[str, Any]]:
    tiles = [_tile(report, name, host) for name, host in report.hosts.items() if role in (host.roles or [host.role])]
    if role == "datastore":
        tiles += [
            {"name": address, "below": "external", "state": "ok", "badge": "", "count": 0}
            for address in report.datastore
        ]
    return tiles


def _tile(report: DriftReport, name: str, host: HostState) -> dict[str, Any]:
    own = [one for one in report.differences if one.host == name and not one.accepted]
    worst = next((key for key in ("error", "warning", "note") if any(one.severity == key for one in own)), "ok")
    badge = "VIP" if name in report.holders else "not Ready" if host.ready is False else ""
    state = worst if host.reached else "unreachable"
    return {"name": name, "below": host.address, "state": state, "badge": badge, "count": len(own)}
