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
from nornir_k3s.model.difference import Difference, Severity
from nornir_k3s.model.host_facts import ArtifactState, FileState, Observed, UnitState
from nornir_k3s.model.host_spec import Artifact, File, HostSpec
from nornir_k3s.model.paths import (
    INSTALLER,
    PREVIOUS,
)
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.planner import (
    lost,
    renewed,
    unread,
)

RESTARTS, LATELY = 3, 3600  # so many restarts, the last within so many seconds
_MIB = 1 << 20
_ACTIVE = ("active", "reloading")


def at(seconds: float) -> datetime | None:
    """Return a moment as the host tells it, or None."""
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def differences(
    cluster: Cluster, member: Member, spec: HostSpec, seen: Observed, steps: Sequence[Step]
) -> Iterator[Difference]:
    """Yield what does not match on one host.

    Arguments:
        spec: What it must look like.
        seen: What it looks like.
        steps: What a deploy would do on it.
    """
    for step in steps:
        yield from _step(member.name, spec, seen, step, steps)
    yield from _units(member.name, spec, seen, steps)
    if member.role in NODES:
        yield from _command(member, seen)
        yield from _settings(cluster, member, spec, seen)
    yield from _room(member.name, seen)


def _step(host: str, spec: HostSpec, seen: Observed, step: Step, steps: Sequence[Step]) -> Iterator[Difference]:
    match step.kind:
        case "packages":
            for name in step.target.split():
                todo = f"deploy.py installs {name}"
                yield Difference(
                    host=host, kind="package", what=name, found=f"package {name} is not installed",
                    expected="installed", todo=todo, by="deploy", severity="error",
                )  # fmt: skip
        case "artifact":
            yield _artifact(host, spec, seen, step)
        case "install":
            yield _install(host, spec, seen, step)
        case "file":
            yield _file(host, seen, step, steps)
        case "remove" if step.target != PREVIOUS:
            yield Difference(
                host=host, kind="file", what=step.target, found="it is there, and no longer asked for",
                expected="no such file", todo=f"deploy.py removes it{_then(steps)}", by="deploy",
            )  # fmt: skip
        case "database":
            yield Difference(
                host=host, kind="database", what=step.target.replace(" ", "-"),
                found=("no server needs any more: " if step.target == "old users" else "there is no ")
                + step.summary.partition(" ")[2],
                expected="what this cluster's servers need, and nothing else",
                todo=f"deploy.py: {step.summary}", by="deploy",
                severity="note" if step.target == "old users" else "error",
            )  # fmt: skip
        case _:
            pass  # units are told by what is wrong with them


def _artifact(host: str, spec: HostSpec, seen: Observed, step: Step) -> Difference:
    state = seen.artifacts.get(step.target, ArtifactState())
    if not isinstance(step.payload, Artifact):
        raise TypeError(step)
    wanted = step.payload
    found = f"SHA-256 {state.sha256[:12]}…, mode {state.mode:o}" if state.sha256 != "-" else "the file is missing"
    restarts = f", then restarts {spec.install.unit}" if spec.install and step.target == k3s.BINARY else ""
    return Difference(
        host=host, kind="artifact", what=step.target, found=found,
        expected=f"SHA-256 {wanted.sha256[:12]}…, mode {wanted.mode:o}", since=at(state.written),
        todo=f"deploy.py puts the right one there{restarts}", by="deploy",
        severity="warning" if step.target == INSTALLER else "error",
    )  # fmt: skip


def _install(host: str, spec: HostSpec, seen: Observed, step: Step) -> Difference:
    missing = lost(spec, seen)
    found = f"missing: {', '.join(missing)}" if missing else "K3s' installer did not run for this release"
    return Difference(
        host=host, kind="install", what=step.target, found=found, expected="the unit and links of this release",
        todo="deploy.py runs K3s' installer, which restarts nothing", by="deploy", severity="warning",
    )  # fmt: skip


def _file(host: str, seen: Observed, step: Step, steps: Sequence[Step]) -> Difference:
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
    todo = f"deploy.py {'sets them' if same else 'writes it'}{_then(steps, wanted.unit)}"
    exposed = same and wanted.mode & 0o077 == 0 and state.mode & 0o077 != 0
    severity: Severity = "error" if state.kind != "file" or exposed else "warning"
    return Difference(
        host=host, kind="file", what=step.target, found=found, expected=expected, since=at(state.changed),
        diff=step.diff, todo=todo, by="deploy", severity=severity,
    )  # fmt: skip


def _then(steps: Sequence[Step], unit: str = "") -> str:
    """Return in words what a deploy would do to the units after that."""
    actions = [f"{s.action}s {s.target}" for s in steps if s.kind == "unit" and unit in ("", s.target)]
    return f", then {' and '.join(actions)}" if actions else ""


def _units(host: str, spec: HostSpec, seen: Observed, steps: Sequence[Step]) -> Iterator[Difference]:
    actions = {step.target: step.action for step in steps if step.kind == "unit"}
    written = {step.target for step in steps if step.kind == "file"}
    for unit in spec.units:
        state = seen.unit(unit.name)
        action = actions.get(unit.name)
        if state.active not in _ACTIVE:
            yield Difference(
                host=host, kind="unit", what=unit.name, found=_down(state), expected="active", since=at(state.changed),
                todo=f"deploy.py {action or 'start'}s it, and says why where it fails: journalctl -u {unit.name}",
                by="deploy", severity="error",
            )  # fmt: skip
        elif state.restarts >= RESTARTS and seen.now - state.started < LATELY:
            yield Difference(
                host=host, kind="unit", what=unit.name,
                found=f"it was restarted {state.restarts} times, the last within the hour",
                expected="it goes on running", since=at(state.started),
                todo=f"look why: journalctl -u {unit.name}", severity="warning",
            )  # fmt: skip
        elif state.enabled not in ("enabled", "enabled-runtime"):
            yield Difference(
                host=host, kind="enabled", what=unit.name, found=f"it is {state.enabled or 'not enabled'}",
                expected="enabled: else it is not started at boot", todo="deploy.py enables it", by="deploy",
            )  # fmt: skip
        newer = [file.path for file in unread(unit, spec, seen) if file.path not in written]
        binary = spec.install and spec.install.unit == unit.name and renewed(spec, seen)
        if binary and seen.artifacts[k3s.BINARY].sha256 == spec.artifacts[0].sha256:
            newer.append(k3s.BINARY)
        if state.active in _ACTIVE and newer and action:
            yield Difference(
                host=host, kind="stale", what=unit.name, found=f"newer than its process: {', '.join(newer)}",
                expected="a process that has read it", since=at(max(_changed(seen, path) for path in newer)),
                todo=f"deploy.py {action}s {unit.name}", by="deploy",
            )  # fmt: skip
        elif state.active in _ACTIVE and unit.name in seen.pending and action:
            yield Difference(
                host=host, kind="stale", what=unit.name, found="a run was stopped before the unit read its new files",
                expected="a process that has read them", todo=f"deploy.py {action}s {unit.name}", by="deploy",
            )  # fmt: skip


def _changed(seen: Observed, path: str) -> int:
    return seen.files[path].changed if path in seen.files else seen.artifacts[path].written


def _down(state: UnitState) -> str:
    if state.load == "not-found":
        return "there is no such unit"
    if state.sub == "auto-restart":
        return f"it ends and is restarted again and again, {state.restarts} times by now"
    return {"failed": "it has failed", "inactive": "it is stopped", "activating": "it does not get started"}.get(
        state.active, f"it is {state.active}"
    )


def _command(member: Member, seen: Observed) -> Iterator[Difference]:
    role = "server" if member.role == "servers" else "agent"
    unit = k3s.UNITS[role]
    state, wanted = seen.unit(unit), f"{k3s.BINARY} {role}"
    if state.command and state.command != wanted:
        more = state.command.removeprefix(wanted).split()
        names = [word.partition("=")[0] for word in more if word.startswith("-")]
        found = (
            f"it is run with {', '.join(names)}" if names and state.command.startswith(wanted) else "another command"
        )
        yield Difference(
            host=member.name, kind="command", what=unit, found=found, expected=wanted,
            todo="put such settings into the inventory, and take them out of the unit or its drop-in",
        )  # fmt: skip
    for path in state.dropins:
        if path.startswith("/etc/"):
            yield Difference(
                host=member.name, kind="settings", what=path, found=f"somebody has added a drop-in to {unit}",
                expected="the unit as it was installed", todo="remove it, or accept it in the inventory",
            )  # fmt: skip


def _settings(cluster: Cluster, member: Member, spec: HostSpec, seen: Observed) -> Iterator[Difference]:
    ours = {file.path for file in spec.files} | {gone.path for gone in spec.gone if gone.path in seen.ours}
    known = set(cluster.server if member.role == "servers" else cluster.agent) | set(member.settings)
    for path, names, changed in seen.facts.get("extra", []):
        if path in ours:
            continue
        keys = sorted(set(names.split()))
        over = [key for key in keys if key in known or key in k3s.OURS]
        more = f"; {', '.join(over)} would win over the inventory's" if over and "config.yaml.d" in path else ""
        yield Difference(
            host=member.name, kind="settings", what=path, found=f"somebody has set {', '.join(keys)}{more}",
            expected="settings of the inventory only", since=at(int(changed)),
            todo=f"put them into the inventory, and remove {path}",
        )  # fmt: skip


def _room(host: str, seen: Observed) -> Iterator[Difference]:
    for path, sizes in seen.facts.get("space", []):
        numbers = sizes.split()
        if len(numbers) != 4 or not all(number.isdigit() for number in numbers):
            continue
        blocks, size, inodes, all_inodes = map(int, numbers)
        free = blocks * size // _MIB
        low = 16 if path == "/run" else 256
        if free < low * 4 if path != "/run" else free < low:
            yield Difference(
                host=host, kind="disk", what=path, found=f"{free} MiB are free", expected=f"{low * 4} MiB or more",
                todo="make room: K3s evicts workloads, and a database stops, where there is none",
                severity="error" if free < low else "warning",
            )  # fmt: skip
        elif all_inodes and inodes < all_inodes // 50:
            yield Difference(
                host=host, kind="disk", what=path, found=f"{inodes} inodes are free", expected="2 % or more",
                todo="remove small files", severity="error",
            )  # fmt: skip
