"""A restore: what it refuses, its order, and what a killed run leaves to the next."""

from __future__ import annotations

import gzip
import hashlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core.task import Result, Task

from nornir_k3s import (
    Busy,
    Declined,
    Interrupted,
    K3sError,
    PreflightFailed,
    Report,
    UsageError,
    deploy,
    plan_restore,
    restore,
)
from nornir_k3s.checks import host, network
from nornir_k3s.checks import preflight as checks
from nornir_k3s.errors import ArtifactError, HostsFailed
from nornir_k3s.model.backup import Manifest, Node
from nornir_k3s.model.datastore_facts import Database, DatastoreHealth
from nornir_k3s.model.finding import problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles
from nornir_k3s.model.machine_facts import Space
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import preflight
from nornir_k3s.phases import restore as phases
from nornir_k3s.phases.cluster_lock import ClusterLock
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import backup_file, drafts, encryption, locks, restoring, revision
from nornir_k3s.state.restoring import Restoring
from nornir_k3s.workflows import deploy as deploying
from nornir_k3s.workflows import restore as workflow
from nornir_k3s.workflows import restore_revision as revisions
from nornir_k3s.workflows.restore_file import Opened

from .conftest import SETTINGS
from .test_backup import TOKEN, external, key_pair, nornir
from .test_left import prepared

NODES = [
    Node(name="s1", role="servers", address="10.0.0.12"),
    Node(name="s2", role="servers", address="10.0.0.13"),
    Node(name="a1", role="agents", address="10.0.0.14"),
]
CA = "K10" + "c" * 64
LB = {"lb1": ("10.0.0.15", "lb"), "lb2": ("10.0.0.16", "lb")}


def backup(folder: Path, **changes: Any) -> Path:
    """Write a backup of the cluster, with some fields of its manifest changed."""
    fields: dict[str, Any] = {
        "cluster": "test",
        "ca": CA,
        "k3s_version": SETTINGS["version"],
        "datastore": "mariadb",
        "revision": 77,
        "token": Secret(TOKEN).fingerprint(),
        "nodes": NODES,
    }
    (folder / "dump").write_bytes(gzip.compress(b"rows"))
    path = drafts.private(folder, f"{len(list(folder.iterdir()))}.backup.tar")
    parts: dict[str, Path | Secret] = {"datastore.sql.gz": folder / "dump", "token": Secret(TOKEN)}
    backup_file.write(path, Manifest(**{**fields, **changes}), parts)
    return path


def prepared_run(folder: Path) -> Run:
    return prepared({"db1": ("10.0.0.11", "datastore"), "s1": ("10.0.0.12", "servers")} | LB, folder)


class Hosts:
    """Hosts without a shell: what was done on them, and in which order."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.did = folder, list[str]()
        self.alive, self.ca, self.fails, self.newest = True, CA, "", 90
        self.started = False
        self.bare: set[str] = set()
        self.nodes = ["s1", "s2", "a1"]
        self.down: set[str] = set()
        patch.setattr(gather, "gather_host", self.gathered)
        patch.setattr(gather, "read_facts", lambda task, *_: HostFacts(task.host.name))
        patch.setattr(gather, "find_artifacts", lambda _: None)
        patch.setattr(revisions, "newest", lambda *_: self.newest)
        patch.setattr(revisions, "go_on_after", lambda _, __, after: self.did.append(f"go on after {after}"))
        patch.setattr(phases, "session_of", self.session)
        patch.setattr(phases, "apply_steps", self.applied)
        patch.setattr(workflow, "deploy", self.deploy)
        for check in (host, network):
            patch.setattr(check, "check", lambda *_: ())  # these facts say nothing of a system

    def gathered(self, task: Task, run: Run) -> Result:
        name = task.host.name
        if name in self.down:
            raise K3sError(f"{name}: down")
        roles = {name: ("control-plane",) if name[0] == "s" else () for name in self.nodes}
        nodes = tuple(
            NodeState(one, True, "v1.34.9+k3s1", found, address=f"10.0.0.{one}") for one, found in roles.items()
        )
        ready = not (self.started and name != "s1")  # one server alone
        facts = HostFacts(name, database=Database(alive=self.alive), node_password=name not in self.bare)
        if name[0] == "s":
            facts = replace(facts, api=Api(ready=ready, nodes=nodes), server=ServerFiles(ca_prefix=self.ca))
        run.facts[name] = facts
        return Result(host=task.host)

    def session(self, task: Task, _: Run) -> Any:
        def run(_: str, *, what: str, **__: Any) -> Any:
            if self.fails and self.fails in what:
                self.fails = ""
                raise K3sError(f"{task.host.name}: {what} failed", hint="look")
            self.did.append(f"{what} {task.host.name}")
            return SimpleNamespace(stdout="")

        def push(source: Path, target: str, *, sha256: str, **_: Any) -> None:
            assert hashlib.sha256(source.read_bytes()).hexdigest() == sha256
            assert target == f"{STATE}/restore/dump.sql.gz"
            self.did.append(f"push {task.host.name}")

        return SimpleNamespace(run=run, push=push)

    def applied(self, task: Task, _: Run, steps: Any, **__: Any) -> Result:
        self.did += [step.summary for step in steps]
        return Result(host=task.host)

    def deploy(self, _nr: Any, *, choice: Choice, state: Path, **_: Any) -> Report:
        token = (state / "test" / "token").read_text().strip() if (state / "test" / "token").exists() else ""
        self.did.append(f"deploy {choice.until} {token}".strip())
        self.bare.clear()
        self.alive, self.started = True, choice.until == "first-server"
        if not choice.until:
            (state / "test" / restoring.FILE).unlink()
        return Report(cluster="test")

    def restore(self, file: Path, **more: Any) -> Report:
        given = {key: more.pop(key) for key in list(more) if key not in ("confirm", "key", "lost")}
        state = self.folder / "state"
        return restore(nornir(**given), file, base=self.folder, state=state, options={"whole": True}, **more)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setenv("TOKEN", TOKEN)
    return Hosts(tmp_path, monkeypatch)


STOPPED = ["stopping K3s s1", "stopping K3s s2"]
REPLACED = ["push db1", "restoring the datastore db1", "go on after 90"]


def test_the_order(hosts: Hosts, tmp_path: Path) -> None:
    run = gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={"whole": True})
    revision.save(run.store, replace(revision.look(run.store, run.cluster, 99, now=0), revision=99))
    report = hosts.restore(backup(tmp_path))
    assert sorted(hosts.did[:2]) == STOPPED
    assert hosts.did[2:] == [*REPLACED[:2], "go on after 99", "deploy"]
    assert "what was written since the backup is lost" in " ".join(report.notes)
    assert "revisions go on after the highest one that was seen" in " ".join(report.notes)
    assert restoring.load(run.store) is None
    assert not list((tmp_path / "state" / "test").glob(".restore*"))


def test_revisions_go_on_after_the_newest_one_of_before(hosts: Hosts, tmp_path: Path) -> None:
    """What clients have seen is known before the data go, and by the next run, which does not find it any more."""
    hosts.fails, file = "restoring", backup(tmp_path)  # one: its manifest has the time
    with pytest.raises(K3sError, match="restoring"):
        hosts.restore(file)
    hosts.newest, hosts.did = 77, []
    hosts.restore(file)
    assert "go on after 90" in hosts.did


def test_an_etcd_s_revision_is_not_raised_for_hours(tmp_path: Path) -> None:
    run = prepared_run(tmp_path)
    file = Opened(tmp_path, backup_file.check(backup(tmp_path)), Restoring("abc"))  # of revision 77
    assert revisions.limited(run, file, 300_078) == 300_078
    run.cluster = replace(run.cluster, datastore=run.cluster.managed.model_copy(update={"kind": "etcd"}))
    assert [revisions.limited(run, file, seen) for seen in (300_077, 300_078)] == [300_077, 0]


def test_a_datastore_that_cannot_be_read_any_more_is_restored_all_the_same(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise K3sError("the datastore cannot be opened: Unknown database 'k3s'")

    monkeypatch.setattr(revisions, "newest", gone)
    plan = plan_restore(nornir(), backup(tmp_path), base=tmp_path, state=tmp_path / "state", options={"whole": True})
    assert "afterwards restart k3s-agent on all agents" in " ".join(plan.notes), "no revision is known"
    report = hosts.restore(backup(tmp_path))
    assert "go on after 0" in hosts.did
    assert any("Unknown database 'k3s'): they go on after 0" in note for note in report.notes)

    def stopped(*_: object) -> int:
        raise Interrupted("stopped")

    monkeypatch.setattr(revisions, "newest", stopped)
    with pytest.raises(Interrupted):
        hosts.restore(backup(tmp_path))


def test_a_deploy_ends_what_a_restore_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a later restore of the same file would only deploy."""
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setattr(deploying, "_carry_out", lambda *_: None)
    monkeypatch.setattr(deploying, "changing", lambda *_: nullcontext())
    run = prepared_run(tmp_path)
    restoring.save(run.store, Restoring("abc", replaced=True))
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    for choice in (Choice(until="datastore"), Choice(limit=("s1",))):
        deploy(nornir(), **given, choice=choice)
        assert restoring.load(run.store) is not None
    deploy(nornir(), **given)
    assert restoring.load(run.store) is None


def test_what_ends_a_restore_is_told_before_k3s_stops(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for what is restored, and a release that is not there: both at once."""
    free = {"db1": 1500, "s1": 1023, "s2": 1024}
    health = DatastoreHealth(table=(9, 500 << 20))

    def read(task: Task, *_: object) -> HostFacts:
        space = (Space("/var/lib", free.get(task.host.name, 1), 1, 1), Space("/run", 1, 1, 1))
        return HostFacts(task.host.name, space=space, datastore_health=health)

    def no_release(_: Run) -> None:
        raise ArtifactError("k3s is missing in bundle")

    monkeypatch.setattr(gather, "read_facts", read)
    path = backup(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(gather, "find_artifacts", no_release)
        with pytest.raises(HostsFailed, match="k3s is missing") as caught:
            hosts.restore(path)
        assert "s1: 1023 MiB of disk space are free in /var/lib" in caught.value.message
        assert "db1: 1500 MiB of disk space are free in /var/lib; expected: at least 1524 MiB" in caught.value.message
        assert "s2" not in caught.value.message
        free.update(s1=1024, db1=1524)
        with pytest.raises(ArtifactError):
            hosts.restore(path)
        patch.setattr(gather, "find_artifacts", lambda _: (_ for _ in ()).throw(Interrupted("stopped")))
        with pytest.raises(Interrupted):
            hosts.restore(path)
    assert not hosts.did, "no server was stopped"
    hosts.restore(path)


def test_nothing_is_saved_while_another_controller_works(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(*_: object) -> None:
        raise Busy("ann@ci-7 deploys")

    monkeypatch.setattr(ClusterLock, "require", require)
    with pytest.raises(Busy):
        hosts.restore(backup(tmp_path), token=None)
    assert not hosts.did
    assert not {"token", restoring.FILE} & {path.name for path in (tmp_path / "state" / "test").iterdir()}


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({"cluster": "prod"}, {}, "it is a backup of cluster prod, and this one is test"),
        ({"datastore": "postgresql"}, {}, "has the data of a postgresql, and the datastore is a mariadb"),
        ({"k3s_version": "v1.35.1+k3s1"}, {}, "its nodes ran v1.35.1.k3s1, and the inventory has the older v1.34.9"),
        ({"token": "0" * 12}, {}, "its token has the fingerprint 000000000000, and the `token` of the inventory"),
        ({"token": "0" * 12, "ca": "K10" + "d" * 64}, {"token": None}, "neither its token nor its CA are"),
    ],
)
def test_what_does_not_fit_is_refused(
    hosts: Hosts, tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        hosts.restore(backup(tmp_path, **changes), **settings)
    assert caught.value.hint == "nothing was changed"
    assert not hosts.did


def test_a_dump_of_somebody_s_own_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    path = drafts.private(tmp_path, "own.tar")
    manifest = backup_file.check(backup(tmp_path))
    backup_file.write(path, manifest, {"token": Secret(TOKEN)})
    with pytest.raises(UsageError, match=r"no part datastore\.sql\.gz"):
        hosts.restore(path)


def test_every_reason_is_told_at_once(hosts: Hosts, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of cluster prod.*older v1\.34\.9"):
        hosts.restore(backup(tmp_path, cluster="prod", k3s_version="v1.36.1+k3s1"))


def test_a_damaged_file_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    path = backup(tmp_path)
    path.write_bytes(path.read_bytes().replace(TOKEN.encode(), b"x" * len(TOKEN)))
    with pytest.raises(UsageError, match="token has another hash"):
        hosts.restore(path)
    with pytest.raises(UsageError, match="cannot be read"):
        hosts.restore(tmp_path / "nothing")
    assert not hosts.did


def test_servers_that_are_down_or_not_in_the_inventory_keep_it_from_beginning(hosts: Hosts, tmp_path: Path) -> None:
    hosts.nodes.append("s9")
    with pytest.raises(UsageError, match="server s9 is not in the inventory and may run"):
        hosts.restore(backup(tmp_path))
    hosts.restore(backup(tmp_path), lost=["s9"])
    hosts.did.clear()
    hosts.nodes.remove("s9")
    hosts.down = {"a1", "lb1"}
    hosts.restore(backup(tmp_path))
    hosts.did.clear()
    hosts.down = {"s2"}
    with pytest.raises(K3sError, match="s2: down"):
        hosts.restore(backup(tmp_path))
    assert not hosts.did


def test_what_cannot_go_into_an_external_datastore_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    for work in (plan_restore, restore):
        given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state", "options": {"whole": True}}
        with pytest.raises(UsageError, match=r"no part datastore\.sqlite\.gz: its datastore\.sql\.gz is for the tools"):
            work(external(), backup(tmp_path), **given)
    assert not hosts.did


def test_a_host_that_a_deploy_would_refuse_keeps_it_from_beginning(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = problem("a1", "disk", "1 GiB free in /var/lib", "at least 5 GiB", "free disk space")
    slow = problem("s1", "cpu", "1 CPU core", "at least 2 for a server", "add cores", "warning")
    monkeypatch.setattr(host, "check", lambda _, member, __: [one for one in (full, slow) if one.host == member.name])
    path = backup(tmp_path)
    with pytest.raises(PreflightFailed, match=r"found 1 problem\(s\):\n  - a1: 1 GiB free"):
        hosts.restore(path)
    assert hosts.did == [], "no server was stopped"


def test_a_filtered_inventory_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={})
    some = nornir().filter(filter_func=lambda host: host.name != "s2")
    with pytest.raises(UsageError, match="s2: not in this inventory"):
        plan_restore(some, backup(tmp_path), base=tmp_path, state=tmp_path / "state")


def test_the_plan_changes_nothing(hosts: Hosts, tmp_path: Path) -> None:
    file = backup(tmp_path, nodes=[*NODES[1:], Node(name="s7", role="servers", address="10.0.0.17")])
    hosts.bare = {"a1"}
    found = plan_restore(nornir(version="v1.35.1+k3s1"), file, base=tmp_path, state=tmp_path / "state")
    assert not hosts.did
    assert found.gone == ["s7"]
    assert found.changes["s2"] == ["stop K3s", "start K3s with the restored data"]
    assert "revision 77" in found.changes["db1"][1]
    assert found.changes["a1"] == ["join anew: it was installed since, and has no password of its node"]
    assert "cluster" not in found.changes
    assert found.notes[:2] == [
        "node s7 of the backup is not in the inventory: `nornir-k3s remove s7 --lost`",
        "s1: not in the backup; joined as new",
    ]
    assert "another minor version" in found.notes[-1]
    assert not (tmp_path / "state" / "test" / "restore.json").exists()


def test_no_is_no(hosts: Hosts, tmp_path: Path) -> None:
    with pytest.raises(Declined):
        hosts.restore(backup(tmp_path), confirm=lambda _: False)
    assert not hosts.did
    assert not (tmp_path / "state" / "test" / "restore.json").exists()


def test_the_token_of_the_backup_becomes_the_cluster_s(hosts: Hosts, tmp_path: Path) -> None:
    state = tmp_path / "state" / "test"
    state.mkdir(parents=True)
    (state / "token").write_text("rotated\n")
    hosts.restore(backup(tmp_path), token=None)
    assert hosts.did[-1].split() == ["deploy", TOKEN]
    (kept,) = state.glob("token.before-restore-*")
    assert kept.read_text() == "rotated\n"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_onto_new_hosts(hosts: Hosts, tmp_path: Path) -> None:
    """The datastore is set up first; agents' nodes and servers' node passwords go when a server runs.

    A server that runs by then has found the old password, and registers its own only when it starts again.
    """
    hosts.bare, hosts.alive, hosts.ca = {"s1", "s2", "a1"}, False, ""
    hosts.restore(backup(tmp_path), token=None)
    steps = [one.removesuffix(TOKEN).strip() for one in hosts.did]
    assert sorted(steps[3:5]) == STOPPED, "whatever has started them meanwhile"
    assert [steps[2], *steps[5:]] == [
        "deploy datastore",
        *REPLACED,
        "deploy first-server",
        "deleting node passwords s1",
        "delete node a1 and its secret a1.node-password.k3s",
        "stopping K3s s1",
        "deploy",
    ]
    assert not list((tmp_path / "state" / "test").glob("token.before*"))


def test_a_new_host_of_the_datastore_is_set_up_before_it_has_data_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers that were stopped name the host that it had before."""
    monkeypatch.setenv("TOKEN", TOKEN)
    run = prepared_run(tmp_path)
    moved = problem("s1", "datastore-moved", "K3s is stopped, and used another", "the data", "move")
    monkeypatch.setattr(checks, "check", lambda *_, **__: [moved])
    restoring.save(run.store, Restoring("abc"))
    with pytest.raises(PreflightFailed):
        preflight.check(run)
    run.until = "datastore"
    preflight.check(run)
    restoring.save(run.store, None)
    with pytest.raises(PreflightFailed):
        preflight.check(run)
    given: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    assert gather.prepare(nornir(), **given, options={}, choice=Choice(until="datastore")).until == "datastore"


@pytest.mark.parametrize("where", ["stopping", "restoring", "deleting"])
def test_a_run_that_was_killed_is_finished(hosts: Hosts, tmp_path: Path, where: str) -> None:
    hosts.bare = {"a1", "s2"}
    file, hosts.fails = backup(tmp_path), where
    with pytest.raises(K3sError, match=where) as caught:
        hosts.restore(file)
    assert "run the same command again" in caught.value.hint
    first = restoring.load(gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={}).store)
    assert first is not None
    assert first.replaced == (where == "deleting")
    hosts.did.clear()
    hosts.restore(file)
    assert ("push db1" in hosts.did) == (where != "deleting")
    assert "deleting node passwords s1" in hosts.did
    assert "delete node a1 and its secret a1.node-password.k3s" in hosts.did


def test_a_server_of_the_backup_does_not_keep_it_from_being_finished(hosts: Hosts, tmp_path: Path) -> None:
    hosts.fails, hosts.bare = "deleting", {"s2"}
    file = backup(tmp_path, nodes=[*NODES, Node(name="s9", role="servers", address="10.0.0.19")])
    with pytest.raises(K3sError, match="deleting"):
        hosts.restore(file)
    hosts.nodes.append("s9")
    report = hosts.restore(file)
    assert "node s9 of the backup is not in the inventory: `nornir-k3s remove s9 --lost`" in report.notes


def test_a_run_that_only_finishes_one_says_so(hosts: Hosts, tmp_path: Path) -> None:
    hosts.fails, hosts.bare = "deleting", {"s2"}
    file = backup(tmp_path)
    with pytest.raises(K3sError, match="deleting"):
        hosts.restore(file)
    plan = plan_restore(nornir(), file, base=tmp_path, state=tmp_path / "state")
    assert "stop K3s" not in str(plan.changes)
    (where,) = (note.rpartition(" ")[2] for note in plan.notes if "an earlier run has put these data in place" in note)
    Path(where).unlink()
    hosts.did.clear()
    hosts.restore(file)
    assert "push db1" in hosts.did


def test_nobody_else_deploys_between_the_stop_and_the_data(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took, lock = list[int](), locks.deploy_lock

    def counted(folder: Path) -> Any:
        took.append(len(hosts.did))
        return lock(folder)

    monkeypatch.setattr(locks, "deploy_lock", counted)
    hosts.restore(backup(tmp_path))
    assert took == [0], "one lock from reading and the question to the end"


def test_a_full_disk_is_told_before_anything_is_changed(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_file, "extract", full)
    with pytest.raises(UsageError, match="cannot be written: No space left") as caught:
        hosts.restore(backup(tmp_path))
    assert "nothing was changed" in caught.value.hint
    assert not hosts.did
    assert not (tmp_path / "state" / "test" / "restore.json").exists()


def test_what_a_killed_plan_has_left_goes(hosts: Hosts, tmp_path: Path) -> None:
    left = tmp_path / "state" / "test" / ".restore-plan.x"
    left.mkdir(parents=True)
    (left / "plain").write_text(TOKEN)
    hosts.restore(backup(tmp_path))
    assert not left.exists()


def test_another_file_begins_anew(hosts: Hosts, tmp_path: Path) -> None:
    hosts.fails = "deleting"
    hosts.bare = {"s2"}
    with pytest.raises(K3sError):
        hosts.restore(backup(tmp_path))
    hosts.did.clear()
    hosts.restore(backup(tmp_path, revision=78))
    assert "push db1" in hosts.did
    assert "deleting node passwords s1" in hosts.did
    hosts.fails, hosts.bare = "stopping", set()
    with pytest.raises(K3sError):
        hosts.restore(backup(tmp_path, revision=79))
    hosts.restore(backup(tmp_path, revision=80))


def test_an_encrypted_one_needs_its_key(hosts: Hosts, tmp_path: Path) -> None:
    key, certificate = key_pair(tmp_path)
    encrypted = drafts.private(tmp_path, "encrypted")
    encryption.encrypt(backup(tmp_path), encrypted, certificate)
    with pytest.raises(UsageError, match="is encrypted") as caught:
        hosts.restore(encrypted)
    assert "--key" in caught.value.hint
    hosts.restore(encrypted, key=key)
    assert hosts.did[-1].startswith("deploy")
    assert not list((tmp_path / "state" / "test").glob(".restore*"))
