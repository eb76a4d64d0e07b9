"""The report of a run for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nornir_k3s.remote.hostkeys import Found, State
from nornir_k3s.workflows.plan import Plan
from nornir_k3s.workflows.run import Report


def show(report: Report, console: Console) -> None:
    """Print what a run did: a table of hosts, seconds by phase, and the next command."""
    table = Table(title=f"cluster {report.cluster}", title_justify="left", expand=False)
    for column in ("host", "group", "changed", "restarted", "round trips"):
        table.add_column(column, justify="right" if column == "round trips" else "left")
    for name, host in report.hosts.items():
        changed = f"{len(host.changes)} changes" if host.changes else "-"
        table.add_row(name, host.role, changed, ", ".join(host.restarts) or "-", str(host.round_trips))
    console.print(table)
    spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in report.phases.items())
    console.print(f"phases: {spent}", soft_wrap=True)
    for name, host in report.hosts.items():
        for copy in host.kept:
            console.print(f"{name}: what was there before is kept as {copy}", soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    if report.kubeconfig:
        state = "changed" if report.changed else "nothing to change: it is as the inventory says"
        console.print(f"\n{state}; the API answers at {report.url}", soft_wrap=True)
        console.print(f"next: kubectl --kubeconfig {report.kubeconfig} get nodes", soft_wrap=True)


def show_plan(plan: Plan, console: Console) -> None:
    """Print what a deploy would do, host by host, with diffs."""
    for name, host in plan.hosts.items():
        if not host.steps:
            continue
        guess = " (an estimate: it waits for the cluster's CA)" if host.estimate else ""
        console.print(f"{name} ({host.role}){guess}", style="bold", soft_wrap=True)
        for step in host.steps:
            console.print(f"  {step.summary}", soft_wrap=True, markup=False)
            for line in step.diff.splitlines():
                style = {"+": "green", "-": "red"}.get(line[:1])
                console.print(f"    {line}", style=style, soft_wrap=True, markup=False)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    quiet = sorted(name for name, host in plan.hosts.items() if not host.steps)
    if quiet:
        console.print(f"nothing to change on {', '.join(quiet)}", soft_wrap=True)


def show_host_keys(found: Found, console: Console) -> None:
    """Print a line for each key, and why there is none of some hosts."""
    styles = {State.NEW: "yellow", State.CHANGED: "bold red", State.REVOKED: "bold red"}
    table = Table(expand=False)
    for column in ("host", "address", "key", "fingerprint", "state"):
        table.add_column(column, no_wrap=True)
    for one in found.findings:
        row = (one.host, one.place, one.key.kind, one.fingerprint)
        table.add_row(*map(Text, row), Text(one.state, styles.get(one.state, "")))
    for name in found.unreachable:
        table.add_row(*map(Text, (name, "-", "-", "-")), Text("unreachable", "red"))
    # A fingerprint is there to be compared: it is never cut, however narrow the terminal is.
    wide = Console(file=console.file, force_terminal=console.is_terminal, width=max(console.width, 250))
    wide.print(table)
    for error in found.unreachable.values():
        console.print(str(error), soft_wrap=True, markup=False)
