"""A drill as text: what it would do, and what each fault cost."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nornir_k3s.model.drill_limits import Limit
from nornir_k3s.model.drill_report import DrillPlan, DrillReport, FaultResult


def show_plan(plan: DrillPlan, console: Console) -> None:
    """Print what a drill would do."""
    console.print(f"A drill of cluster {plan.cluster} would break, one after the other:", soft_wrap=True, markup=False)
    width = max((len(one.id) for one in plan.faults), default=0)
    for one in plan.faults:
        lasts = f" for {one.seconds:g} s" if one.seconds else ""
        limit = f"; limit: {limits(one.limit)}" if limits(one.limit) else ""
        console.print(f"  {one.id:{width}}  {one.what}{lasts}{limit}", soft_wrap=True, markup=False)
    _lines(plan.notes, console)
    console.print(
        f"Meanwhile it reads and writes through {plan.url}; the namespace {plan.namespace} is removed at the end."
        " Each fault ends, and the cluster is healthy, before the next; each ends by itself if the controller is lost.",
        soft_wrap=True,
        markup=False,
    )


def show(report: DrillReport, console: Console) -> None:
    """Print what each fault cost, and which limits were broken."""
    if report.faults:
        title = f"drill of cluster {report.cluster}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("fault", no_wrap=True)
        for name in ("failed", "gap", "limit", "up"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("VIP", overflow="fold")
        table.add_column("", no_wrap=True)
        for one in report.faults:
            table.add_row(*_cells(one))
        console.print(table)
    for one in report.faults:
        for text in one.broken:
            where = f"{one.kind} on {one.host}" if one.host else one.kind
            console.print(Text(f"broken: {where}: {text}", "bold red"), soft_wrap=True)
    _lines(report.notes, console)
    for text in report.problems:
        console.print(Text(f"ended early: {text}", "bold red"), soft_wrap=True)
    for text in report.left:
        console.print(Text(f"not put back: {text}", "bold red"), soft_wrap=True)
    console.print(summary(report), soft_wrap=True, markup=False)


def summary(report: DrillReport) -> str:
    """Return the last line."""
    writes = sum(one.acknowledged for one in report.faults)
    lost = sum(max(one.lost.values(), default=0) for one in report.faults)
    kept = sum(1 for one in report.faults if not one.broken)
    return (
        f"{report.outcome}: {kept} of {len(report.faults)} faults within their limits; {lost} of {writes} acknowledged"
        f" writes lost; {report.seconds:.0f} s"
    )


def _cells(one: FaultResult) -> list[str | Text]:
    return [
        f"{one.kind} {one.host}".strip(),
        str(one.failed),
        f"{one.gap:.2f} s",
        limits(one.limit, short=True),
        "" if one.rotation is None else f"{one.rotation:.1f} s",
        " → ".join(dict.fromkeys(one.holders)) if len(set(one.holders)) < 3 else " → ".join(one.holders),
        Text("broken", "bold red") if one.broken else Text("ok", "green"),
    ]


def limits(limit: Limit, *, short: bool = False) -> str:
    """Return limits in words."""
    parts = []
    if limit.failed is not None:
        parts.append(f"{limit.failed} failed")
    if limit.gap is not None:
        parts.append(f"{limit.gap:g} s" if short else f"{limit.gap:g} s without an answer")
    if limit.back is not None:
        parts.append(f"back {limit.back:g} s" if short else f"an answer {limit.back:g} s after its end")
    return ", ".join(parts)


def _lines(notes: list[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
