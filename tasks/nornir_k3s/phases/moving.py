"""Phases of a move: set the new datastore up, stop K3s on all servers, copy, compare, and let K3s start again.

Until the copy is whole the new datastore has no table of K3s' name, and K3s stays stopped: nothing can start with half
of the data. The old datastore is only read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nornir.core.task import Result, Task

from nornir_k3s.apply import moving as scripts
from nornir_k3s.checks import datastore as datastore_checks
from nornir_k3s.checks import moving as checks
from nornir_k3s.checks import other_installs, preflight
from nornir_k3s.datastore_copy import connect
from nornir_k3s.datastore_copy.connect import Files
from nornir_k3s.datastore_copy.dialect import DRAFT
from nornir_k3s.datastore_copy.table import Content, Table, fill
from nornir_k3s.errors import Interrupted, K3sError, PreflightFailed, UsageError
from nornir_k3s.model.together import together
from nornir_k3s.phases import datastore, stage, window
from nornir_k3s.records import data, read
from nornir_k3s.roles import server
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of

FOLDER = "moving"  # of the state folder: the files of the old datastore, while they are needed
_SQLITE = tuple(f"{other_installs.SQLITE}{suffix}" for suffix in ("", "-wal"))


def require_sound(run: Run) -> None:
    """Check every host, but for what the move itself changes.

    Raises:
        PreflightFailed: A check failed.
    """
    hosts = {m.name: run.facts[m.name] for role in ("datastore", "servers") for m in run.of(role)}
    probed = hosts if run.cluster.is_managed else {m.name: run.facts[m.name] for m in run.of("servers")}
    expected = {*datastore_checks.emptied(run.cluster, probed, run.facts), *checks.abandoned(run.cluster, run.facts)}
    found = preflight.check(run.cluster, run.facts, run.address)
    run.report.findings = [one for one in found if one not in expected and one.subject not in ("sqlite", "moving")]
    if errors := [one for one in run.report.findings if one.severity == "error"]:
        raise PreflightFailed(errors, together(errors))


def prepare(run: Run) -> None:
    """Set up the new datastore, and stage what hosts need that do not run K3s yet: the cluster goes on meanwhile."""
    names = [name for name in run.names if run.planned(name).stage and not checks.installed(run.facts[name])]
    run.phase("stage", names, stage.stage_host, width=run.widths["stage"])
    datastore.prepare(run)


def stop(run: Run) -> None:
    """Stop K3s on all servers that have it: from here on nobody writes to the old datastore."""
    run.phase("stop", servers(run), _script(scripts.stop, "stopping K3s"))


def require_open(run: Run) -> None:
    """Check that K3s may be stopped now.

    Raises:
        OutsideWindow: The maintenance window is closed.
    """
    window.require_open(run, [name for name in servers(run) if run.facts[name].in_service])


def servers(run: Run) -> list[str]:
    """Return the servers that are on the old datastore."""
    return list(checks.origins(run.cluster, run.facts))


def go_back(run: Run, names: Collection[str]) -> None:
    """Start K3s on these servers again, as it was before."""
    run.phase("back", names, _script(scripts.back, "going back"))


def go_on(run: Run) -> None:
    """Let K3s start on the servers."""
    run.phase("go on", servers(run), _script(scripts.end, "ending the move"))


def _script(script: Callable[[], str], what: str) -> Callable[[Task, Run], Result]:
    def on_host(task: Task, run: Run) -> Result:
        session_of(task, run).run(script(), what=what, timeout=run.deadlines["apply"])
        return Result(host=task.host, changed=True)

    return on_host


@dataclass(frozen=True)
class Way:
    """Where the data come from, and where they go.

    Arguments:
        via: The server whose SSH connection both ways use; it has the old datastore's files.
        origin: What the servers run on.
    """

    via: str
    origin: checks.Origin


def way(run: Run) -> Way:
    """Return the way of a run whose hosts were read, and that was not refused."""
    via, origin = next(iter(checks.origins(run.cluster, run.facts).items()))
    return Way(via, origin)


@contextmanager
def folder(run: Run) -> Iterator[Path]:
    """Yield an empty folder on the controller, 0700, for secret files; it is gone afterwards."""
    path = run.store.folder / FOLDER
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(mode=0o700)
        yield path
    except OSError as error:
        raise K3sError(f"{error.filename or path}: {error.strerror or error}", hint="make room there") from None
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def source(run: Run, way: Way, at: Path) -> Iterator[Table]:
    """Yield the table of the old datastore; SQLite's is copied to the controller first.

    Raises:
        K3sError: It cannot be read.
    """
    if way.origin.endpoint is None:
        fetch(run, way.via, dict(zip(_SQLITE, (at / "state.db", at / "state.db-wal"), strict=True)))
        with connect.sqlite(at / "state.db") as table:
            table.name = "the old datastore"
            yield table
        return
    paths = {path: at / f"old-{key}" for key, path in way.origin.files.items()}
    fetch(run, way.via, paths)
    files = Files(**{key.removeprefix("datastore-"): paths[path] for key, path in way.origin.files.items()})
    with connect.opened(way.origin.endpoint, files, run.sessions[way.via].transport, run.cluster.version) as table:
        table.name = "the old datastore"
        yield table


@contextmanager
def target(run: Run, way: Way, at: Path) -> Iterator[Table]:
    """Yield the table of the new datastore.

    Raises:
        K3sError: It cannot be opened.
    """
    files = {}
    for key, text in server.tls_texts(run.cluster).items():
        files[key.removeprefix("datastore-")] = path = at / f"new-{key}"
        path.touch(mode=0o600)
        path.write_text(text.reveal())
    transport = run.sessions[way.via].transport
    with connect.opened(checks.wanted(run.cluster), Files(**files), transport, run.cluster.version) as table:
        table.name = "the new datastore"
        yield table


def rehearse(run: Run, way: Way) -> None:
    """Check before K3s stops that the copy can be made: logins, the right to make a table, names.

    Raises:
        K3sError: It cannot; nothing was changed.
    """
    with folder(run) as at, target(run, way, at) as new:
        if new.exists():
            return  # `copy` looks whether it is the copy of an interrupted run
        new.begin()
        new.drop()
        if way.origin.endpoint:
            with source(run, way, at) as old:
                _require_names(old, new)


def _require_names(old: Table, new: Table) -> None:
    if new.dialect.ignores_case > old.dialect.ignores_case and (names := old.alike()):
        text = f"{', '.join(names)}: another name differs in its case only, which MySQL and MariaDB cannot hold"
        raise UsageError(text, hint="rename one of the objects, or move to PostgreSQL")


def copy(run: Run, way: Way) -> Content:
    """Copy the table, compare it, and make it K3s'; K3s is stopped.

    Raises:
        K3sError: It failed, or the copy differs; the new datastore has no table for K3s then, or another one.
    """
    with ExitStack() as stack:
        at = stack.enter_context(folder(run))
        old = stack.enter_context(source(run, way, at))
        new = stack.enter_context(target(run, way, at))
        if not old.exists():
            raise K3sError(f"{way.origin} has no table kine", hint="it is no datastore of K3s")
        if new.exists():
            return _same(run, old, new)
        _require_names(old, new)
        new.begin()
        found = fill(old, new)
        new.index()
        written = new.content(DRAFT)
        if written != found or old.size() != (found.rows, found.newest):
            new.drop()
            raise K3sError(f"the copy differs: {written} instead of {found}", hint="run it again")
        new.publish(found.newest)
        return found


def _same(run: Run, old: Table, new: Table) -> Content:
    """Return the content where an interrupted run has made the copy already.

    Raises:
        UsageError: The new datastore has other data.
    """
    there, wanted = new.size(), old.size()
    if there == wanted and (found := new.content()) == old.content():
        run.report.notes.append("the new datastore had the copy already, of an interrupted run")
        return found
    has, had = (f"{rows} rows up to id {newest}" for rows, newest in (there, wanted))
    text = f"the new datastore has data already: {has}; the old one has {had}"
    raise UsageError(
        text, hint="nothing is overwritten: use an empty database, or drop its table kine if it is not needed"
    )


def fetch(run: Run, name: str, paths: Mapping[str, Path]) -> None:
    """Copy files of a server to the controller, 0600, in pieces; those that it does not have are left out.

    Arguments:
        paths: On the server, and on the controller.

    Raises:
        K3sError: A file changed meanwhile, or was damaged.
    """

    def on_host(task: Task, run: Run) -> Result:
        for path, to in paths.items():
            _fetch(task, run, path, to)
        return Result(host=task.host)

    run.phase("read", [name], on_host)


def _fetch(task: Task, run: Run, path: str, to: Path) -> None:
    link, name = session_of(task, run), task.host.name
    text = link.run(scripts.sizes(path), what=f"reading {path}", timeout=run.deadlines["dump"]).stdout
    with readable(name):
        for record in read(text).get("size", ()):
            _, size, sha256 = record.take(3)
            to.touch(mode=0o600)
            digest = hashlib.sha256()
            with to.open("wb") as file:
                for number in range(-(-int(size) // (scripts.PIECE << 20))):
                    run.tell(name, f"reads {path}: {number * scripts.PIECE} of {int(size) >> 20} MiB")
                    answer = link.run(
                        scripts.piece(path, number), what=f"reading {path}", timeout=run.deadlines["push"]
                    )
                    piece = data(read(answer.stdout)["piece"][0].take(1)[0])
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != sha256:
                raise K3sError(f"{name}: {path} changed while it was read", hint="is something else using it?")


def stop_and_copy(run: Run, way: Way) -> Content:
    """Stop K3s, copy the table and compare it; after a failure K3s is started again as it was before.

    Raises:
        K3sError: It failed, and whether K3s could be started again. Interrupted: by Ctrl-C.
    """
    require_open(run)
    try:
        stop(run)
        found = copy(run, way)
    except (Exception, KeyboardInterrupt) as raised:
        error = Interrupted("stopped while the table was copied") if isinstance(raised, KeyboardInterrupt) else raised
        said = _gone_back(run)
        if not isinstance(error, K3sError):
            raise
        error.message += f"\n{said}"
        raise error from None
    go_on(run)
    return found


def _gone_back(run: Run) -> str:
    """Go back, and return whether that was possible: after the stop event nothing is done on hosts any more."""
    try:
        go_back(run, servers(run))
    except K3sError as failed:
        return f"K3s stays stopped: {failed.message}"
    return "K3s was started again on the old datastore, which was not changed"
