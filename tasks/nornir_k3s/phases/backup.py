"""What a backup reads: a dump of the datastore, and the settings of servers. The dump is removed from its host."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nornir.core.task import Result, Task

from nornir_k3s import k3s, records, shell
from nornir_k3s.apply import datastore_dump, restore
from nornir_k3s.apply import script as apply
from nornir_k3s.checks import upgrade
from nornir_k3s.errors import K3sError, UnreadableAnswer
from nornir_k3s.model.backup import Manifest, Node
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of
from nornir_k3s.ssh.session import Session
from nornir_k3s.state import backup_file, drafts

if TYPE_CHECKING:  # they load database clients
    from nornir_k3s.datastore_copy.content import Content
    from nornir_k3s.phases.rows import Rows

FOLDER = f"{STATE}/backup"  # on the datastore's host, until the dump is on the controller
PIECE = 16 << 20
ENCRYPTION = f"{k3s.DATA}/server/cred/encryption-config.json"
# Parts of each server, by the names of their files.
FILES = {"config.yaml": k3s.CONFIG, "encryption-config.json": ENCRYPTION}


@dataclass(frozen=True)
class Dumped:
    """A dump on the controller.

    Arguments:
        name: Of its part.
        path: Of the file.
    """

    name: str
    path: Path


def dump(run: Run, target: Path, *, verify: bool = False) -> Dumped:
    """Dump a managed datastore to a file on this machine, 0600.

    Arguments:
        verify: Restore the dump into a scratch database of its host, and compare.

    Raises:
        K3sError: No host of the datastore answers, or the dump failed.
    """
    # Every member of an etcd has all data.
    hosts = [member.name for member in run.of("datastore") if run.facts[member.name].database.alive][:1]
    if not hosts:
        raise K3sError("the datastore cannot be dumped: none of its hosts answers", hint="run status; then again")

    def dump_host(task: Task, run: Run) -> Result:
        return Result(host=task.host, result=_dump_host(task, run, target, verify=verify))

    (suffix,) = run.phase("dump", hosts, dump_host).values()
    return Dumped(f"datastore.{suffix}", target)


def _dump_host(task: Task, run: Run, target: Path, *, verify: bool) -> str:
    cluster, member = run.cluster, run.member(task.host.name)
    recipe, link = datastore.kind(cluster).dump(cluster, member), session_of(task, run)
    lines = datastore_dump.script(
        recipe,
        database=cluster.managed.database,
        cluster=cluster.name,
        token_fingerprint=cluster.token.fingerprint(),
        folder=FOLDER,
        kept=1,
    )
    run.tell(member.name, "dumping the datastore")
    answer = link.run(apply.wrapped("the dump", lines), what="dumping the datastore", timeout=run.deadlines["dump"])
    with readable(member.name):
        path, size = datastore_dump.parse(answer.stdout)
    try:
        with readable(member.name):
            _fetch(link, path, size, target, run)
        if verify:
            run.tell(member.name, "verifying the dump")
            script = restore.verify(recipe, path, database=cluster.managed.database)
            link.run(script, what="verifying the dump", timeout=run.deadlines["dump"])
    except (K3sError, OSError):
        with suppress(K3sError):
            _remove(link, path, run)
        raise
    _remove(link, path, run)
    return recipe.suffix


def _remove(link: Session, path: str, run: Run) -> None:
    gone = apply.wrapped("the dump", shell.call("rm", "-f", path))
    link.run(gone, what="removing the dump", timeout=run.deadlines["apply"])


def _fetch(link: Session, path: str, size: int, target: Path, run: Run) -> None:
    """Copy a file of a host to this machine, in pieces, and compare its hash."""
    digest, known = hashlib.sha256(), f"{records.SAY}{shell.source('apply/fetch.sh')}"
    with target.open("wb") as file:
        for number in range(-(-size // PIECE)):
            run.tell(link.host, f"fetching the dump ({number * PIECE >> 20} of {size >> 20} MiB)")
            script = known + shell.call("piece", path, number)
            answer = link.run(script, what="fetching the dump", timeout=run.deadlines["push"])
            (word,) = records.read(answer.stdout, whole=False)["piece"][-1].take(1)
            block = base64.b64decode(word)
            digest.update(block)
            file.write(block)
    answer = link.run(known + shell.call("hash_of", path), what="hashing the dump", timeout=run.deadlines["push"])
    (expected,) = records.read(answer.stdout, whole=False)["hash"][-1].take(1)
    if digest.hexdigest() != expected:
        raise UnreadableAnswer(link.host, f"{path} has the SHA-256 {expected}, {digest.hexdigest()} has arrived")


def settings(run: Run) -> dict[str, Secret]:
    """Return the parts that are read from servers, `servers/NAME/FILE`; one that cannot be read is only a note."""
    names = [member.name for member in run.of("servers")]
    found = run.phase("server settings", names, _settings_of, lenient=names, reads=True)
    return {f"servers/{name}/{file}": text for name, files in found.items() if files for file, text in files.items()}


def _settings_of(task: Task, run: Run) -> Result:
    calls = "\n".join(shell.call("file", name, path) for name, path in FILES.items())
    script = f"{records.SAY}{shell.source('apply/fetch.sh')}{calls}\n"
    answer = session_of(task, run).run(script, what="reading its settings", timeout=run.deadlines["observe"])
    with readable(task.host.name):
        taken = [record.take(2) for record in records.read(answer.stdout, whole=False).get("file", ())]
        return Result(host=task.host, result={name: Secret(records.decoded(word)) for name, word in taken})


def manifest(run: Run, rows: Content | None = None) -> Manifest:
    """Return what is known of the cluster whose data are backed up.

    Arguments:
        rows: What the dump is, where that is known.
    """
    cluster = run.cluster
    found = list(upgrade.running(cluster, run.facts).values())
    found += [one.installed_version for one in run.facts.values() if k3s.is_version(one.installed_version)]
    nodes = [Node(name=m.node_name, role=m.role, address=m.address) for m in cluster.members if m.role in NODES]
    newest = max((one.database.revision for one in run.facts.values()), default=0)
    return Manifest(
        cluster=cluster.name,
        ca=run.ca_prefix,
        k3s_version=max(found, key=k3s.parse_version, default=cluster.version),
        datastore=datastore.spoken(cluster),
        database=parse(datastore.endpoint(cluster)).database,
        revision=rows.newest if rows else newest,
        token=cluster.token.fingerprint(),
        nodes=nodes,
    )


def tokens(run: Run) -> dict[str, Path | Secret]:
    """Return the parts without which the data are useless."""
    agent = {"agent-token": run.cluster.agent_token} if run.cluster.agent_token else {}
    return {"token": run.cluster.token, **agent}


def of_rows(run: Run, rows: Rows, folder: Path, *, number: str = "") -> tuple[Path, Manifest]:
    """Return a file in the folder that `restore` takes, with rows and tokens alone.

    Arguments:
        number: Of the restore that replaces them and has another token already; the one that opens them counts.
    """
    found, parts = manifest(run, rows.content), {rows.path.name: rows.path, **tokens(run)}
    if number and (token := _token_before(run, number)):
        parts["token"], found.token = token, token.fingerprint()
    whole = drafts.private(folder, "file")
    return whole, backup_file.write(whole, found, parts)


def _token_before(run: Run, number: str) -> Secret | None:
    """Return the token of the data that a restore replaces; one of another file may have begun before."""
    names = [f"token.before-restore-{number}"]
    names += sorted(path.name for path in run.store.folder.glob("token.before-restore-*") if path.name != names[0])
    found = [Secret(text.strip()) for name in names if (text := run.store.read(name)) is not None]
    keys = {key for facts in run.facts.values() for key in facts.database.bootstrap}
    fitting = [one for one in (*found, run.cluster.token) if k3s.bootstrap_key(one) in keys]
    return next(iter(fitting or found), None)
