"""backup: one file with the datastore's dump and what the data are useless without."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import Interrupted, K3sError, UsageError
from nornir_k3s.model.backup import ROWS, Backup, BackupOptions
from nornir_k3s.model.report import ErrorReport
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import backup as parts
from nornir_k3s.phases import rows, servers
from nornir_k3s.phases.changing import changing
from nornir_k3s.roles import datastore
from nornir_k3s.run import dump_command, gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.state import backup_file, backup_folder, backups, drafts, encryption, revision

_SCRATCH = "restore the dump into a scratch database{} there, compare, and remove it"
_VERIFY = {
    "": _SCRATCH.format(""),
    "etcd": "compare the dump with what was read: an etcd has no scratch database",
    **dict.fromkeys(("mysql", "postgresql"), _SCRATCH.format(", or table,")),
}
_HINT = "no backup was made: correct the command, then run it again"


def backup(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backup:
    """Make a backup: the datastore's dump, tokens, settings of servers, encryption config, and a manifest, in one file.

    Nothing restarts, and no deploy runs meanwhile. A killed run leaves no file that looks whole.

    Arguments:
        nr: A Nornir with the datastore and the servers of the cluster.
        base, state: As for `deploy`.
        options: As for `deploy`, and `backup`: a `BackupOptions`, or a mapping of its fields.

    Returns:
        The report.

    Raises:
        UsageError: An option is wrong.
        K3sError: There is no backup; its `report` has what was done.
        Busy: A deploy is in progress.
    """
    run, wanted = prepare(nr, base, state, options)
    report = planned(run, wanted).model_copy(update={"planned": False})
    try:
        with changing(run, "backup"):
            read(run)
            make(run, wanted, report)
    except (K3sError, KeyboardInterrupt) as raised:
        error = raised if isinstance(raised, K3sError) else Interrupted("stopped", hint="run it again")
        report.outcome = "interrupted" if isinstance(error, Interrupted) else "failed"
        report.error = ErrorReport(kind=type(error).__name__, message=error.message, next=error.hint)
        error.report = report
        raise error from None
    return report


def read(run: Run) -> None:
    """Read the datastore and the servers; only where nothing else could be dumped must they be reachable.

    Raises:
        HostUnreachable: The only host of the datastore is down.
    """
    stores, nodes = ([n for n in _names(run, role) if n in run.present] for role in ("datastore", "servers"))
    spare = {*nodes, *(stores if len(stores) > 1 else ())} - set(stores if len(stores) == 1 else ())
    run.phase("observe", dict.fromkeys([*stores, *nodes]), gather.gather_host, lenient=spare, reads=True)
    gather.take_over(run, lenient=spare)


def plan_backup(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backup:
    """Return what `backup` would do; no host is contacted.

    Arguments:
        nr, base, state, options: As for `backup`.

    Raises:
        UsageError: The inventory or an option is wrong.
    """
    return planned(*prepare(nr, base, state, options))


def prepare(
    nr: Nornir, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None
) -> tuple[Run, BackupOptions]:
    """Return the run of a backup, and where it goes; no host is contacted.

    Raises:
        UsageError: The inventory or an option is wrong.
    """
    folders, given = paths.of(nr, base, state), complete(nr, options)
    run = gather.prepare(nr, base=folders.base, state=folders.state, options=given, keep=False, artifacts=False)
    wanted = BackupOptions.model_validate(given.get("backup") or {})
    if wanted.certificate and not wanted.certificate.is_file():
        raise UsageError(
            f"{wanted.certificate} is not a file", hint="give the certificate that backups are encrypted for"
        )
    role, what = ("datastore", "the datastore is") if run.cluster.is_managed else ("servers", "the servers are")
    dumped_here = role == "servers" and _dump_command(run)
    if run.away and not dumped_here and not set(_names(run, role)) & set(run.present):
        raise UsageError(f"{what} not in this inventory", hint="run with the whole inventory")
    return run, wanted


def _names(run: Run, role: str) -> list[str]:
    return [member.name for member in run.cluster.of(role)]


def planned(run: Run, wanted: BackupOptions) -> Backup:
    """Return what a backup does in this run."""
    if run.cluster.is_managed:
        where = " or ".join(_names(run, "datastore"))
        steps = [f"dump the {datastore.spoken(run.cluster)} on {where}, and remove the dump there afterwards"]
    elif words := _dump_command(run):
        steps = [f"dump the {datastore.spoken(run.cluster)} with {words[0]} (datastore.dump_command)"]
    else:
        steps = [f"dump the {datastore.spoken(run.cluster)} by way of a server, with the login that K3s has"]
    if wanted.verify and not _dump_command(run):
        steps.append(_VERIFY[datastore.spoken(run.cluster) if not run.cluster.is_managed else ""])
    steps.append("read config.yaml and the encryption config of each server")
    what = (
        f"put both, and the cluster's {'tokens' if run.cluster.agent_token else 'token'}, into one file with a manifest"
    )
    steps.append(what)
    if wanted.certificate:
        steps.append(f"encrypt it for the key of {wanted.certificate}")
    if wanted.command:
        steps.append(f"pass it to {wanted.command[0]} on its standard input")
    else:
        steps.append(f"write it to {_folder(run, wanted)}, and keep the newest {wanted.keep} there")
    report = Backup(cluster=run.cluster.name, planned=True, encrypted=bool(wanted.certificate), steps=steps)
    if not wanted.certificate:
        report.notes.append("it is not encrypted: whoever has the file has the cluster's token and data")
    if wanted.verify and _dump_command(run):
        report.unverified = "datastore.dump_command dumps it"
        report.notes.append(f"not verified: {report.unverified}")
    return report


def _dump_command(run: Run) -> Sequence[str]:
    return getattr(run.cluster.datastore, "dump_command", None) or ()


def _folder(run: Run, wanted: BackupOptions) -> Path:
    return wanted.folder or run.store.folder / "backups"


def make(run: Run, wanted: BackupOptions, report: Backup) -> None:
    """Make a backup in a run whose hosts were read, and add what was done to the report.

    Raises:
        K3sError: There is none.
    """
    require_token(run)
    seen = run.revision()
    if seen.back:
        report.notes.append(f"{seen.back}; this is a backup of what is there now")
    with _drafts(run.store.folder) as folder:
        content: dict[str, Path | Secret] = {}
        dump: rows.Rows | None = None
        if run.cluster.is_managed:
            dumped = parts.dump(run, drafts.private(folder, "dump"), verify=wanted.verify)
            report.verified, content[dumped.name] = wanted.verify, dumped.path
        elif _dump_command(run):
            content |= _commanded(run, report)
        else:
            dump = _rows(run, wanted, report, folder)
            content[ROWS] = dump.path
        content |= parts.tokens(run)
        own = parts.settings(run)
        missing = [name for name in _names(run, "servers") if not any(key.split("/")[1] == name for key in own)]
        if missing:
            report.notes.append(f"without the settings of {', '.join(missing)}: not read")
        whole = drafts.private(folder, "file")
        report.manifest = backup_file.write(whole, parts.manifest(run, dump.content if dump else None), content | own)
        name = backup_folder.name(run.cluster.name, report.manifest.created)
        if wanted.certificate:
            encrypted, name = drafts.private(folder, "encrypted"), name + encryption.SUFFIX
            encryption.encrypt(whole, encrypted, wanted.certificate)
            whole = encrypted
        with whole.open("rb") as file:
            report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        report.bytes = whole.stat().st_size
        if wanted.command:
            report.place = _pass(run, wanted.command, whole, name)
        else:
            report.place = str(backup_folder.keep(_folder(run, wanted), whole, name))
            folder_of = _folder(run, wanted)
            report.removed = backup_folder.thin_out(folder_of, run.cluster.name, wanted.keep, new=name)
    revision.save(run.store, seen)
    created, why = report.manifest.created, report.unverified
    backups.save(run.store, created, report.place, verified=report.verified, unverified=why)
    report.notes += [note for note in run.report.notes if note not in report.notes]
    report.outcome = "ok"


def _rows(run: Run, wanted: BackupOptions, report: Backup, folder: Path) -> rows.Rows:
    """Dump an external datastore with K3s' own login."""
    found = rows.dump(run, folder, verify=wanted.verify)
    report.verified, report.unverified = wanted.verify and not found.unverified, found.unverified
    if found.unverified:
        report.notes.append(f"not verified: {found.unverified}; the file has {found.content}, read back and compared")
    return found


def _commanded(run: Run, report: Backup) -> dict[str, Path | Secret]:
    """Run the user's command that dumps the datastore; the file that it names is a part of the backup."""
    words = _dump_command(run)
    said = dump_command.dump(run, words, hint=_HINT)
    if said and (path := run.store.base / said).is_file():
        return {"datastore.dump": path}
    report.notes.append(f"the dump is not in the file: {words[0]} put it to {said or 'where it does not say'}")
    return {}


def require_token(run: Run) -> None:
    """Check that the token opens the data: without the right one a backup cannot be restored.

    Raises:
        K3sError: The datastore has no data of this token.
    """
    if not servers.has_data(run):
        if not any(one.database.alive for one in run.facts.values()):
            return  # told by the dump
        text = "the datastore has no data of the cluster's token: a backup could not be restored"
        raise K3sError(
            text, hint="deploy the cluster first; after a rotation of the token, give the new one as `token`"
        )


@contextmanager
def _drafts(state: Path) -> Iterator[Path]:
    """Make a folder for files that are not whole yet; those of killed runs go."""
    drafts.clean(state, "backup")
    try:
        with drafts.folder(state, "backup") as folder:
            yield folder
    except OSError as error:
        where = error.filename or state
        hint = "see `backup.folder` and `state`"
        raise UsageError(f"{where} cannot be written: {error.strerror}", hint=hint) from None


def _pass(run: Run, command: Sequence[str], whole: Path, name: str) -> str:
    with whole.open("rb") as file:
        said = dump_command.carry_out(
            command,
            {"K3S_CLUSTER": run.cluster.name, "K3S_BACKUP": name},
            folder=run.store.base,
            secrets=run.cluster.secrets(),
            deadline=run.deadlines["dump"],
            stop=run.stop or threading.Event(),
            stdin=file,
            what="the backup command",
            hint=_HINT,
        )
    return said or f"{name}, which {command[0]} got"
