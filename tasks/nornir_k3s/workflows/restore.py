"""restore: brings a whole cluster back from a backup, onto the same hosts or new ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import k3s
from nornir_k3s.errors import Declined, K3sError, UsageError
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.finding import CLUSTER
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.restoration import Restoration
from nornir_k3s.phases import backup as parts
from nornir_k3s.phases import restore as hosts
from nornir_k3s.phases import rows
from nornir_k3s.phases.changing import changing
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backup_file, backup_folder, drafts, restoring
from nornir_k3s.workflows import restore_file
from nornir_k3s.workflows import restore_fits as fits
from nornir_k3s.workflows import restore_revision as revisions
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.restore_file import Opened

_AGAIN = "run the same command again: it goes on where this one ended"


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
        PreflightFailed: A host has a problem; nothing was changed.
        K3sError: As `deploy` does.
        Declined: It was not confirmed.
        Busy: A deploy is in progress.
    """
    arguments: dict[str, Any] = {"base": base, "state": state, "options": options}
    run = _prepare(nr, arguments)
    with restore_file.folder_of(run.store.folder, "restore") as folder, changing(run, "restore") as lock:
        drafts.clean(run.store.folder, "restore", keep=folder)
        for name in ("restore-plan", "restore-kept"):
            drafts.clean(run.store.folder, name)
        backup = restore_file.opened(run, Path(file), key, folder)
        backup = _read(run, backup, lost, folder)
        plan = _planned(run, backup, Path(file))
        if confirm and not confirm(plan):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes restores without asking")
        dump = None if backup.begun.replaced else restore_file.extracted(run, backup, folder)
        lock.require(run)  # before the state folder gets the backup's token
        backup, told = _begin(run, backup), len(run.report.notes)
        try:
            if dump:
                _carry_out(nr, run, backup, dump, arguments)
            report = _deploy(nr, run, backup, arguments)
        except K3sError as error:
            error.hint = f"{error.hint}; then {_AGAIN}" if error.hint else _AGAIN
            raise
    report.notes += [note for note in (*run.report.notes[told:], *plan.notes) if note not in report.notes]
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
    with restore_file.folder_of(run.store.folder, "restore-plan") as folder:
        backup = restore_file.opened(run, Path(file), key, folder)
        backup = _read(run, backup, lost, folder)
        return _planned(run, backup, Path(file))


def _prepare(nr: Nornir, arguments: Mapping[str, Any]) -> Run:
    folders = paths.of(nr, arguments["base"], arguments["state"])
    given = complete(nr, arguments["options"])
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=given, keep=False, artifacts=False)
    if run.away:
        text = f"{', '.join(sorted(run.away))}: not in this inventory: a restore needs the whole one"
        raise UsageError(text, hint="nothing was changed")
    return run


def _read(run: Run, backup: Opened, lost: Collection[str], folder: Path) -> Opened:
    """Read all hosts, and refuse what does not fit, all of it at once; return the backup with what was found.

    Raises:
        UsageError: It is refused.
        PreflightFailed: A host has a problem that keeps K3s from being started again.
        HostUnreachable: A server or a host of the datastore is down.
    """
    spare = {name for name in run.present if not {"servers", "datastore"} & set(run.member(name).roles)}
    problems = list(fits.of_another(run, backup.manifest))
    if not problems:
        run.phase("observe", run.present, gather.gather_host, width=run.widths["stage"], lenient=spare, reads=True)
        problems = list(fits.other_ca(run, backup.manifest))
        if not backup.begun.replaced:  # afterwards it is the backup that lists servers
            problems += fits.would_write(run, lost)
            if fits.has_rows(backup.manifest) and not _is_new(run):
                backup = replace(backup, fit=rows.fit(run, restore_file.plain_rows(backup, folder)))
                problems += backup.fit.problems if backup.fit else ()
    if problems:
        raise UsageError("; ".join(problems), hint="nothing was changed")
    if not backup.begun.replaced:
        fits.require_sound(run, backup.manifest)
    return backup


def _is_new(run: Run) -> bool:
    """Return whether a managed datastore is not set up yet on one of its hosts."""
    return any(not run.facts[member.name].database.alive for member in run.cluster.of("datastore"))


def _planned(run: Run, backup: Opened, file: Path) -> Restoration:
    manifest, cluster = backup.manifest, run.cluster
    changes: dict[str, list[str]] = {}
    if cluster.token.fingerprint() != manifest.token:
        changes[CLUSTER] = [f"the backup's token, of fingerprint {manifest.token}, becomes the cluster's"]
    if not backup.begun.replaced:
        when = f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC"
        for member in cluster.of("servers"):
            changes[member.name] = ["stop K3s"]
        data = f"restore the {manifest.datastore} of {when}, revision {manifest.revision}"
        for name in [member.name for member in cluster.of("datastore")] or ["datastore"]:
            changes.setdefault(name, []).extend([*_kept(run, backup), data])
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
    if not backup.begun.replaced:
        notes.append(revisions.note(run, backup))
    if k3s.minor(cluster.version) != k3s.minor(manifest.k3s_version):
        notes.append(f"K3s {cluster.version} starts with the data of {manifest.k3s_version}: another minor version")
    return Restoration(cluster=cluster.name, file=str(file), manifest=manifest, changes=changes, gone=gone, notes=notes)


def _kept(run: Run, backup: Opened) -> list[str]:
    """Return what is done with the content that is there."""
    number, found = backup.begun.number, backup.fit
    if found is None:
        return [f"keep its content under a name with {number}"]
    if not found.has_table:
        return []
    if not found.lacks:
        return [f"keep its table kine as {rows.KEPT.format(number)}"]
    return [f"keep its content in {_aside(run, number)}, since it cannot be renamed: {found.lacks}"]


def _aside(run: Run, number: str) -> Path:
    return run.store.folder / f"before-restore-{number}{backup_folder.SUFFIX}"


def _anew(run: Run, backup: Opened) -> list[str]:
    """Return the hosts that are in the backup under their node's name, and have lost its password."""
    nodes = {node.name for node in backup.manifest.nodes}
    members = [member for role in NODES for member in run.cluster.of(role) if member.node_name in nodes]
    bare = [m.name for m in members if m.name in run.facts and not run.facts[m.name].node_password]
    return list(dict.fromkeys([*backup.begun.anew, *([] if backup.begun.replaced else bare)]))


def _begin(run: Run, backup: Opened) -> Opened:
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


def _carry_out(nr: Nornir, run: Run, backup: Opened, dump: Path, arguments: Mapping[str, Any]) -> None:
    """Replace the content of the datastore; nobody else may start K3s between the stop and that."""
    if _is_new(run):
        with _phases(run):
            hosts.stop(run, backup.manifest, number=backup.begun.number)
        deploy(nr, **arguments, choice=Choice(until="datastore", ignore_window=True))
        run.use_inventory()  # its password and its CA may be new
    with _phases(run):
        hosts.stop(run, backup.manifest, number=backup.begun.number)
        begun = replace(backup.begun, above=revisions.above(run, backup, dump.parent))
        restoring.save(run.store, begun)  # before the data are replaced, which alone may know it
        _replace(run, backup, dump)
        revisions.go_on_after(run, dump.parent, begun.above)
        restoring.save(run.store, replace(begun, replaced=True))


def _replace(run: Run, backup: Opened, dump: Path) -> None:
    number = backup.begun.number
    if fits.has_rows(backup.manifest):
        rows.replace_rows(run, dump, number=number, keep=lambda reach: _keep(run, reach, number))
    else:
        part = next(one for one in backup.manifest.parts if one.name == fits.dump_part(run, backup.manifest))
        hosts.replace(run, dump, part.sha256, number=number)


def _keep(run: Run, reach: rows.Reach, number: str) -> None:
    """Keep the rows that are there as a backup in the state folder, unless an earlier run has kept the same ones."""
    path, count = _aside(run, number), 1
    while path.exists():  # K3s may have run since
        if backup_file.check(path).revision == reach.table.newest():
            return
        count += 1
        path = _aside(run, f"{number}-{count}")
    try:
        with drafts.folder(run.store.folder, "restore-kept") as folder:
            whole, _ = parts.of_rows(run, rows.write(reach, folder), folder, number=number)
            backup_folder.keep(path.parent, whole, path.name)
    except OSError as error:  # K3s is stopped already
        text = f"{path.parent} cannot be written: {error.strerror}; the datastore has what it had"
        raise K3sError(text, hint="make room there") from None
    run.report.notes.append(f"what was there is in {path}: `nornir-k3s restore` takes it, too")


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


def _deploy(nr: Nornir, run: Run, backup: Opened, arguments: Mapping[str, Any]) -> Report:
    """Start one server, let hosts that were bare join, then do everything else."""
    anew = list(backup.begun.anew)
    if anew:
        deploy(nr, **arguments, choice=Choice(until="first-server", ignore_window=True))
        again = _prepare(nr, arguments)
        with changing(again, "restore"):
            again.phase("observe", [m.name for m in again.cluster.of("servers")], gather.gather_host, reads=True)
            hosts.forget_nodes(again, anew)
        restoring.save(run.store, replace(backup.begun, replaced=True, anew=()))
    return deploy(nr, **arguments, choice=Choice(ignore_window=True))
