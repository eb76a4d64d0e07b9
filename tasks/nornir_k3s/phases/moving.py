"""Phases of a move: set the new datastore up, stop K3s on all servers, copy, compare, and let K3s start again.

Until the copy is whole K3s finds no table of its name in the new datastore, or a bootstrap key of another token in an
etcd, and it stays stopped: nothing can start with half of the data. The old datastore is only read.
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
from nornir_k3s.datastore_copy.content import Content, lasting
from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.datastore_copy.table import Table
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
def source(run: Run, way: Way, at: Path) -> Iterator[Table | Keys]:
    """Yield the table or keys of the old datastore; SQLite's is copied to the controller first.

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
def target(run: Run, way: Way, at: Path) -> Iterator[Table | Keys]:
    """Yield the table or keys of the new datastore.

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
    """Check before K3s stops that the copy can be made: logins, rights, names, sizes; raise an etcd's revision.

    Raises:
        K3sError: It cannot; nothing was changed.
    """
    with folder(run) as at, target(run, way, at) as new:
        if new.exists():
            running = any(checks.runs(run.facts[name]) for name in servers(run))
            if running and not checks.stopped(run.cluster, run.facts):
                raise _full(new)
            return  # `copy` looks whether it is the copy of an interrupted run, whose mark may be gone already
        new.try_out()
        if way.origin.endpoint:
            with source(run, way, at) as old:
                _require_names(old, new)
                if isinstance(new, Keys):
                    new.require_room(old)
        if isinstance(new, Keys):
            new.raise_to(_newest(run, way), lambda now: run.tell(way.via, f"raises etcd's revision, {now} by now"))


def _newest(run: Run, way: Way) -> int:
    """Return the revision that the API of a server tells; 0 if it does not answer."""
    answer = run.sessions[way.via].run(scripts.newest(), what="asking the API", timeout=run.deadlines["apply"])
    (newest,) = read(answer.stdout)["newest"][0].take(1)
    return int(newest) if newest.isdigit() else 0


def _require_names(old: Table | Keys, new: Table | Keys) -> None:
    if new.ignores_case > old.ignores_case and (names := old.alike()):
        text = f"{', '.join(names)}: another name differs in its case only, which MySQL and MariaDB cannot hold"
        raise UsageError(text, hint="rename one of the objects, or move to PostgreSQL")


def copy(run: Run, way: Way) -> Content:
    """Copy all rows or keys, compare them, and make them K3s'; K3s is stopped.

    Raises:
        K3sError: It failed, or the copy differs; no K3s can start with the new datastore then, or it has other data.
    """
    with ExitStack() as stack:
        at = stack.enter_context(folder(run))
        old = stack.enter_context(source(run, way, at))
        new = stack.enter_context(target(run, way, at))
        if not old.exists():
            raise K3sError(f"{way.origin} has no data of K3s", hint="it is no datastore of K3s")
        before = old.mark()
        if new.exists():
            return _same(run, old, new)
        _require_names(old, new)
        found = new.take(old)
        written = new.draft()
        if written != found or old.mark() != before:
            new.drop()
            raise K3sError(f"the copy differs: {written} instead of {found}", hint="run it again")
        new.publish(found.newest)
        return found


def _same(run: Run, old: Table | Keys, new: Table | Keys) -> Content:
    """Return the content where an interrupted run has made the copy already.

    Raises:
        UsageError: The new datastore has other data.
    """
    if isinstance(old, Table) and isinstance(new, Table):
        same = new.mark() == old.mark() and new.content() == old.content()
    else:  # an etcd's keys end by themselves meanwhile
        same = lasting(new.live()) == lasting(old.live())
    if not same:
        raise _full(new, f"; the old one has {old.summary()}")
    run.report.notes.append("the new datastore had the copy already, of an interrupted run")
    return lasting(new.live()) if isinstance(new, Keys) else new.content()


def _full(new: Table | Keys, more: str = "") -> UsageError:
    hint = "nothing is overwritten: use an empty database, or drop its table kine if it is not needed"
    if isinstance(new, Keys):
        hint = "nothing is overwritten: K3s needs an etcd of its own; remove its keys if they are not needed"
    return UsageError(f"the new datastore has data already: {new.summary()}{more}", hint=hint)


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
