"""Differences on one host: the steps that a deploy would carry out, and what a deploy does not look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from nornir_k3s import k3s
from nornir_k3s.checks import extra_settings
from nornir_k3s.host_steps import missing_install_files, replaces_binary, unread
from nornir_k3s.k3s_installed import key_of
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
from nornir_k3s.model.step import Step
from nornir_k3s.planner import PlannedHost
from nornir_k3s.roles import haproxy

RESTARTS, RECENTLY = 3, 3600  # a unit with this many restarts, the last within these seconds, is reported
_ACTIVE = ("active", "reloading")


def at(seconds: float) -> datetime | None:
    """Return a time that a host gave in seconds since the epoch; None for 0."""
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def differences(cluster: Cluster, host: PlannedHost) -> Iterator[Finding]:
    """Yield the differences on one host."""
    member, spec, facts, steps = host.member, host.desired, host.facts, host.steps
    for step in steps:
        yield from _step(member.name, spec, facts, step, steps)
    yield from _units(member.name, spec, facts, steps)
    if member.role in NODES:
        yield from _command(member, facts)
        yield from _settings(cluster, member, spec, facts)
    yield from _disk(member.name, facts)


def _step(host: str, spec: HostSpec, facts: HostFacts, step: Step, steps: Sequence[Step]) -> Iterator[Finding]:
    match step.kind:
        case "packages":
            for name in step.target.split():
                yield Finding(
                    host=host, kind="package", subject=name, found=f"package {name} is not installed",
                    expected="installed", remedy="the next deploy installs it", fixed_by="deploy", severity="error",
                )  # fmt: skip
        case "artifact":
            yield _artifact(host, spec, facts, step)
        case "install":
            yield _install(host, spec, facts, step)
        case "file":
            yield _file(host, facts, step, steps)
        case "remove" if step.target != PREVIOUS:
            other = "it has another token than the datastore: K3s may not start again"
            yield Finding(
                host=host, kind="file", subject=step.target, expected="no such file", fixed_by="deploy",
                found=other if step.target == k3s.PASSWD else "the inventory no longer needs this file",
                remedy=f"the next deploy removes it{_then(steps)}",
            )  # fmt: skip
        case "database":
            yield Finding(
                host=host, kind="database", subject=step.target.replace(" ", "-"),
                found=("obsolete: " if step.target == "old users" else "missing: ") + step.summary.partition(" ")[2],
                expected="what this cluster's servers need, and nothing else",
                remedy=f"the next deploy will {step.summary}", fixed_by="deploy",
                severity="note" if step.target == "old users" else "error",
            )  # fmt: skip
        case "selinux":
            yield Finding(
                host=host, kind="selinux", subject=step.target, found="SELinux' boolean is off", expected="on",
                remedy="the next deploy turns it on", fixed_by="deploy", severity="error",
            )  # fmt: skip
        case "rotation":
            yield Finding(
                host=host, kind="backend", subject=step.target,
                found=f"an interrupted run has taken server {step.target} out of rotation", expected="in rotation",
                remedy="the next deploy brings it back", fixed_by="deploy", severity="error",
            )  # fmt: skip
        case "unit" if step.action == "stop":
            yield Finding(
                host=host, kind="unit", subject=step.target, found="the host is no load balancer any more",
                expected="stopped, and not enabled", remedy="the next deploy stops it", fixed_by="deploy",
                severity="error",
            )  # fmt: skip
        case _:
            pass  # `_units` reports them


def _artifact(host: str, spec: HostSpec, facts: HostFacts, step: Step) -> Finding:
    state = facts.artifacts.get(step.target, ArtifactState())
    if not isinstance(step.payload, Artifact):
        raise TypeError(step)
    wanted = step.payload
    found = f"SHA-256 {state.sha256[:12]}…, mode {state.mode:o}" if state.sha256 != "-" else "the file is missing"
    restarts = f", then restarts {spec.install.unit}" if spec.install and step.target == k3s.BINARY else ""
    return Finding(
        host=host, kind="artifact", subject=step.target, found=found,
        expected=f"SHA-256 {wanted.sha256[:12]}…, mode {wanted.mode:o}", since=at(state.written),
        remedy=f"the next deploy replaces it{restarts}", fixed_by="deploy",
        severity="warning" if step.target == INSTALLER else "error",
    )  # fmt: skip


def _install(host: str, spec: HostSpec, facts: HostFacts, step: Step) -> Finding:
    missing = missing_install_files(spec, facts)
    found = f"missing: {', '.join(missing)}" if missing else "K3s' installer has not run for this release"
    return Finding(
        host=host, kind="install", subject=step.target, found=found, expected="the unit and links of this release",
        remedy="the next deploy runs K3s' installer, which restarts nothing", fixed_by="deploy", severity="warning",
    )  # fmt: skip


def _file(host: str, facts: HostFacts, step: Step, steps: Sequence[Step]) -> Finding:
    state = facts.files.get(step.target, FileState("absent"))
    if not isinstance(step.payload, File):
        raise TypeError(step)
    wanted = step.payload
    same = state.sha256 == wanted.sha256 and state.kind == "file"
    mode = f"{wanted.mode:o} {wanted.owner}:{wanted.group}"
    if same:
        found, expected = f"mode and owner are {state.mode:o} {state.owner}:{state.group}", mode
    elif state.kind == "file" and step.target == haproxy.CHECK_CERT and not wanted.text.reveal():
        # The controller has none any more that lasts (state/check_certificate.py).
        found, expected = "the health check's certificate expires soon, or is of another CA", "a lasting certificate"
    elif state.kind == "file":
        found, expected = "the content differs", "the content from the inventory"
    else:
        found = "the file is missing" if state.kind == "absent" else f"the path is not a file but a {state.kind}"
        expected = f"a file, {mode}"
    remedy = f"the next deploy {'sets them' if same else 'writes it'}{_then(steps, wanted.unit)}"
    exposed = same and wanted.mode & 0o077 == 0 and state.mode & 0o077 != 0
    severity: Severity = "error" if state.kind != "file" or exposed else "warning"
    return Finding(
        host=host, kind="file", subject=step.target, found=found, expected=expected, since=at(state.changed),
        diff=step.diff, remedy=remedy, fixed_by="deploy", severity=severity,
    )  # fmt: skip


def _then(steps: Sequence[Step], unit: str = "") -> str:
    """Return the end of a remedy: what a deploy does to the units after that."""
    actions = [f"{s.action}s {s.target}" for s in steps if s.kind == "unit" and unit in ("", s.target)]
    return f", then {' and '.join(actions)}" if actions else ""


def _units(host: str, spec: HostSpec, facts: HostFacts, steps: Sequence[Step]) -> Iterator[Finding]:
    actions = {step.target: step.action for step in steps if step.kind == "unit"}
    written = {step.target for step in steps if step.kind == "file"}
    for unit in spec.units:
        state = facts.unit(unit.name)
        action = actions.get(unit.name)
        if unit.patient and state.active == "activating":
            yield Finding(
                host=host, kind="unit", subject=unit.name, found="it is starting until a CNI runs", expected="active",
                since=at(state.changed), severity="note",
                remedy="install a CNI: flannel-backend is none; or set disable-network-policy: true",
            )  # fmt: skip
        elif state.active not in _ACTIVE:
            yield Finding(
                host=host, kind="unit", subject=unit.name, found=_down(state), expected="active",
                since=at(state.changed),
                remedy=f"the next deploy {action or 'start'}s it; see why it stopped: journalctl -u {unit.name}",
                fixed_by="deploy", severity="error",
            )  # fmt: skip
        elif state.restarts >= RESTARTS and facts.now - state.started < RECENTLY:
            yield Finding(
                host=host, kind="unit", subject=unit.name,
                found=f"the unit restarted {state.restarts} times, the last time within the hour",
                expected="no restarts", since=at(state.started),
                remedy=f"find the cause: journalctl -u {unit.name}", severity="warning",
            )  # fmt: skip
        elif state.enabled not in ("enabled", "enabled-runtime"):
            yield Finding(
                host=host, kind="enabled", subject=unit.name, found=f"the unit is {state.enabled or 'not enabled'}",
                expected="enabled, to start at boot", remedy="the next deploy enables it", fixed_by="deploy",
            )  # fmt: skip
        newer = [file.path for file in unread(unit, spec, facts) if file.path not in written]
        binary = spec.install and spec.install.unit == unit.name and replaces_binary(spec, facts)
        if binary and facts.artifacts[k3s.BINARY].sha256 == spec.artifacts[0].sha256:
            newer.append(k3s.BINARY)
        if state.active in _ACTIVE and newer and action:
            yield Finding(
                host=host, kind="stale", subject=unit.name, found=f"newer than the process: {', '.join(newer)}",
                expected="a process that has read it", since=at(max(_changed(facts, path) for path in newer)),
                remedy=f"the next deploy {action}s {unit.name}", fixed_by="deploy",
            )  # fmt: skip
        elif state.active in _ACTIVE and unit.name in facts.ledger.pending and action:
            yield Finding(
                host=host, kind="stale", subject=unit.name,
                found="a deploy was interrupted before the unit read its new files",
                expected="a process that has read them", remedy=f"the next deploy {action}s {unit.name}",
                fixed_by="deploy",
            )  # fmt: skip
        elif state.active in _ACTIVE and not action and facts.has_read_before(unit.name):
            yield Finding(
                host=host, kind="stale", subject=unit.name, since=at(state.started), severity="note",
                found="it has been running since before the takeover, with the same settings from flags or other files",
                expected="the settings of the inventory", remedy="nothing to do: it reads them when it next restarts",
            )  # fmt: skip


def _changed(facts: HostFacts, path: str) -> int:
    return facts.files[path].changed if path in facts.files else facts.artifacts[path].written


def _down(state: UnitState) -> str:
    if state.load == "not-found":
        return "the unit does not exist"
    if state.sub == "auto-restart":
        return f"the unit exits and is restarted, {state.restarts} times so far"
    words = {"failed": "has failed", "inactive": "is stopped", "activating": "does not finish starting"}
    return f"the unit {words.get(state.active, f'is {state.active}')}"


def _command(member: Member, facts: HostFacts) -> Iterator[Finding]:
    role = "server" if member.role == "servers" else "agent"
    unit = k3s.UNITS[role]
    state, wanted = facts.unit(unit), f"{k3s.BINARY} {role}"
    if state.command and state.command != wanted:
        more = state.command.removeprefix(wanted).split()
        names = [word.partition("=")[0] for word in more if word.startswith("-")]
        extra = f"with {', '.join(names)}" if names and state.command.startswith(wanted) else "another command"
        yield Finding(
            host=member.name, kind="command", subject=unit, found=f"the unit runs {extra}", expected=wanted,
            remedy="move these settings into the inventory, and remove them from the unit or its drop-in",
        )  # fmt: skip
    for path in state.dropins:
        if path.startswith("/etc/"):
            yield Finding(
                host=member.name, kind="settings", subject=path, found=f"unexpected drop-in for {unit}",
                expected="the unit as installed", remedy="remove it, or accept it (`known_drift` in the inventory)",
            )  # fmt: skip


def _settings(cluster: Cluster, member: Member, spec: HostSpec, facts: HostFacts) -> Iterator[Finding]:
    ours = {file.path for file in spec.files} | {gone.path for gone in spec.gone if gone.path in facts.ledger.files}
    known = set(cluster.server if member.role == "servers" else cluster.agent) | set(member.settings)
    for path, names, changed in facts.extra_settings:
        if path in ours:
            continue
        keys = sorted(set(names))
        overriding = [key for key in keys if key.rstrip("+") in known | set(k3s.OURS)]
        override = f"; {', '.join(overriding)} override the inventory" if overriding and "config.yaml.d" in path else ""
        same = all(extra_settings.is_same(cluster, member, facts, key_of(key.rstrip("+")), path) for key in keys)
        yield Finding(
            host=member.name, kind="settings", subject=path, found=f"unexpected settings {', '.join(keys)}{override}",
            expected="settings of the inventory only", since=at(changed), severity="note" if same else "warning",
            remedy=f"they are the inventory's: remove {path}" if same else f"move them into it, and remove {path}",
        )  # fmt: skip


def _disk(host: str, facts: HostFacts) -> Iterator[Finding]:
    for path, free, inodes, all_inodes in facts.space:
        low = 16 if path == "/run" else 256
        if free < low * 4 if path != "/run" else free < low:
            yield Finding(
                host=host, kind="disk", subject=path, found=f"{free} MiB are free", expected=f"at least {low * 4} MiB",
                remedy="free disk space: on a full disk K3s evicts workloads and a database stops",
                severity="error" if free < low else "warning",
            )  # fmt: skip
        elif all_inodes and inodes < all_inodes // 50:
            yield Finding(
                host=host, kind="disk", subject=path, found=f"{inodes} inodes are free", expected="at least 2 %",
                remedy="remove small files", severity="error",
            )  # fmt: skip
