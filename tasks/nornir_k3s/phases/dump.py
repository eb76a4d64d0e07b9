"""Phase dump: dump the datastore before a run replaces K3s on a running cluster, or changes a managed datastore."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.apply import datastore_dump
from nornir_k3s.apply import script as apply
from nornir_k3s.checks import upgrade
from nornir_k3s.errors import K3sError
from nornir_k3s.model.report import WayBack
from nornir_k3s.phases.phase import Phase
from nornir_k3s.roles import datastore
from nornir_k3s.run import dump_command
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of
from nornir_k3s.state import backup_folder, drafts

FOLDER = "dumps"  # below the state folder: those of external datastores


def needed(run: Run) -> bool:
    """Return whether this run could damage the data of a running cluster, and this tool dumps them."""
    cluster = run.cluster
    if not run.ready_servers or not (cluster.is_managed or by_rows(run)):
        return False
    for plan in (run.planned(name) for name in run.chosen(m.name for m in run.of("datastore"))):
        packages = [step for step in plan.stage if step.kind == "packages"]
        if packages or any(step.kind != "database" for step in (*plan.by_role["datastore"], *plan.tidy)):
            return True
    return _replaces_k3s(run)


def by_rows(run: Run) -> bool:
    """Return whether the datastore is external and this tool dumps it, with K3s' own login."""
    return not run.cluster.is_managed and not _given(run)


def command(run: Run) -> list[str]:
    """Return the user's command that this run would begin with, or nothing."""
    return _given(run) if run.ready_servers and _replaces_k3s(run) else []


def _replaces_k3s(run: Run) -> bool:
    servers = [m.name for m in run.of("servers") if run.facts[m.name].ledger.installed]
    return any(step.target == k3s.BINARY for name in run.chosen(servers) for step in run.planned(name).stage)


def dump(run: Run) -> None:
    """Dump the datastore if the run could damage it, and note how to go back.

    Raises:
        K3sError: The dump failed.
    """
    place, restore = _made(run) if needed(run) else (_commanded(run, command(run)), "")
    if run.before_upgrade is not None and _replaces_k3s(run):
        before = min(upgrade.running(run.cluster, run.facts).values(), key=k3s.parse_version)
        run.report.way_back = WayBack(version=before, dump=place, restore=restore)
        run.report.notes.append(str(run.report.way_back))


def _dumped(run: Run) -> tuple[str, str]:
    """Dump a managed datastore; return where it is, and the command that restores it."""
    # Every member of an etcd has all data; one that is down cannot be dumped.
    hosts = [m.name for m in run.of("datastore") if run.facts[m.name].database.alive][:1]
    if not hosts:
        run.report.notes.append("the datastore was not dumped: none of its hosts answers")
    for name, (path, size) in run.phase("dump", hosts, _dump_host).items():
        run.report.notes.append(f"{name}: dump of the datastore: {path} ({size / 1024:.0f} KiB)")
        recipe = datastore.kind(run.cluster).dump(run.cluster, run.member(name))
        return f"{name}:{path}", recipe.restore.replace("FILE", path)
    return "", ""


def _made(run: Run) -> tuple[str, str]:
    """Dump the datastore; return where the dump is, and the command that restores it."""
    return _by_rows(run) if by_rows(run) else _dumped(run)


def _by_rows(run: Run) -> tuple[str, str]:
    """Dump an external datastore into a backup on this machine, mode 0600."""
    from nornir_k3s.phases import backup, rows  # noqa: PLC0415 - loads database clients

    if not any(run.facts[name].database.bootstrap for name in rows.reached(run)):
        run.report.notes.append("the datastore was not dumped: by way of no server can K3s' data be read")
        return "", ""
    kept, cluster = run.store.folder / FOLDER, run.cluster.name
    drafts.clean(run.store.folder, "dump")
    try:
        with drafts.folder(run.store.folder, "dump") as folder:
            whole, manifest = backup.of_rows(run, rows.dump(run, folder), folder)
            path = backup_folder.keep(kept, whole, backup_folder.name(cluster, manifest.created))
            backup_folder.thin_out(kept, cluster, datastore_dump.KEPT, new=path.name)
    except OSError as error:
        text = f"the datastore cannot be dumped: {error.filename or kept}: {error.strerror or error}"
        raise K3sError(text, hint="nothing was changed: free disk space there, then run it again") from None
    run.report.notes.append(f"dump of the datastore: {path} ({path.stat().st_size / 1024:.0f} KiB)")
    return str(path), f"nornir-k3s restore {path}"


def now(run: Run) -> None:
    """Dump the datastore, whatever else the run does.

    Raises:
        K3sError: The dump failed.
    """
    if run.cluster.is_managed or by_rows(run):
        _made(run)
    else:
        _commanded(run, _given(run))


def announced(run: Run) -> str:
    """Return what `now` does."""
    if run.cluster.is_managed or by_rows(run):
        return "dump the datastore" if run.cluster.is_managed else f"dump the datastore to {run.store.folder / FOLDER}"
    return f"run datastore.dump_command: {_given(run)[0]}"


def _given(run: Run) -> list[str]:
    return list(getattr(run.cluster.datastore, "dump_command", None) or [])


def _commanded(run: Run, words: list[str]) -> str:
    """Run the user's command; return where it says that the dump is."""
    if not words:
        return ""
    said = dump_command.dump(run, words)
    run.report.phase("dump").hosts.append("controller")
    place = said or f"what {words[0]} wrote"
    run.report.notes.append(f"dump of the datastore, by datastore.dump_command: {place}")
    return place


def _dump_host(task: Task, run: Run) -> Result:
    """Dump the datastore on its own host; the result is the file's path and its size in bytes."""
    cluster, member = run.cluster, run.member(task.host.name)
    lines = datastore_dump.script(
        datastore.kind(cluster).dump(cluster, member),
        database=cluster.managed.database,
        cluster=cluster.name,
        token_fingerprint=cluster.token.fingerprint(),
    )
    answer = session_of(task, run).run(
        apply.wrapped("the dump", lines), what="dumping the datastore", timeout=run.deadlines["packages"]
    )
    with readable(member.name):
        return Result(host=task.host, result=datastore_dump.parse(answer.stdout))


PHASE = Phase("dump", "dump the datastore before a change that could damage it", dump)
