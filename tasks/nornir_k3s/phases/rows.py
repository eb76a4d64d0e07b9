"""K3s' table, or its keys in an etcd, in a file of SQLite: read and put back by way of a server, with K3s' own login.

So an external datastore can be dumped, and restored, by those who have no access to its host.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import paramiko
from nornir.core.task import Result, Task

from nornir_k3s.datastore_copy import connect, rights, scratch
from nornir_k3s.datastore_copy.connect import Files
from nornir_k3s.datastore_copy.content import Content
from nornir_k3s.datastore_copy.dialect import DRAFT
from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.datastore_copy.table import Table, fill
from nornir_k3s.errors import HostsFailed, Interrupted, K3sError, UsageError
from nornir_k3s.model.backup import ROWS
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.roles import datastore, server
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import session_of
from nornir_k3s.state import drafts

PLAIN = "rows.db"
KEPT = "kine_before_{}"  # what a restore keeps aside; with its number
T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """A dump on the controller.

    Arguments:
        path: Of the file, which gzip has compressed.
        content: What is in it.
        unverified: Why it was not verified; empty if it was, or should not be.
    """

    path: Path
    content: Content
    unverified: str = ""


@dataclass(frozen=True)
class Reach:
    """K3s' table, or its keys in an etcd, opened.

    Arguments:
        table: It.
        endpoint: The login.
        again: Opens another database of the same server.
    """

    table: Table | Keys
    endpoint: Endpoint
    again: Callable[[Endpoint], AbstractContextManager[Table | Keys]]


def reached(run: Run) -> list[str]:
    """Return the servers by way of which the datastore answers, ready ones first; a managed one lets all of them in."""
    servers = sorted((member.name for member in run.of("servers")), key=lambda name: not run.facts[name].ready)
    return servers if run.cluster.is_managed else [one for one in servers if run.facts[one].database.alive]


def on_table(run: Run, folder: Path, title: str, work: Callable[[Reach], T], what: str) -> T:
    """Do something with K3s' table, by way of the first server that gets to it; it ends early when the run is stopped.

    Arguments:
        folder: For files of a moment, which are secret.
        title: Of the Nornir run.
        what: What is done, for people.

    Raises:
        K3sError: No server reaches the datastore, or the work failed.
    """
    servers = reached(run)
    if not servers:
        found = [one.found for member in run.of("servers") for one in run.facts[member.name].datastore]
        why = f": {found[0]}" if found else ""
        raise K3sError(f"no server reaches the datastore{why}", hint="nothing was changed; run status")
    stop, begun = getattr(run.nr.runner, "stop", None), list[str]()

    def on_host(task: Task, run: Run) -> Result:
        name = task.host.name

        def on_rows(number: int) -> None:
            if stop and stop.is_set():
                raise Interrupted(f"{name}: stopped while {what}")
            run.tell(name, f"{what} ({number} rows)")

        run.tell(name, what)
        with drafts.folder(folder, "tls") as at, _reach(run, session_of(task, run).transport, at) as reach:
            begun.append(name)
            reach.table.on_rows = on_rows
            return Result(host=task.host, result=work(reach))

    errors: list[K3sError] = []
    for name in servers:
        try:
            return run.phase(title, [name], on_host)[name]  # type: ignore[no-any-return]  # the T of `work`
        except K3sError as error:
            if begun or isinstance(error, Interrupted):
                raise
            run.nr.data.recover_host(name)  # it may do all else
            errors.append(error)
    raise errors[0] if len(errors) == 1 else HostsFailed(errors)


@contextmanager
def _reach(run: Run, transport: paramiko.Transport, at: Path) -> Iterator[Reach]:
    files = {}
    for key, text in server.tls_texts(run.cluster).items():
        files[key.removeprefix("datastore-")] = path = drafts.private(at, f"{key}.pem")
        path.write_text(text.reveal())

    def opened(endpoint: Endpoint) -> AbstractContextManager[Table | Keys]:
        return connect.opened(endpoint, Files(**files), transport, run.cluster.version)

    endpoint = parse(datastore.endpoint(run.cluster))
    with opened(endpoint) as table:
        yield Reach(table, endpoint, opened)


def dump(run: Run, folder: Path, *, verify: bool = False) -> Rows:
    """Write all rows, as they were in one moment, to a file in the folder, 0600; K3s goes on.

    Raises:
        K3sError: It failed, or what was written differs from what was read.
    """
    return on_table(run, folder, "dump", lambda reach: write(reach, folder, verify=verify), "dumping the datastore")


def write(reach: Reach, folder: Path, *, verify: bool = False) -> Rows:
    """Write all rows to a new file in the folder; the table in it is as K3s makes it in SQLite.

    Arguments:
        verify: Put them into a scratch database, and compare.

    Raises:
        K3sError: It failed, or what was written differs from what was read.
    """
    table, plain = reach.table, drafts.private(folder, PLAIN)
    if not table.exists():
        raise K3sError("the datastore has no data of K3s: there is nothing to dump", hint="deploy the cluster first")
    with connect.sqlite(plain) as rows:
        rows.name = "the dump"
        for setting in ("journal_mode = MEMORY", "synchronous = OFF"):  # a file that is not whole is thrown away
            rows.query(f"PRAGMA {setting}")
        rows.begin()
        rows.on_rows = table.on_rows
        with table.snapshot():
            found = fill(table, rows)
        rows.index()
        if (written := rows.content(DRAFT)) != found:
            raise K3sError(f"the dump differs: {written} instead of {found}", hint="run it again")
        rows.publish(found.newest)
        why = _verified(rows, found, reach) if verify else ""
    packed = drafts.private(folder, ROWS)
    with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    plain.unlink()
    return Rows(packed, found, why)


def _verified(rows: Table, found: Content, reach: Reach) -> str:
    if isinstance(reach.table, Keys):
        return "an etcd has no scratch database"
    return scratch.verify(rows, found, reach.table, reach.endpoint, reach.again)


def unpack(packed: Path, folder: Path) -> Path:
    """Return the plain file of a dump that was checked."""
    plain = drafts.private(folder, PLAIN)
    with gzip.open(packed, "rb") as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return plain


@dataclass(frozen=True)
class Fit:
    """Whether rows can be put in place of the datastore's.

    Arguments:
        problems: Why not.
        lacks: Why the table that is there cannot get another name: its rows are kept in a file on the controller.
        has_table: There is one.
    """

    problems: tuple[str, ...] = ()
    lacks: str = ""
    has_table: bool = True


def fit(run: Run, plain: Path) -> Fit:
    """Look whether the rows of a file can be put in place of the datastore's; what is there stays.

    Raises:
        K3sError: No server reaches the datastore.
    """

    def work(reach: Reach) -> Fit:
        table, endpoint, problems = reach.table, reach.endpoint, list[str]()
        if isinstance(table, Keys):
            with connect.sqlite(plain) as rows:
                try:
                    table.require_room(rows)
                except UsageError as error:
                    problems.append(f"{error.message}: {error.hint}")
            return Fit(tuple(problems), "keys have no other name", table.exists())
        with connect.sqlite(plain) as rows:
            alike = rows.alike() if table.ignores_case else []
        if alike:
            text = "another name differs in its case only, which MySQL and MariaDB cannot hold"
            problems.append(f"{', '.join(alike)}: {text}")
        lacks = rights.for_renaming(table, endpoint)
        if lacks and (missing := rights.for_rows(table, endpoint)):
            problems.append(rights.said(endpoint, missing))
        return Fit(tuple(problems), rights.said(endpoint, lacks) if lacks else "", table.exists())

    return on_table(run, plain.parent, "look at the datastore", work, "looking at its rights")


def replace_rows(run: Run, plain: Path, *, number: str, keep: Callable[[Reach], None]) -> None:
    """Put the rows of a file in place of the datastore's; K3s is stopped. A killed run is finished by the same call.

    Arguments:
        number: Names what is kept.
        keep: Keeps the rows that are there, where the table cannot get another name.

    Raises:
        K3sError: It failed, or what was written differs; the datastore has what it had.
    """

    def work(reach: Reach) -> None:
        table, kept = reach.table, KEPT.format(number)
        with connect.sqlite(plain) as rows:
            rows.name, rows.on_rows = "the backup", table.on_rows
            if isinstance(table, Table) and not rights.for_renaming(table, reach.endpoint):
                if not (table.exists(kept) and table.exists()):  # by an earlier run
                    _beside(rows, table, kept)
                return
            if table.exists():
                before = _state(table)
                keep(reach)
                _require_quiet(table, before)
            if isinstance(table, Keys):
                _into_etcd(rows, table)
            else:
                _in_place(rows, table)

    on_table(run, plain.parent, "datastore", work, "restoring the datastore")


def _beside(rows: Table, table: Table, kept: str) -> None:
    """Fill another table, and let it change places with the one that is there."""
    before = _state(table) if table.exists() else None
    table.begin()
    found = fill(rows, table)
    table.index()
    _require_same(found, table.content(DRAFT))
    if before is not None:
        _require_quiet(table, before)
    table.publish(found.newest, keep=kept if before is not None else "")


def _state(table: Table | Keys) -> tuple[int, int]:
    return table.size() if isinstance(table, Table) else (0, table.etcd.revision())


def _require_quiet(table: Table | Keys, before: tuple[int, int]) -> None:
    """Check that nobody has written since: a server that nobody stopped would go on and write to the restored data.

    Raises:
        K3sError: Somebody has; keys that have ended by themselves do not count.
    """
    if isinstance(table, Keys):
        written = any(True for _ in table.etcd.read(since=before[1] + 1, values=False))
    else:
        written = table.size() != before
    if written:
        text = "somebody goes on writing to the datastore, and K3s was stopped on all servers of the inventory"
        raise K3sError(text, hint="stop K3s on servers that the inventory does not have")


def _in_place(rows: Table, table: Table) -> None:
    """Delete the rows that are there and put in others, in one transaction."""
    if not table.exists():
        for statement in (table.dialect.create, *table.dialect.index):
            table.query(statement.replace(DRAFT, "kine"))
    with table.transaction():
        table.empty()
        found = fill(rows, table, "kine")
        _require_same(found, table.content())
    table.count_on(found.newest)


def _into_etcd(rows: Table, keys: Keys) -> None:
    """Remove the keys that are there and write others; until all are there, no K3s starts with them."""
    keys.require_room(rows)
    keys.empty()
    found = keys.take(rows)
    _require_same(found, keys.draft())
    keys.publish(found.newest)


def _require_same(wanted: Content, found: Content) -> None:
    if found != wanted:
        raise K3sError(f"the datastore differs from the backup: {found} instead of {wanted}", hint="run it again")
