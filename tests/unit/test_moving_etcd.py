"""What is alive moves to an etcd and back; revisions never get lower; a copy may be killed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k3s_standin.datastore_sql import sqlite_store

from nornir_k3s import Interrupted, K3sError, UsageError
from nornir_k3s.apply import moving as scripts
from nornir_k3s.checks import moving as checks
from nornir_k3s.checks.moving import Origin
from nornir_k3s.datastore_copy import connect, keys
from nornir_k3s.datastore_copy.dialect import DRAFT
from nornir_k3s.datastore_copy.etcd import Etcd, Put
from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.datastore_copy.table import Table
from nornir_k3s.datastore_probe import tls
from nornir_k3s.model.datastore_facts import UNFINISHED, Database
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import moving
from nornir_k3s.run.context import Run
from nornir_k3s.state import revision
from nornir_k3s.workflows import move

from .conftest import HOSTS
from .etcd_gateway import LARGEST, Gateway
from .test_left import prepared
from .test_move import ALONE, Link, bare, link, seen, server

__all__ = ["link"]  # a fixture
BOOTSTRAP = "/bootstrap/0123456789ab"
CONFIG = "datastore-endpoint: https://10.0.0.99:2379\n"
NEWEST = 500


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """SQLite's file of a server: objects, one of them deleted, an event, and what kine keeps for itself."""
    path = tmp_path / "state.db"
    store = sqlite_store(path)
    for name in ("compact_rev_key", BOOTSTRAP, *(f"/registry/configmaps/default/c{number}" for number in range(60))):
        store.create(name, f"of {name}".encode())
    store.delete("/registry/configmaps/default/c7")
    store.put("/registry/configmaps/default/c8", b"changed")
    with connect.sqlite(path) as table:
        table._query(
            "INSERT INTO kine VALUES (?, '/registry/events/e', 1, 0, 0, 0, 3600, x'01', NULL)",
            [NEWEST],
        )
    return path


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@contextmanager
def opened(gateway: Gateway) -> Iterator[Keys]:
    found = Keys(gateway.connect)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def run(tmp_path: Path, link: Link, old: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run from one server on SQLite to an etcd."""
    found = prepared(HOSTS, tmp_path)
    found.facts = seen(ALONE, bare("s2"))
    found.sessions["s1"] = link  # type: ignore[assignment]  # what stands in for it
    monkeypatch.setattr(moving, "_SQLITE", (str(old), f"{old}-wal"))
    monkeypatch.setattr(connect, "opened", lambda *_: opened(gateway))
    monkeypatch.setattr(moving, "_newest", lambda *_: NEWEST)
    return found


def names(gateway: Gateway) -> set[str]:
    return set(gateway.keys)


def test_what_is_alive_gets_revisions_above_all_that_were_seen(run: Run, gateway: Gateway, old: Path) -> None:
    found = moving.copy(run, moving.way(run))
    assert str(found).startswith("59 keys, SHA-256 ")
    with connect.sqlite(old) as table:
        wanted = {one.name: one.value for one in table.live()}
    assert {name: one.value for name, one in gateway.keys.items()} == wanted
    assert not {"compact_rev_key", UNFINISHED, "/registry/configmaps/default/c7"} & set(wanted)
    assert all(one.changed > NEWEST and one.created == one.changed for one in gateway.keys.values())
    by_id = [name for name in wanted if name != BOOTSTRAP]
    assert sorted(by_id, key=lambda name: gateway.keys[name].changed) == by_id, "in the order of their ids"
    event = gateway.keys["/registry/events/e"]
    assert gateway.leases[event.lease] == 3600
    assert gateway.compacted == event.changed, "who comes with an older revision lists again"
    assert gateway.keys[BOOTSTRAP].changed == gateway.revision, "K3s starts only with this"
    # Killed after it: the event ends, and the next run still knows its copy.
    gateway.expire(event.lease)
    assert moving.copy(run, moving.way(run)).rows == 60
    assert run.report.notes[-1].startswith("the new datastore had the copy already")
    gateway.put(Put("/registry/configmaps/default/late", b"").body)
    with pytest.raises(UsageError, match=r"has data already: 61 keys at revision \d+; the old one has 65 rows"):
        moving.copy(run, moving.way(run))


def test_a_copy_that_was_killed_is_begun_again_and_no_k3s_starts_with_it(
    run: Run, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("_lease", "draft", "publish"):
        with monkeypatch.context() as patch:

            def killed(*_: object) -> Any:
                raise KeyboardInterrupt

            patch.setattr(Keys, method, killed)
            with pytest.raises(KeyboardInterrupt):
                moving.copy(run, moving.way(run))
        assert UNFINISHED in names(gateway), method
        assert BOOTSTRAP not in names(gateway), method
        gateway.put(Put("/registry/configmaps/default/of-a-run-before", b"").body)
    moving.copy(run, moving.way(run))
    assert len(names(gateway)) == 61
    assert UNFINISHED not in names(gateway)


def test_a_copy_that_differs_goes_and_one_that_somebody_else_writes_to_stays(
    run: Run, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Keys, "draft", lambda _: "other content")
        with pytest.raises(K3sError, match="the copy differs"):
            moving.copy(run, moving.way(run))
    assert names(gateway) == set()
    with monkeypatch.context() as patch:
        patch.setattr(Etcd, "swap", lambda *_: False)
        with pytest.raises(K3sError, match="somebody else has changed it"):
            moving.copy(run, moving.way(run))
    gateway.put(Put("/bootstrap/of-another-cluster", b"").body)
    with pytest.raises(UsageError, match="K3s needs an etcd of its own"):
        moving.copy(run, moving.way(run))


def test_before_k3s_stops_the_revision_is_raised_and_sizes_are_tried(
    run: Run, gateway: Gateway, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    run.on_step = lambda name, what: told.append(f"{name} {what}")
    monkeypatch.setattr(keys, "_STEP", 200)
    monkeypatch.setattr(keys, "_SHARE", 20)
    moving.rehearse(run, moving.way(run))
    assert gateway.revision >= NEWEST
    assert gateway.compacted > 200, "dummies take no space"
    assert told[0].startswith("s1 raises etcd's revision, ")
    assert names(gateway) == {UNFINISHED}
    moving.rehearse(run, moving.way(run))
    gateway.put(Put("/registry/x", b"").body)
    gateway.put(Put("/bootstrap/x", b"").body)
    with pytest.raises(UsageError, match="has data already: 3 keys"):
        moving.rehearse(run, moving.way(run))
    gateway.keys.clear()
    with connect.sqlite(old) as table, opened(gateway) as new:
        table._query("UPDATE kine SET value = zeroblob(?) WHERE id = 20", [LARGEST])
        with pytest.raises(UsageError, match=f"c17 has {LARGEST} bytes, more than the datastore takes"):
            new.require_room(table)
        gateway.refuses["/v3/kv/put"] = "grpc: received message larger than max (2200000 vs. 2097152)"
        with pytest.raises(UsageError, match="more than the datastore takes"):
            new.require_room(table)
        gateway.refuses["/v3/kv/put"] = "no leader"
        with pytest.raises(K3sError, match="no leader"):
            new.require_room(table)


def test_a_revision_that_is_raised_while_k3s_is_stopped_can_be_stopped(old: Path, gateway: Gateway) -> None:
    def stopped(_: int) -> None:
        raise Interrupted("stopped")

    with connect.sqlite(old) as table, opened(gateway) as new:
        new.on_rows = stopped
        with pytest.raises(Interrupted):
            new.take(table)
    assert names(gateway) == {UNFINISHED}


def test_revisions_of_a_restored_one_go_on_after_those_that_were_seen(gateway: Gateway) -> None:
    keys = Keys(gateway.connect)
    list(keys.etcd.write([Put("/registry/x", b"x")]))
    before = gateway.keys["/registry/x"]
    for after in (1, 300, 300):
        keys.go_on_after(after)
    keys.close()
    assert gateway.revision == 301
    assert gateway.keys == {"/registry/x": before}, "nothing that keeps K3s from starting, or that it has not written"


def test_the_newest_revision_is_that_of_the_api(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "limit=1" in scripts.newest()
    for said, wanted in (("@newest\t4711\n@end\n", 4711), ("@newest\t\n@end\n", 0)):
        run.sessions["s1"] = SimpleNamespace(run=lambda *_, said=said, **__: SimpleNamespace(stdout=said))  # type: ignore[assignment]
        assert moving._newest(run, moving.Way("s1", Origin(None))) == wanted


def filled(gateway: Gateway) -> None:
    """What K3s leaves in an etcd."""
    with opened(gateway) as found:
        lease = found.etcd.grant(3600)
        gateway.leases[lease] = 3000
        puts = [Put(f"/registry/configmaps/default/c{number}", b"x" * number) for number in range(250)]
        puts += [puts[7], Put("/registry/events/e", b"1", lease), Put("compact_rev_key", b"100"), Put(BOOTSTRAP, b"CA")]
        list(found.etcd.write(puts))


def test_a_keys_revision_is_its_rows_id_and_ids_go_on_after_etcds_revision(gateway: Gateway, tmp_path: Path) -> None:
    filled(gateway)
    newest = gateway.revision
    path = tmp_path / "new.db"
    with opened(gateway) as old, connect.sqlite(path) as new:
        before = old.mark()
        gateway.expire(7000)  # an event ends meanwhile: what is read is of one revision
        found = new.take(old)
        assert new.draft() == found
        assert old.mark() == before
        assert (found.rows, found.newest) == (253, newest + 1)
        new.publish(found.newest)
        rows = {row[1]: row for row in new.rows()}
        events = rows["/registry/events/e"]
        assert events[2:] == (1, 0, 0, 0, 1, b"1", None), "its lease has ended"
        assert rows["/registry/configmaps/default/c8"][0] == gateway.keys["/registry/configmaps/default/c8"].changed
        changed = gateway.keys["/registry/configmaps/default/c7"]
        assert rows[changed.name][:6] == (changed.changed, changed.name, 0, 0, changed.created, 0)
        assert rows["compact_rev_key"] == (newest + 1, "compact_rev_key", 1, 0, 0, newest, 0, b"", None)
        gateway.put(Put("/registry/late", b"").body)
        assert old.mark() != before
    store = sqlite_store(path)
    assert store.revision() > newest
    entry = store.get("/registry/configmaps/default/c7")
    assert entry
    assert (entry.value, entry.revision) == (b"x" * 7, changed.changed)


def test_keys_of_one_transaction_get_ids_of_their_own(gateway: Gateway, tmp_path: Path) -> None:
    gateway.change([Put("/registry/a", b"").body, Put("/registry/b", b"").body], [])
    with opened(gateway) as old:
        assert [row[0] for row in old.rows()] == [2, 3, 4]
        assert old.largest() == ("/registry/a", 0)
        assert old.summary() == "2 keys at revision 2"


def test_a_run_from_etcd_knows_its_copy_after_events_have_ended(
    run: Run, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(gateway)
    gateway.change([Put("/registry/x/View", b"").body], [])
    gateway.change([Put("/registry/x/view", b"").body], [])
    run.facts = seen(server("s1", CONFIG), bare("s2"))

    @contextmanager
    def either(endpoint: Any, *_: object) -> Iterator[Keys | Table]:
        with ExitStack() as stack:
            if endpoint.hosts[0][0] == "10.0.0.99":
                yield stack.enter_context(opened(gateway))
            else:
                yield stack.enter_context(connect.sqlite(tmp_path / "new.db"))

    monkeypatch.setattr(connect, "opened", either)
    moving.rehearse(run, moving.way(run))
    with opened(gateway) as keys:
        assert keys.alike() == ["/registry/x/View"]
    assert moving.copy(run, moving.way(run)).rows == 255
    gateway.expire(7000)
    assert moving.copy(run, moving.way(run)).rows == 255
    assert run.report.notes[-1].startswith("the new datastore had the copy already")
    with connect.sqlite(tmp_path / "new.db") as new:
        assert not new.exists(DRAFT)


def test_from_one_etcd_to_another(gateway: Gateway) -> None:
    filled(gateway)
    other = Gateway()
    with opened(gateway) as old, opened(other) as new:
        newest = old.mark()[0]
        found = new.take(old)
        assert new.draft() == found
        new.publish(found.newest)
    assert {name: key.value for name, key in other.keys.items()} == {
        name: key.value for name, key in gateway.keys.items() if name != "compact_rev_key"
    }
    assert min(key.changed for key in other.keys.values()) > newest


def test_a_new_etcd_in_place_of_an_old_one_has_not_gone_back(run: Run) -> None:
    def seen_at(newest: int, **bootstrap: int) -> object:
        run.facts = {"db1": HostFacts("db1", database=Database(revision=newest, bootstrap=bootstrap))}
        revision.save(run.store, run.revision())
        return run.revision().back

    assert seen_at(5000, x=9) is None
    assert seen_at(2) is None, "the inventory has another host, whose etcd has no data yet"
    assert seen_at(5700, x=9) is None, "a move has raised it"
    assert seen_at(5600, x=9) is not None


def test_leases_are_shared_by_so_many_keys(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SHARE", 2)
    with opened(gateway) as new:
        assert [new._lease(seconds) for seconds in (60, 60, 60, 15, 0)] == [7000, 7000, 7001, 7002, 0]


def test_an_etcd_is_opened_with_tls_and_each_member_that_fails_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure, plain = (parse(Secret(f"{one}://10.0.0.8:2379,{one}://10.0.0.9:2379")) for one in ("https", "http"))
    given: list[object] = []
    monkeypatch.setattr(tls, "context", lambda *files: given.append(files))
    sockets = list[Any]()

    def connected() -> Any:
        sockets.append(gateway.connect())
        return sockets[-1]._sock

    monkeypatch.setattr(connect, "_way", lambda *_: connected)
    for endpoint in (plain, secure):
        with connect.opened(endpoint, connect.Files(), SimpleNamespace(), "v1.34.9+k3s1") as found:  # type: ignore[arg-type]
            assert not found.exists()
    assert given == [(None, None, None)]
    gateway.refuses["/v3/kv/range"] = "user name is empty"
    words = r"10\.0\.0\.8:2379: the datastore: user name is empty; 10\.0\.0\.9:2379: the"
    with (
        pytest.raises(K3sError, match=words),
        connect.opened(plain, connect.Files(), SimpleNamespace(), "v1.34.9+k3s1"),  # type: ignore[arg-type]
    ):
        pass
    for one in sockets:
        one.close()


def test_the_plan_tells_what_watchers_notice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = parse(Secret("https://10.0.0.98:2379"))
    run.facts = seen(server("s1", CONFIG), bare("s2"))
    assert "objects keep their resourceVersion" in " ".join(move.planned(run).notes)
    monkeypatch.setattr(checks, "wanted", lambda _: etcd)
    plan = move.planned(run)
    assert plan.changes["cluster"][0].startswith("raise etcd's revision above that of etcd at 10.0.0.99:2379")
    assert "whoever watches the API lists again" in " ".join(plan.notes)
