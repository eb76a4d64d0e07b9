"""What does not match on one host: the steps that a deploy would carry out, and what it would not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from nornir_k3s import k3s
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, Severity
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, UnitState
from nornir_k3s.model.host_spec import Artifact, File, HostSpec
from nornir_k3s.model.paths import (
    INSTALLER,
    PREVIOUS,
)
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.planner import (
    PlannedHost,
    lost,
    renewed,
    unread,
)

RESTARTS, LATELY = 3, 3600  # so many restarts, the last within so many seconds
_ACTIVE = ("active", "reloading")


def at(seconds: float) -> datetime | None:
    """Return a moment as the host tells it, or None."""
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def differences(cluster: Cluster, host: PlannedHost) -> Iterator[Finding]:
    """Yield what does not match on one host."""
    member, spec, seen, steps = host.member, host.desired, host.facts, host.steps
    for step in steps:
        yield from _step(member.name, spec, seen, step, steps)
    yield from _units(member.name, spec, seen, steps)
    if member.role in NODES:
        yield from _command(member, seen)
        yield from _settings(cluster, member, spec, seen)
    yield from _room(member.name, seen)


def _step(host: str, spec: HostSpec, seen: HostFacts, step: Step, steps: Sequence[Step]) -> Iterator[Finding]:
    match step.kind:
        case "packages":
            for name in step.target.split():
                remedy = f"deploy.py installs {name}"
                yield Finding(
                    host=host, kind="package", subject=name, found=f"package {name} is not installed",
                    expected="installed", remedy=remedy, fixed_by="deploy", severity="error",
                )  # fmt: skip
        case "artifact":
            yield _artifact(host, spec, seen, step)
        case "install":
            yield _install(host, spec, seen, step)
        case "file":
            yield _file(host, seen, step, steps)
        case "remove" if step.target != PREVIOUS:
            yield Finding(
                host=host, kind="file", subject=step.target, found="it is there, and no longer asked for",
                expected="no such file", remedy=f"deploy.py removes it{_then(steps)}", fixed_by="deploy",
            )  # fmt: skip
        case "database":
            yield Finding(
                host=host, kind="database", subject=step.target.replace(" ", "-"),
                found=("no server needs any more: " if step.target == "old users" else "there is no ")
                + step.summary.partition(" ")[2],
                expected="what this cluster's servers need, and nothing else",
                remedy=f"deploy.py: {step.summary}", fixed_by="deploy",
                severity="note" if step.target == "old users" else "error",
            )  # fmt: skip
        case _:
            pass  # units are told by what is wrong with them


def _artifact(host: str, spec: HostSpec, seen: HostFacts, step: Step) -> Finding:
    state = seen.artifacts.get(step.target, ArtifactState())
    if not isinstance(step.payload, Artifact):
        raise TypeError(step)
    wanted = step.payload
    found = f"SHA-256 {state.sha256[:12]}…, mode {state.mode:o}" if state.sha256 != "-" else "the file is missing"
    restarts = f", then restarts {spec.install.unit}" if spec.install and step.target == k3s.BINARY else ""
    return Finding(
        host=host, kind="artifact", subject=step.target, found=found,
        expected=f"SHA-256 {wanted.sha256[:12]}…, mode {wanted.mode:o}", since=at(state.written),
        remedy=f"deploy.py puts the right one there{restarts}", fixed_by="deploy",
        severity="warning" if step.target == INSTALLER else "error",
    )  # fmt: skip


def _install(host: str, spec: HostSpec, seen: HostFacts, step: Step) -> Finding:
    missing = lost(spec, seen)
    found = f"missing: {', '.join(missing)}" if missing else "K3s' installer did not run for this release"
    return Finding(
        host=host, kind="install", subject=step.target, found=found, expected="the unit and links of this release",
        remedy="deploy.py runs K3s' installer, which restarts nothing", fixed_by="deploy", severity="warning",
    )  # fmt: skip


def _file(host: str, seen: HostFacts, step: Step, steps: Sequence[Step]) -> Finding:
    state = seen.files.get(step.target, FileState("absent"))
    if not isinstance(step.payload, File):
        raise TypeError(step)
    wanted = step.payload
    same = state.sha256 == wanted.sha256 and state.kind == "file"
    mode = f"{wanted.mode:o} root:{wanted.group}"
    if same:
        found, expected = f"mode and owner are {state.mode:o} {state.owner}:{state.group}", mode
    elif state.kind == "file":
        found, expected = "its content differs", "the content that the inventory leads to"
    else:
        found = "it is missing" if state.kind == "absent" else f"it is a {state.kind}"
        expected = f"a file, {mode}"
    remedy = f"deploy.py {'sets them' if same else 'writes it'}{_then(steps, wanted.unit)}"
    exposed = same and wanted.mode & 0o077 == 0 and state.mode & 0o077 != 0
    severity: Severity = "error" if state.kind != "file" or exposed else "warning"
    return Finding(
        host=host, kind="file", subject=step.target, found=found, expected=expected, since=at(state.changed),
        diff=step.diff, remedy=remedy, fixed_by="deploy", severity=severity,
    )  # fmt: skip


def _then(steps: Sequence[Step], unit: str = "") -> str:
    """Return in words what a deploy would do to the units after that."""
    actions = [f"{s.action}s {s.target}" for s in steps if s.kind == "unit" and unit in ("", s.target)]
    return f", then {' and '.join(actions)}" if actions else ""


def _units(host: str, spec: HostSpec, seen: HostFacts, steps: Sequence[Step]) -> Iterator[Finding]:
    actions = {step.target: step.action for step in steps if step.kind == "unit"}
    written = {step.target for step in steps if step.kind == "file"}
    for unit in spec.units:
        state = seen.unit(unit.name)
        action = actions.get(unit.name)
        if state.active not in _ACTIVE:
            yield Finding(
                host=host, kind="unit", subject=unit.name, found=_down(state), expected="active",
                since=at(state.changed),
                remedy=f"deploy.py {action or 'start'}s it, and says why where it fails: journalctl -u {unit.name}",
                fixed_by="deploy", severity="error",
            )  # fmt: skip
        elif state.restarts >= RESTARTS and seen.now - state.started < LATELY:
            yield Finding(
                host=host, kind="unit", subject=unit.name,
                found=f"it was restarted {state.restarts} times, the last within the hour",
                expected="it goes on running", since=at(state.started),
                remedy=f"look why: journalctl -u {unit.name}", severity="warning",
            )  # fmt: skip
        elif state.enabled not in ("enabled", "enabled-runtime"):
            yield Finding(
                host=host, kind="enabled", subject=unit.name, found=f"it is {state.enabled or 'not enabled'}",
                expected="enabled: else it is not started at boot", remedy="deploy.py enables it", fixed_by="deploy",
            )  # fmt: skip
        newer = [file.path for file in unread(unit, spec, seen) if file.path not in written]
        binary = spec.install and spec.install.unit == unit.name and renewed(spec, seen)
        if binary and seen.artifacts[k3s.BINARY].sha256 == spec.artifacts[0].sha256:
            newer.append(k3s.BINARY)
        if state.active in _ACTIVE and newer and action:
            yield Finding(
                host=host, kind="stale", subject=unit.name, found=f"newer than its process: {', '.join(newer)}",
                expected="a process that has read it", since=at(max(_changed(seen, path) for path in newer)),
                remedy=f"deploy.py {action}s {unit.name}", fixed_by="deploy",
            )  # fmt: skip
        elif state.active in _ACTIVE and unit.name in seen.ledger.pending and action:
            yield Finding(
                host=host, kind="stale", subject=unit.name,
                found="a run was stopped before the unit read its new files",
                expected="a process that has read them", remedy=f"deploy.py {action}s {unit.name}", fixed_by="deploy",
            )  # fmt: skip


def _changed(seen: HostFacts, path: str) -> int:
    return seen.files[path].changed if path in seen.files else seen.artifacts[path].written


def _down(state: UnitState) -> str:
    if state.load == "not-found":
        return "there is no such unit"
    if state.sub == "auto-restart":
        return f"it ends and is restarted again and again, {state.restarts} times by now"
    return {"failed": "it has failed", "inactive": "it is stopped", "activating": "it does not get started"}.get(
        state.active, f"it is {state.active}"
    )


def _command(member: Member, seen: HostFacts) -> Iterator[Finding]:
    role = "server" if member.role == "servers" else "agent"
    unit = k3s.UNITS[role]
    state, wanted = seen.unit(unit), f"{k3s.BINARY} {role}"
    if state.command and state.command != wanted:
        more = state.command.removeprefix(wanted).split()
        names = [word.partition("=")[0] for word in more if word.startswith("-")]
        found = (
            f"it is run with {', '.join(names)}" if names and state.command.startswith(wanted) else "another command"
        )
        yield Finding(
            host=member.name, kind="command", subject=unit, found=found, expected=wanted,
            remedy="put such settings into the inventory, and take them out of the unit or its drop-in",
        )  # fmt: skip
    for path in state.dropins:
        if path.startswith("/etc/"):
            yield Finding(
                host=member.name, kind="settings", subject=path, found=f"somebody has added a drop-in to {unit}",
                expected="the unit as it was installed", remedy="remove it, or accept it in the inventory",
            )  # fmt: skip


def _settings(cluster: Cluster, member: Member, spec: HostSpec, seen: HostFacts) -> Iterator[Finding]:
    ours = {file.path for file in spec.files} | {gone.path for gone in spec.gone if gone.path in seen.ledger.files}
    known = set(cluster.server if member.role == "servers" else cluster.agent) | set(member.settings)
    for path, names, changed in seen.extra_settings:
        if path in ours:
            continue
        keys = sorted(set(names))
        over = [key for key in keys if key in known or key in k3s.OURS]
        more = f"; {', '.join(over)} would win over the inventory's" if over and "config.yaml.d" in path else ""
        yield Finding(
            host=member.name, kind="settings", subject=path, found=f"somebody has set {', '.join(keys)}{more}",
            expected="settings of the inventory only", since=at(changed),
            remedy=f"put them into the inventory, and remove {path}",
        )  # fmt: skip


def _room(host: str, seen: HostFacts) -> Iterator[Finding]:
    for path, free, inodes, all_inodes in seen.space:
        low = 16 if path == "/run" else 256
        if free < low * 4 if path != "/run" else free < low:
            yield Finding(
                host=host, kind="disk", subject=path, found=f"{free} MiB are free", expected=f"{low * 4} MiB or more",
                remedy="make room: K3s evicts workloads, and a database stops, where there is none",
                severity="error" if free < low else "warning",
            )  # fmt: skip
        elif all_inodes and inodes < all_inodes // 50:
            yield Finding(
                host=host, kind="disk", subject=path, found=f"{inodes} inodes are free", expected="2 % or more",
                remedy="remove small files", severity="error",
            )  # fmt: skip
