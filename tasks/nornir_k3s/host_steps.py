"""Steps between the desired state of a host, or of one of its roles, and its facts. Pure."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import replace

from nornir_k3s import k3s, shell
from nornir_k3s.model import masking
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts
from nornir_k3s.model.host_spec import File, Forget, Gone, HostSpec, Packages, Unit
from nornir_k3s.model.paths import PREVIOUS, SYSTEMD
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Action, Step
from nornir_k3s.model.urls import shown
from nornir_k3s.roles import former
from nornir_k3s.roles.running import Takeover

NO_TAKEOVER = Takeover()
STUCK = 90  # seconds after which a unit that is still starting is restarted


def stage(spec: HostSpec, facts: HostFacts) -> list[Step]:
    """Return the steps that restart nothing: packages, artefacts, K3s' installer."""
    steps: list[Step] = []
    missing = tuple(name for name in spec.packages if name not in facts.packages)
    if missing:
        payload = Packages(facts.family.manager, missing)
        steps.append(Step("packages", " ".join(missing), f"install {', '.join(missing)}", payload=payload))
    steps += _prepare(spec, facts)
    for artifact in spec.artifacts:
        state = facts.artifacts.get(artifact.path, ArtifactState())
        if not state.same(artifact.sha256, artifact.mode):
            current = "no" if state.sha256 == "-" else "another"
            how = f"download {shown(artifact.url)}" if artifact.url else f"copy {artifact.source.name}"
            steps.append(Step("artifact", artifact.path, f"{how} (there is {current} file now)", payload=artifact))
    if spec.install and not _is_foreign(spec, facts):
        steps += _install(spec, facts)
    return steps


def _install(spec: HostSpec, facts: HostFacts) -> list[Step]:
    if not spec.install or not (facts.ledger.installed != install_mark(spec) or missing_install_files(spec, facts)):
        return []
    return [Step("install", spec.install.unit, f"run K3s' installer as {spec.install.role}", payload=spec.install)]


def _is_foreign(spec: HostSpec, facts: HostFacts) -> bool:
    """Return whether others have installed K3s: its flags go when its unit is written, so config.yaml comes first."""
    return spec.install is not None and spec.install.unit in facts.foreign_units


def _prepare(spec: HostSpec, facts: HostFacts) -> list[Step]:
    """Return the steps without which a service would not start with our files: SELinux' booleans, first data."""
    steps = []
    for name in spec.booleans:
        if facts.booleans.get(name) == "off":
            call = shell.call("allow", name)
            steps.append(Step("selinux", name, f"turn SELinux' boolean {name} on", payload=Secret(call)))
    for initial in spec.initial:
        folder = initial.path.rpartition("/")[0]
        # Where we have written there, data have been lost, or are not mounted: a person must see to them.
        if initial.path not in facts.present and not any(one.startswith(f"{folder}/") for one in facts.ledger.files):
            call = shell.call("initialize", initial.path, initial.command)
            steps.append(Step("database", folder, f"create the data folder {folder}", payload=Secret(call)))
    return steps


def missing_install_files(spec: HostSpec, facts: HostFacts) -> list[str]:
    """Return files of K3s' installer that were removed: its unit, its links."""
    if not spec.install or not facts.ledger.installed:
        return []
    unit = f"{SYSTEMD}/{spec.install.unit}"
    missing = [unit] if unit in spec.watch and unit not in facts.present else []
    return [*missing, *facts.missing_links]


def install_mark(spec: HostSpec) -> str:
    """Return the mark that a finished installation leaves on the host: role, and a hash of the installer.

    Another binary needs no installer: unit and links stay (docs.k3s.io `upgrades/manual.md`, by binary).
    """
    if not spec.install:
        return ""
    content = "".join(artifact.sha256 for artifact in spec.artifacts if artifact.path == spec.install.script)
    return f"{spec.install.role} {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def converge(
    spec: HostSpec, facts: HostFacts, *, others: Iterable[HostSpec] = (), takeover: Takeover = NO_TAKEOVER
) -> list[Step]:
    """Return the steps that correct files and units, in order.

    Arguments:
        others: The desired states of the host's other roles.
        takeover: What becomes of a K3s that others have installed.
    """
    steps = [step for file in spec.files if (step := _file(file, facts.files.get(file.path)))]
    steps = [_without_restart(step, takeover) if step.target in takeover.same else step for step in steps]
    unread_paths = {file.path for unit in spec.units for file in unread(unit, spec, facts)}
    # The mode of a file that the process has read already needs no restart.
    no_restart = {file.path for file in spec.files if same_text(file, facts) and file.path not in unread_paths}
    no_restart |= takeover.same
    for gone in spec.gone:
        if gone.path in facts.ledger.files:
            steps.append(Step("remove", gone.path, f"remove {gone.path}, which is no longer needed", payload=gone))
    for path in _obsolete(spec, facts, others):
        steps.append(Step("remove", path, f"remove {path}, which is no longer needed", payload=Gone(path, "")))
    changed = {step.target for step in steps} - no_restart
    if _is_foreign(spec, facts):
        steps += _install(spec, facts)
    for unit in spec.units:
        action = _unit_action(unit, spec, facts, changed)
        if action:
            why = f": {', '.join(takeover.differ)} would differ" if takeover.differ and unit.name == _k3s(spec) else ""
            steps.append(Step("unit", unit.name, f"{action} {unit.name}{why}", payload=unit, action=action))
    if not steps and PREVIOUS in facts.present and facts.in_service and spec.install:
        # A run was interrupted before it removed them: a later rollback must not restore files that old.
        steps.append(Step("remove", PREVIOUS, "remove the rollback copies of the last change", payload=Forget()))
    return steps


def _k3s(spec: HostSpec) -> str:
    return spec.install.unit if spec.install else ""


def _without_restart(step: Step, takeover: Takeover) -> Step:
    """Return the step of a file whose settings K3s runs with already, from the flags and files of others."""
    if not isinstance(step.payload, File):
        raise TypeError(step)
    summary = f"{step.summary}; no restart: the settings that run are the same"
    return replace(step, summary=summary, payload=replace(step.payload, runs=takeover.started))


def _obsolete(spec: HostSpec, facts: HostFacts, others: Iterable[HostSpec]) -> list[str]:
    """Return files of a server or agent that this tool wrote and that the inventory no longer has.

    Those of other roles are left: a datastore that is no longer this cluster's may still be somebody's.
    What read them restarts for the setting that named them, if it was one.
    """
    if not spec.install:
        return []
    parts = (spec, *others)
    written = {path for path in facts.ledger.files if not path.startswith(former.OTHERS)}
    known = {file.path for part in parts for file in part.files} | {gone.path for part in parts for gone in part.gone}
    return sorted(written - known)


def _file(file: File, state: FileState | None) -> Step | None:
    state = state or FileState("absent")
    if state.kind == "absent":
        return Step("file", file.path, f"write {file.path}", diff=diff(file, ""), payload=file)
    if state.kind != "file":
        return Step(
            "file", file.path, f"replace {file.path}, which is a {state.kind}", diff=diff(file, ""), payload=file
        )
    if state.sha256 != file.sha256:
        return Step("file", file.path, f"change {file.path}", diff=diff(file, state.text), payload=file)
    if not _has_mode(file, state):
        found, wanted = f"{state.mode:o} {state.owner}:{state.group}", f"{file.mode:o} {file.owner}:{file.group}"
        return Step(
            "file",
            file.path,
            f"set {file.path} to {wanted} (it is {found})",
            payload=file,
        )
    return None


def _unit_action(unit: Unit, spec: HostSpec, facts: HostFacts, changed: set[str]) -> Action | None:
    state = facts.unit(unit.name)
    if state.active not in ("active", "reloading", "activating"):
        return "start"
    touched = [file for file in spec.files if file.unit == unit.name and file.path in changed]
    touched += [file for file in unread(unit, spec, facts) if file.path not in changed]
    touched_gone = any(gone.unit == unit.name and gone.path in changed for gone in spec.gone)
    if touched_gone or replaces_binary(spec, facts):
        return "restart"
    if touched:
        return "reload" if unit.reloadable and all(file.action == "reload" for file in touched) else "restart"
    if unit.name in facts.ledger.pending:
        return "reload" if unit.reloadable else "restart"
    if state.active == "activating" and not unit.patient:
        # A unit that hangs has logged the cause only once, long ago: after a restart it logs it again.
        return "restart" if facts.now - state.started > STUCK else "start"
    return "enable" if state.enabled not in ("enabled", "enabled-runtime") else None


def unread(unit: Unit, spec: HostSpec, facts: HostFacts) -> list[File]:
    """Return the files that are newer than the process that should have read them."""
    process, found = facts.unit(unit.name), []
    reloaded = max(process.changed, facts.ledger.reloaded.get(unit.name, 0))
    for file in spec.files:
        since = process.started if file.action == "restart" else reloaded
        if facts.ledger.same.get(file.path) == (file.sha256, process.started):
            continue
        state = facts.files.get(file.path)
        if file.unit != unit.name or state is None or not state.changed > since > 0:
            continue
        # A change of mode or owner makes a file newer, too; the process needs to read only new content.
        by_mode = same_text(file, facts) and not _has_mode(file, state)
        settled = facts.ledger.settled.get(file.path) == state.changed
        if not ((by_mode or settled) and state.written <= since):
            found.append(file)
    return found


def same_text(file: File, facts: HostFacts) -> bool:
    """Return whether a file has the desired content, whatever its mode."""
    state = facts.files.get(file.path)
    return state is not None and state.kind == "file" and state.sha256 == file.sha256


def _has_mode(file: File, state: FileState) -> bool:
    return (state.mode, state.owner, state.group) == (file.mode, file.owner, file.group)


def replaces_binary(spec: HostSpec, facts: HostFacts) -> bool:
    """Return whether K3s' binary is, or will be, newer than the process that runs it."""
    if not spec.artifacts or not spec.install:
        return False
    binary, started = spec.artifacts[0], facts.unit(spec.install.unit).started
    state = facts.artifacts.get(binary.path, ArtifactState())
    return state.sha256 != binary.sha256 or state.written > started > 0


def diff(file: File, before: str | None) -> str:
    """Return the unified diff from the current to the desired content, without secrets.

    Arguments:
        before: The text on the host; None when it was too large to fetch.
    """
    after = file.text.reveal()
    if file.masking == "all" or before is None:
        return f"--- {file.path}\n+++ {file.path}\n(content not shown)\n"
    keys = k3s.MASKED | masking.marked(before) | masking.marked(after)
    old, new = (masking.yaml(text, keys) if file.masking == "yaml" else masking.plain(text) for text in (before, after))
    lines = list(
        difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), file.path, file.path, n=2)
    )
    if not lines:
        return f"--- {file.path}\n+++ {file.path}\n(a secret value differs)\n"
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
