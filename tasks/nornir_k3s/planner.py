"""Planner: desired state and facts of a host in, steps out. Pure."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nornir_k3s import k3s, shell
from nornir_k3s.model import masking
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts
from nornir_k3s.model.host_spec import File, Forget, Gone, HostSpec, Packages, Unit, together
from nornir_k3s.model.paths import PREVIOUS, SYSTEMD
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Action, Step
from nornir_k3s.model.urls import shown
from nornir_k3s.roles import datastore, former, load_balancer, restarts
from nornir_k3s.roles.desired import Known, desired_by_role
from nornir_k3s.roles.running import Takeover, takeover

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


@dataclass(frozen=True)
class PlannedHost:
    """The plan of one host: desired state, facts, and the steps between them; computed once for the same facts.

    Arguments:
        stage: Steps that restart nothing.
        by_role: Steps of each role that correct files, units and the database.
        tidy: Steps that remove what no host needs any more, after all others.
        returns: K3s' binary may be put back after a failed change: it stays within its minor version.
    """

    member: Member
    desired: HostSpec
    facts: HostFacts
    stage: tuple[Step, ...]
    by_role: Mapping[str, tuple[Step, ...]]
    tidy: tuple[Step, ...]
    returns: bool = False

    @property
    def converge(self) -> tuple[Step, ...]:
        """The steps of all roles that correct files, units and the database."""
        return tuple(step for steps in self.by_role.values() for step in steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return (*self.stage, *self.converge, *self.tidy)

    @property
    def starts_k3s(self) -> bool:
        """Whether K3s is started or restarted."""
        install = self.desired.install
        return install is not None and self.acts_on(install.unit, "start", "restart")

    def acts_on(self, unit: str, *actions: Action) -> bool:
        """Return whether a unit is started, restarted or reloaded; or only whether one of these actions is planned."""
        wanted = actions or ("start", "restart", "reload")
        return any(step.target == unit and step.action in wanted for step in self.converge)


def plan_host(cluster: Cluster, member: Member, facts: HostFacts, known: Known) -> PlannedHost:
    """Return one host's plan.

    Arguments:
        known: What else is known: the release, the cluster's CA, the check certificate.
    """
    cluster = replace(cluster, left=known.left)
    parts = desired_by_role(cluster, member, facts, known)
    steps = {
        role: converge(
            part,
            facts,
            others=[one for other, one in parts.items() if other != role],
            takeover=takeover(cluster, member, part, facts) if role in NODES else NO_TAKEOVER,
        )
        for role, part in parts.items()
    }
    tidy: list[Step] = []
    spec, reason = together(parts.values()), ""
    if _has_other_token(cluster, member, facts, known):
        steps["servers"].insert(0, _forget_passwd())
        reason = "its own files have another token than the datastore"
    reason = reason or restarts.reason(cluster, member, spec, facts, known)
    if reason and spec.install:
        steps[member.role] = _with_restart(steps[member.role], spec.install.unit, spec, reason)
    if "datastore" in steps:
        steps["datastore"] += datastore.steps(cluster, facts.database)
        tidy = datastore.tidy_steps(cluster, facts.database)
    if "lb" in steps:
        steps["lb"] += load_balancer.drained_steps(facts.ledger.drained)
    elif cluster.registration.way == "vip":
        steps["lb"] = former.load_balancer_steps(facts.ledger.files)  # another load balancer takes the VIP
    else:
        tidy += former.load_balancer_steps(facts.ledger.files)  # agents use it until they have moved
    if spec.install and member.role == "servers" and known.new_ca not in ("", facts.server.ca_certificate):
        reason = "it takes the new CA from the datastore when it starts"
        steps["servers"] = _with_restart(steps["servers"], spec.install.unit, spec, reason)
    if member.role in NODES and known.renew:
        steps[member.role] = _renewed(steps[member.role], member, spec, facts, known.renew)
    returns = k3s.same_minor((known.nodes or {}).get(member.node_name, ""), cluster.version)
    by_role = {role: tuple(of_role) for role, of_role in steps.items()}
    return PlannedHost(member, spec, facts, tuple(stage(spec, facts)), by_role, tuple(tidy), returns)


def _with_restart(steps: list[Step], name: str, spec: HostSpec, reason: str) -> list[Step]:
    """Return the steps with a restart of this unit; one that starts or restarts it already is enough."""
    if any(step.target == name and step.action in ("start", "restart") for step in steps):
        return steps
    unit = next(one for one in spec.units if one.name == name)
    steps = [step for step in steps if step.target != name]
    return [*steps, Step("unit", name, f"restart {name}: {reason}", payload=unit, action="restart")]


def _has_other_token(cluster: Cluster, member: Member, facts: HostFacts, known: Known) -> bool:
    """Return whether a server's files are of another token than the datastore's data, which is the right one."""
    wanted = cluster.token.fingerprint()
    return member.role == "servers" and known.stored == wanted and facts.server.token not in ("", wanted)


def _forget_passwd() -> Step:
    """Return the step without which K3s may end with `newer than datastore`; it makes the file anew when it starts."""
    summary = f"remove {k3s.PASSWD}, which has another token: K3s takes the right one from the datastore"
    return Step("remove", k3s.PASSWD, summary, payload=Secret(shell.call("forget", k3s.PASSWD)))


def _renewed(steps: list[Step], member: Member, spec: HostSpec, facts: HostFacts, since: float) -> list[Step]:
    """Return the steps with those that make K3s' certificates anew, if some are older.

    A server makes them when it starts where there are none (docs.k3s.io `cli/certificate.md`), an agent always does.
    """
    before = since + facts.skew - facts.skew_error
    own = (one for one in facts.certificates if one.path.startswith(f"{k3s.DATA}/") and one.path.endswith(".crt"))
    own = (one for one in own if not one.authority)
    if not spec.install or all(one.written >= before for one in own):
        return steps
    unit = spec.install.unit
    steps = _with_restart(steps, unit, spec, "it makes its certificates anew when it starts")
    if member.role != "servers":
        return steps
    call = shell.source("apply/certificates.sh") + shell.call("drop_certificates", k3s.BINARY, unit, k3s.DATA)
    summary = "delete K3s' certificates with `k3s certificate rotate`"
    # At once before the restart: until then, what reads one of these files fails.
    last = next(number for number, step in enumerate(steps) if step.target == unit)
    return [*steps[:last], Step("certificates", unit, summary, payload=Secret(call)), *steps[last:]]
