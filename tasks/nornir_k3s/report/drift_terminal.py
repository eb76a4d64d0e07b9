"""A drift report as text: for a terminal, a mail, a chat."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from nornir_k3s.model.drift_report import DriftReport
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.together import hosts_by, together

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show(report: DriftReport, console: Console, *, only_new: bool = False) -> None:
    """Print the differences, the most severe first, and what has changed since the run before.

    Arguments:
        only_new: Leave out what the run before found already, as it is now; print nothing at all if nothing is new.
    """
    shown = [one for one in report.differences if not only_new or (one.age == "new" and not one.accepted)]
    gone = [one for one in report.gone if one.counts]
    unreachable = report.lost if only_new else report.unreachable
    if only_new and not shown and not gone and not unreachable:
        return
    errors = ((name, report.hosts[name].error.removeprefix(f"{name}: ")) for name in unreachable)
    for error, names in hosts_by(errors).items():
        text = f"unreachable: {', '.join(names)}" + (f": {error}" if error else "")
        console.print(Text(text, "bold red"), soft_wrap=True)
    for one in together(shown):
        if not one.accepted:
            _difference(one, console)
    for one in shown:
        if one.accepted:
            until = f" until {one.until}" if one.until else ""
            console.print(Text(f"accepted{until}: {one.id}: {one.accepted}", "dim"), soft_wrap=True)
    for one in gone:
        console.print(Text(f"gone: {one.id}: {one.found}", "green"), soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(_summary(report), soft_wrap=True, markup=False)


def _difference(one: Finding, console: Console) -> None:
    head = Text(f"{one.severity}: ", _STYLES[one.severity])
    head.append(f"{one.host}: {one.found}", "bold")
    if one.age == "new":
        head.append(f" (new; before: {one.before})" if one.before else " (new)", "magenta")
    console.print(head, soft_wrap=True)
    since = f", since {one.since:%Y-%m-%d %H:%M:%S} UTC ({ago(one.since)})" if one.since else ""
    console.print(f"    {one.kind} {one.subject}; expected: {one.expected}{since}", soft_wrap=True, markup=False)
    console.print(f"    next: {one.remedy}", soft_wrap=True, markup=False)
    for line in one.diff.splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1])
        console.print(f"    {line}", style=style, soft_wrap=True, markup=False)


def _summary(report: DriftReport) -> str:
    counts, hosts = report.counts, len(report.hosts)
    parts = [
        f"{counts[key]} {key}{'s' if counts[key] != 1 else ''}" for key in ("error", "warning", "note") if counts[key]
    ]
    if counts["accepted"]:
        parts.append(f"{counts['accepted']} accepted")
    if report.unreachable:
        parts.append(f"{len(report.unreachable)} unreachable")
    trips = max((host.round_trips for host in report.hosts.values()), default=0)
    what = ", ".join(parts) or "no drift"
    before = f"; the run before was {ago(report.previous)}" if report.previous else ""
    return f"cluster {report.cluster}: {what}; {hosts} hosts, {trips} round trip(s), {report.seconds:.1f} s{before}"


def ago(moment: datetime) -> str:
    """Return how long ago a time was, in words."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return f"{seconds} s ago"
