"""Reports, plans, findings and status as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nornir_k3s import k3s
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.report import HostReport, Report
from nornir_k3s.model.together import FEW, few, hosts_by, together
from nornir_k3s.ssh.hostkeys import HostKeyReport, KeyState

if TYPE_CHECKING:
    from nornir_k3s.model.backup import Backup
    from nornir_k3s.model.move import Move
    from nornir_k3s.model.plan import Change, Plan
    from nornir_k3s.model.removal import Removal
    from nornir_k3s.model.reset import Reset
    from nornir_k3s.model.restoration import Restoration
    from nornir_k3s.model.rotation import Rotation
    from nornir_k3s.model.status import Status

_STYLES = {
    "error": "bold red",
    "warning": "yellow",
    "note": "cyan",
    "accepted": "dim",
    "failed": "bold red",
    "left out": "bold red",
    "changed": "yellow",
    "ok": "green",
}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("round trips", "seconds") else "left", overflow="fold")
    return table


def show(report: Report, console: Console) -> None:
    """Print the report of a run, also of a failed one: hosts, phases, copies of files, and the next command."""
    table = _table(f"cluster {report.cluster}", "host", "group", "result", "changed", "restarted", "round trips")
    for name, host in report.hosts.items():
        state = (
            "left out" if name in report.skipped else "failed" if host.failed else "changed" if host.changed else "ok"
        )
        restarted = ", ".join(dict.fromkeys(unit.removesuffix(".service") for unit in host.restarts)) or "-"
        state_text = Text(state, _STYLES[state])
        groups = ", ".join(host.roles) or host.role
        table.add_row(name, groups, state_text, _changes(host), restarted, str(host.round_trips))
    console.print(table)
    spent = ", ".join(f"{p.name} {p.seconds:.1f} s" for p in report.phases if p.state != "not begun")
    console.print(f"phases: {spent}; {report.seconds:.1f} s in total", soft_wrap=True)
    if missed := [phase.name for phase in report.phases if phase.state == "not begun"]:
        console.print(f"not begun: {', '.join(missed)}", soft_wrap=True)
    for name, host in report.hosts.items():
        for copy in host.kept:
            console.print(f"{name}: copy of a replaced file: {copy}", soft_wrap=True, markup=False)
    _findings(report.findings, console)
    show_notes(report.notes, console)
    if report.kubeconfig:
        state = "changed" if report.changed else "nothing to change"
        console.print(f"\n{state}; the API answers at {report.url}", soft_wrap=True)
        console.print(f"next: kubectl --kubeconfig {report.kubeconfig} get nodes", soft_wrap=True)


def _changes(host: HostReport) -> str:
    return f"{len(host.changes)} change{'s' if len(host.changes) != 1 else ''}" if host.changes else "-"


def _findings(findings: Sequence[Finding], console: Console) -> None:
    for finding in together(findings):
        if finding.level in ("warning", "note"):
            console.print(f"{finding.level}: {finding}", soft_wrap=True, markup=False)


def show_notes(notes: Sequence[str], console: Console) -> None:
    """Print what else an operator should know."""
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print every finding: as a table on a terminal, else one line each."""
    if not findings:
        console.print("preflight: no problems found")
        return
    if not console.is_terminal:
        for finding in together(findings):
            console.print(f"{finding.level}: {finding}", soft_wrap=True, markup=False)
        return
    table = _table("preflight", "host", "found", "expected", "remedy", "id")
    table.show_lines = True
    for finding in together(findings):
        name = Text(f"{finding.host}\n{finding.level}", _STYLES[finding.level])
        table.add_row(
            name, *(Text(text) for text in (finding.found, finding.expected, finding.remedy, finding.subject))
        )
    console.print(table)


def show_plan(plan: Plan, console: Console) -> None:
    """Print a plan by phase and group, with diffs; what is the same on several hosts is printed once."""
    for phase in plan.phases:
        for role in dict.fromkeys(host.role for host in plan.hosts.values()):
            changes = [
                (name, change)
                for name, host in plan.hosts.items()
                for change in host.changes
                if host.role == role and change.phase == phase
            ]
            _group_changes(phase, role, changes, console)
    for line in _upgrade(plan):
        console.print(line, soft_wrap=True, markup=False)
    _findings(plan.findings, console)
    show_notes(plan.notes, console)
    quiet = sorted(name for name, host in plan.hosts.items() if not host.changes)
    if quiet:
        console.print(f"nothing to change on {', '.join(quiet)}", soft_wrap=True)
    if len(plan.batches) > 1:
        console.print(_batches(plan.batches), soft_wrap=True)
    if plan.restarts:
        console.print(f"would be started, restarted or reloaded: {', '.join(plan.restarts)}", soft_wrap=True)


def _upgrade(plan: Plan) -> Iterator[str]:
    """Yield a line for each node that is upgraded, and one for each batch of agents."""
    if not plan.upgrade:
        return
    ways = dict.fromkeys(f"{one.running} → {one.version}" for one in plan.upgrade)
    yield f"upgrade of K3s, {len(plan.upgrade)} nodes: {'; '.join(ways)}"
    nodes = {one.host: one for one in plan.upgrade}
    batches = [[name for name in batch if name in nodes] for batch in plan.batches]
    alone = [[name] for name in nodes if not any(name in batch for batch in batches)]
    groups = [*alone, *filter(None, batches)]
    for number, names in enumerate(groups[: 2 * FEW], 1):
        way = "; ".join(dict.fromkeys(f"{nodes[name].running} → {nodes[name].version}" for name in names))
        yield f"  {number}. {few(names)}: {way}{', drained first' if nodes[names[0]].drained else ''}"
    if len(groups) > 2 * FEW:
        yield f"  … and {len(groups) - 2 * FEW} more batches"


def show_removal(found: Removal, console: Console, *, verb: str = "remove", where: str = "from") -> None:
    """Print what a removal does, by host."""
    console.print(f"{verb} {', '.join(found.hosts)} {where} cluster {found.cluster}", soft_wrap=True, markup=False)
    _by_host(found.changes, console)
    show_notes(found.notes, console)


def show_rotation(found: Rotation, console: Console) -> None:
    """Print what a rotation does, in order."""
    console.print(f"rotate {found.what} of cluster {found.cluster}", soft_wrap=True, markup=False)
    for step in found.steps:
        console.print(f"  {few(step.hosts)}: {step.what}", soft_wrap=True, markup=False)
    show_notes(found.notes, console)


def show_backup(found: Backup, console: Console) -> None:
    """Print what a backup does, or where it is."""
    if found.planned:
        console.print(f"back cluster {found.cluster} up", soft_wrap=True, markup=False)
        for step in found.steps:
            console.print(f"  {step}", soft_wrap=True, markup=False)
    else:
        verified = ", verified" if found.verified else ""
        console.print(f"backup: {found.place}, {found.bytes / 1024:.0f} KiB{verified}", soft_wrap=True, markup=False)
        console.print(f"SHA-256: {found.sha256}", soft_wrap=True, markup=False)
    for path in found.removed:
        console.print(f"removed: {path}", soft_wrap=True, markup=False)
    show_notes(found.notes, console)


def show_restoration(found: Restoration, console: Console) -> None:
    """Print what a restore does, by host."""
    text = f"restore cluster {found.cluster} from {found.file}, of {found.manifest.created:%Y-%m-%d %H:%M:%S} UTC"
    console.print(text, soft_wrap=True, markup=False)
    for name, summaries in found.changes.items():
        for summary in summaries:
            console.print(f"  {name}: {summary}", soft_wrap=True, markup=False)
    show_notes(found.notes, console)


def show_reset(found: Reset, console: Console) -> None:
    """Print what a reset does, by host."""
    console.print(f"reset cluster {found.cluster}", soft_wrap=True, markup=False)
    _by_host(found.changes, console)
    if found.datastore:
        show_datastore(found, console)
    if not found.changes and not found.datastore:
        console.print("  nothing of this tool is left on its hosts", soft_wrap=True)
    show_notes(found.notes, console)


def show_datastore(found: Reset, console: Console) -> None:
    """Print what is done to the datastore, which is asked for separately."""
    console.print(f"datastore of cluster {found.cluster}, only if that is asked for:", soft_wrap=True, markup=False)
    _by_host(found.datastore, console)


def show_move(found: Move, console: Console) -> None:
    """Print what a move does, by host."""
    console.print(f"move cluster {found.cluster}", soft_wrap=True, markup=False)
    console.print(f"  from {found.origin}\n  to {found.target}", soft_wrap=True, markup=False)
    _by_host(found.changes, console)
    show_notes(found.notes, console)


def _by_host(changes: Mapping[str, Sequence[str]], console: Console) -> None:
    for name, summaries in changes.items():
        for summary in summaries:
            console.print(f"  {name}: {summary}", soft_wrap=True, markup=False)


def _batches(batches: Sequence[Sequence[str]]) -> str:
    """Return the order in which agents restart; long lists are cut."""
    shown = "; ".join(map(few, batches[:FEW]))
    more = f"; … ({sum(map(len, batches))} agents, at most {max(map(len, batches))} together)"
    return f"agents restart in {len(batches)} batches: {shown}{more if len(batches) > FEW else ''}"


def _group_changes(phase: str, role: str, changes: Sequence[tuple[str, Change]], console: Console) -> None:
    if not changes:
        return
    names = list(dict.fromkeys(name for name, _ in changes))
    estimate = " (estimate: the cluster's CA is not known yet)" if any(c.estimate for _, c in changes) else ""
    console.print(f"{phase}: {', '.join(names)} ({role}){estimate}", style="bold", soft_wrap=True, markup=False)
    for (summary, diff), hosts in hosts_by((name, (c.summary, c.diff)) for name, c in changes).items():
        of = "" if hosts == names else f"{', '.join(hosts)}: "
        console.print(f"  {of}{summary}", soft_wrap=True, markup=False)
        for line in diff.splitlines():
            style = {"+": "green", "-": "red"}.get(line[:1])
            console.print(f"    {line}", style=style, soft_wrap=True, markup=False)


def show_status(status: Status, console: Console, *, verbose: bool = False) -> None:
    """Print the cluster at a glance.

    Arguments:
        verbose: Print every certificate, not only the first that expires.
    """
    table = _table(f"cluster {status.cluster}", "node", "state", "roles", "version")
    for node in status.nodes:
        state = ("Ready" if node.ready else "NotReady") + ("" if node.schedulable else ", cordoned")
        style = _STYLES["ok" if node.ready else "failed"]
        table.add_row(node.name, Text(state, style), ", ".join(node.roles) or "-", node.version)
    console.print(table)
    if status.newest and k3s.parse_version(status.newest) > k3s.parse_version(status.version):
        console.print(f"version {status.version}; the newest patch is {status.newest}", soft_wrap=True, markup=False)
    servers = ", ".join(f"{name} {'ready' if ready else 'NOT ready'}" for name, ready in status.servers.items())
    console.print(f"servers: {servers or 'none answered'}", soft_wrap=True)
    for name, balancer in status.balancers.items():
        states = (
            ", ".join(f"{server} {state}" for server, state in balancer.servers.items()) or "HAProxy does not answer"
        )
        console.print(f"{name}{' (has the VIP)' if balancer.holds_vip else ''}: {states}", soft_wrap=True)
    for name, state in status.datastore.items():
        console.print(f"datastore {name}: {state}", soft_wrap=True)
    if status.certificates:
        first = status.certificates[0]
        console.print(
            f"certificates: the first expires in {first.days} days ({first.path} on {first.host})", soft_wrap=True
        )
    for one in status.certificates if verbose else ():
        console.print(f"  {one.days} days: {one.path} on {one.host}", soft_wrap=True, markup=False)
    if status.backups.made:
        console.print(str(status.backups), soft_wrap=True, markup=False)
    show_notes(status.notes, console)
    for problem in status.problems:
        console.print(f"problem: {problem}", style=_STYLES["failed"], soft_wrap=True, markup=False)
    if not status.problems:
        console.print(f"no problems; the API answers at {status.url}", soft_wrap=True)


def show_host_keys(report: HostKeyReport, console: Console) -> None:
    """Print a line for each key, and the errors of unreachable hosts."""
    styles = {KeyState.NEW: "yellow", KeyState.CHANGED: "bold red", KeyState.REVOKED: "bold red"}
    table = Table(expand=False)
    for column in ("host", "address", "key", "fingerprint", "state"):
        table.add_column(column, no_wrap=True)
    for one in report.keys:
        row = (one.host, one.address, one.key.kind, one.fingerprint)
        table.add_row(*map(Text, row), Text(one.state, styles.get(one.state, "")))
    for name in report.unreachable:
        table.add_row(*map(Text, (name, "-", "-", "-")), Text("unreachable", "red"))
    # Fingerprints are for comparison: they are never cut, even on a narrow terminal.
    wide = Console(file=console.file, force_terminal=console.is_terminal, width=max(console.width, 250))
    wide.print(table)
    for error in report.unreachable.values():
        console.print(str(error), soft_wrap=True, markup=False)
