"""restore: brings a whole cluster back from a backup, onto the same hosts or new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import k3s
from nornir_k3s.errors import Declined, K3sError, UsageError
from nornir_k3s.model.backup import Manifest
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.restoration import Restoration
from nornir_k3s.phases import restore as hosts
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backup_file, drafts, encryption, locks, restoring, revision
from nornir_k3s.state.restoring import Restoring
from nornir_k3s.workflows import restore_fits as fits
from nornir_k3s.workflows.deploy import deploy

_AGAIN = "run the same command again: it goes on where this one ended"


@dataclass(frozen=True)
class _Opened:
    """A backup that was checked, plain, and the restore of it."""

    path: Path
    manifest: Manifest
    begun: Restoring


def restore(
    nr: Nornir,
    file: Path | str,
    *,
    key: Path | str | None = None,
    lost: Collection[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    confirm: Callable[[Restoration], bool] | None = None,
) -> Report:
    """Stop all servers, put the backup's data in place of the datastore's, and deploy with the backup's token.

    The data that were there are kept on the datastore's hosts. A run that was killed is finished by the same call.

    Arguments:
        nr: A Nornir with all hosts of the cluster.
        file: The backup.
        key: The private key of an encrypted one, PEM without a passphrase.
        lost: Servers that are not in the inventory any more, and are dead or gone for good.
        base, state, options: As for `deploy`.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report of the deploy that ends it; its notes name nodes that no longer exist.

    Raises:
        UsageError: The file is damaged, of another cluster, or does not fit this one; nothing was changed.
        K3sError: As `deploy` does.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
    """
    arguments: dict[str, Any] = {"base": base, "state": state, "options": options}
    run = _prepare(nr, arguments)
    with _drafts(run.store.folder, "restore") as folder:
        with locks.deploy_lock(run.store.folder):
            drafts.clean(run.store.folder, "restore", keep=folder)
            drafts.clean(run.store.folder, "restore-plan")
            backup = _open(run, Path(file), key, folder)
            _read(run, backup, lost)
            plan = _planned(run, backup, Path(file))
            if confirm and not confirm(plan):
                raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes restores without asking")
            dump = None if backup.begun.replaced else _extracted(run, backup, folder)
            backup = _begin(run, backup)
        try:
            if dump:
                _carry_out(nr, run, backup, dump, arguments)
            report = _deploy(nr, run, backup, arguments)
        except K3sError as error:
            error.hint = f"{error.hint}; then {_AGAIN}" if error.hint else _AGAIN
            raise
    restoring.save(run.store, None)
    report.notes += [note for note in plan.notes if note not in report.notes]
    return report


def plan_restore(
    nr: Nornir,
    file: Path | str,
    *,
    key: Path | str | None = None,
    lost: Collection[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Restoration:
    """Return what `restore` would do; nothing is changed.

    Arguments:
        nr, file, key, lost, base, state, options: As for `restore`.

    Raises:
        K3sError: As `restore` does before its first change.
    """
    run = _prepare(nr, {"base": base, "state": state, "options": options})
    with _drafts(run.store.folder, "restore-plan") as folder:
        backup = _open(run, Path(file), key, folder)
        _read(run, backup, lost)
        return _planned(run, backup, Path(file))


def _prepare(nr: Nornir, arguments: Mapping[str, Any]) -> Run:
    folders = paths.of(nr, arguments["base"], arguments["state"])
    given = complete(nr, arguments["options"])
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=given, keep=False, artifacts=False)
    if not run.cluster.is_managed:
        text = "a backup is restored to a datastore that this tool set up, and this one is external"
        raise UsageError(text, hint="nothing was changed")
    if run.away:
        text = f"{', '.join(sorted(run.away))}: not in this inventory: a restore needs the whole one"
        raise UsageError(text, hint="nothing was changed")
    return run


def _open(run: Run, file: Path, key: Path | str | None, folder: Path) -> _Opened:
    """Return a backup that was checked; the plain text of an encrypted one is in the folder.

    Raises:
        UsageError: It is damaged, or the key is missing or another one.
    """
    path = file
    if encryption.is_encrypted(file):
        if key is None:
            raise UsageError(f"{file} is encrypted", hint="give the private key with --key")
        with _writing(folder.parent):
            path = drafts.private(folder, "plain")
        encryption.decrypt(file, path, Path(key))
    manifest = backup_file.check(path)
    sha256 = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    begun = restoring.load(run.store)
    if begun is None or (begun.sha256 != sha256 and not begun.replaced):
        begun = Restoring(sha256)
    elif begun.sha256 != sha256:
        begun = Restoring(sha256, anew=begun.anew)
    return _Opened(path, manifest, begun)


def _read(run: Run, backup: _Opened, lost: Collection[str]) -> None:
    """Read all hosts, and refuse what does not fit, all of it at once.

    Raises:
        UsageError: It is refused.
        HostUnreachable: A server or a host of the datastore is down.
    """
    spare = {name for name in run.present if not {"servers", "datastore"} & set(run.member(name).roles)}
    problems = list(fits.of_another(run, backup.manifest))
    if not problems:
        run.phase("observe", run.present, gather.gather_host, width=run.widths["stage"], lenient=spare)
        problems = list(fits.other_ca(run, backup.manifest))
        if not backup.begun.replaced:  # afterwards it is the backup that lists servers
            problems += fits.would_write(run, lost)
    if problems:
        raise UsageError("; ".join(problems), hint="nothing was changed")


def _planned(run: Run, backup: _Opened, file: Path) -> Restoration:
    manifest, cluster = backup.manifest, run.cluster
    changes: dict[str, list[str]] = {}
    if cluster.token.fingerprint() != manifest.token:
        changes[CLUSTER] = [f"the backup's token, of fingerprint {manifest.token}, becomes the cluster's"]
    if not backup.begun.replaced:
        when = f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC"
        for member in cluster.of("servers"):
            changes[member.name] = ["stop K3s"]
        for member in cluster.of("datastore"):
            kept = f"keep its content under a name with {backup.begun.number}"
            data = f"restore the {manifest.datastore} of {when}, revision {manifest.revision}"
            changes.setdefault(member.name, []).extend([kept, data])
    for member in cluster.of("servers"):
        changes.setdefault(member.name, []).append("start K3s with the restored data")
    for name in _anew(run, backup):
        changes.setdefault(name, []).append("join anew: it was installed since, and has no password of its node")
    own = {member.node_name for role in NODES for member in cluster.of(role)}
    gone = [node.name for node in manifest.nodes if node.name not in own]
    notes = [f"node {name} of the backup is not in the inventory: `nornir-k3s remove {name} --lost`" for name in gone]
    names = {node.name for node in manifest.nodes}
    new = [m.name for role in NODES for m in cluster.of(role) if m.node_name not in names]
    notes += [f"{', '.join(new)}: not in the backup; joined as new"] if new else []
    if not backup.begun.replaced:
        notes.append("what was written since the backup is lost to the cluster; pods of running agents go on")
    else:
        where = run.store.folder / restoring.FILE
        notes.append(
            f"an earlier run has put these data in place, this one finishes it; to do that again, remove {where}"
        )
    if k3s.minor(cluster.version) != k3s.minor(manifest.k3s_version):
        notes.append(f"K3s {cluster.version} starts with the data of {manifest.k3s_version}: another minor version")
    return Restoration(cluster=cluster.name, file=str(file), manifest=manifest, changes=changes, gone=gone, notes=notes)


def _anew(run: Run, backup: _Opened) -> list[str]:
    """Return the hosts that are in the backup under their node's name, and have lost its password."""
    nodes = {node.name for node in backup.manifest.nodes}
    members = [member for role in NODES for member in run.cluster.of(role) if member.node_name in nodes]
    bare = [m.name for m in members if m.name in run.facts and not run.facts[m.name].node_password]
    return list(dict.fromkeys([*backup.begun.anew, *([] if backup.begun.replaced else bare)]))


def _begin(run: Run, backup: _Opened) -> _Opened:
    """Note that it begins, then make the backup's token the cluster's; the one before is kept."""
    begun = replace(backup.begun, anew=tuple(_anew(run, backup)))
    restoring.save(run.store, begun)
    token = backup_file.text(backup.path, "token")
    before = run.store.read("token")
    if token is not None and not fits.token_is_given(run) and (before or "").strip() != token.reveal():
        if before is not None:
            run.store.write(f"token.before-restore-{begun.number}", before)
        run.store.write("token", token.reveal() + "\n")
    return replace(backup, begun=begun)


def _extracted(run: Run, backup: _Opened, folder: Path) -> Path:
    """Return the dump in a file of its own, before anything changes: the disk may be full.

    Raises:
        UsageError: It cannot be written.
    """
    with _writing(folder.parent):
        dump = drafts.private(folder, "dump")
        backup_file.extract(backup.path, fits.dump_part(run), dump)
    return dump


def _carry_out(nr: Nornir, run: Run, backup: _Opened, dump: Path, arguments: Mapping[str, Any]) -> None:
    """Replace the content of the datastore; nobody else may start K3s between the stop and that."""
    stores = [member.name for member in run.cluster.of("datastore")]
    new = any(not run.facts[name].database.alive for name in stores)
    part = next(one for one in backup.manifest.parts if one.name == fits.dump_part(run))
    if new:
        with locks.deploy_lock(run.store.folder), _phases(run):
            hosts.stop(run, backup.manifest, number=backup.begun.number)
        deploy(nr, **arguments, choice=Choice(until="datastore", ignore_window=True))
    with locks.deploy_lock(run.store.folder), _phases(run):
        hosts.stop(run, backup.manifest, number=backup.begun.number)
        hosts.replace(run, dump, part.sha256, number=backup.begun.number)
        revision.forget(run.store)
        restoring.save(run.store, replace(backup.begun, replaced=True))


@contextmanager
def _drafts(state: Path, name: str) -> Iterator[Path]:
    """Make a folder that goes at the end."""
    with ExitStack() as stack:
        with _writing(state):
            folder = stack.enter_context(drafts.folder(state, name))
        yield folder


@contextmanager
def _writing(state: Path) -> Iterator[None]:
    """Have a disk that is full, or read-only, be an expected error."""
    try:
        yield
    except OSError as error:
        text = f"{state} cannot be written: {error.strerror}"
        raise UsageError(text, hint="nothing was changed: make room there, or see `state`") from None


@contextmanager
def _phases(run: Run) -> Iterator[None]:
    """Have errors carry a report."""
    try:
        yield
    except K3sError as error:
        run.report.phases = run.report.phases or [PhaseReport(name="restore", state="failed")]
        run.report.end(error, "failed")
        error.report = run.report
        raise


def _deploy(nr: Nornir, run: Run, backup: _Opened, arguments: Mapping[str, Any]) -> Report:
    """Start the servers, let hosts that were bare join, then do everything else."""
    anew = list(backup.begun.anew)
    if anew:
        deploy(nr, **arguments, choice=Choice(until="servers", ignore_window=True))
        again = _prepare(nr, arguments)
        with locks.deploy_lock(run.store.folder):
            again.phase("observe", [m.name for m in again.cluster.of("servers")], gather.gather_host)
            hosts.forget_nodes(again, anew)
        restoring.save(run.store, replace(backup.begun, replaced=True, anew=()))
    return deploy(nr, **arguments, choice=Choice(ignore_window=True))
