"""The path of an upgrade as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from nornir_k3s.model.upgrade_report import UpgradeReport
from nornir_k3s.report.terminal import show, show_notes


def show_path(report: UpgradeReport, console: Console) -> None:
    """Print which versions each node goes through, servers first, then agents."""
    if not report.steps:
        console.print(f"nothing to upgrade: {_summary(report.nodes)}", soft_wrap=True, markup=False)
    else:
        for name, way in report.ways.items():
            console.print(f"{name}: {' → '.join([report.nodes[name], *way])}", soft_wrap=True, markup=False)
        console.print(f"{len(report.steps)} upgrade{'s' * (len(report.steps) > 1)}, each verified before the next one")
    show_notes(report.notes, console)


def show_end(report: UpgradeReport, console: Console) -> None:
    """Print the report of the last step that was begun, and where the cluster stands."""
    begun = [step.report for step in report.steps if step.report]
    if not begun:
        show_path(report, console)
        return
    show(begun[-1], console)
    for step in report.steps:
        console.print(f"{step.version}: {step.state}", markup=False)
    console.print(f"now: {_summary(report.nodes)}", soft_wrap=True, markup=False)
    show_notes(report.notes, console)


def _summary(nodes: Mapping[str, str]) -> str:
    versions = dict.fromkeys(sorted(nodes.values()))
    return "; ".join(f"{version}: {', '.join(n for n, one in nodes.items() if one == version)}" for version in versions)
