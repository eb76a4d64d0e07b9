"""Backup and restore of an external etcd, by its JSON gateway; what is alive comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import K3sError, UsageError, k3s, plan_backup, plan_restore, restore
from nornir_k3s.datastore_copy import connect
from nornir_k3s.datastore_copy.etcd import Etcd as Client
from nornir_k3s.datastore_copy.etcd import Put
from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.model.datastore_facts import UNFINISHED
from nornir_k3s.model.secret import Secret
from nornir_k3s.state import backup_file

from .etcd_gateway import Gateway
from .test_backup import TOKEN, external
from .test_rows import Outside, database, nothing_left

__all__ = ["database"]  # a fixture
ETCD: dict[str, Any] = {"kind": "etcd", "password": None, "tls": False}
BOOTSTRAP = k3s.bootstrap_key(Secret(TOKEN))


class Etcd:
    """An external etcd, by way of the servers of `database`."""

    def __init__(self, database: Outside, patch: pytest.MonkeyPatch) -> None:
        self.of, self.gateway = database, Gateway()
        self.write({BOOTSTRAP: "ours"} | {f"/registry/x/{number}": f"one{number}" for number in range(450)})
        patch.setattr(connect, "opened", self.opened)

    @contextmanager
    def opened(self, *_: object) -> Iterator[Keys]:
        found = Keys(self.gateway.connect)
        try:
            yield found
        finally:
            found.close()

    def write(self, values: dict[str, str], lease: int = 0) -> None:
        client = self.gateway.connect()
        list(client.write(Put(name, value.encode(), lease) for name, value in values.items()))
        client.close()

    def has(self) -> dict[str, str]:
        return {name: key.value.decode() for name, key in self.gateway.keys.items()}

    def backup(self) -> Path:
        return Path(self.of.backup(external(**ETCD)).place)

    def restore(self, path: Path) -> None:
        restore(external(**ETCD), path, **self.of.given)


@pytest.fixture
def etcd(database: Outside, monkeypatch: pytest.MonkeyPatch) -> Etcd:
    return Etcd(database, monkeypatch)


def test_it_comes_back_at_higher_revisions_and_what_was_there_is_kept(etcd: Etcd) -> None:
    self_ending = etcd.gateway.connect()
    etcd.write({"/registry/events/e": "soon"}, lease=self_ending.grant(600))
    self_ending.close()
    before = etcd.has()
    path = etcd.backup()
    manifest = backup_file.check(path)
    assert (manifest.datastore, manifest.part("datastore.sqlite.gz") is not None) == ("etcd", True)
    etcd.write({"/registry/x/3": "two", "/registry/x/new": "two", "/bootstrap/of-another": "x"})
    after, revision = etcd.has(), etcd.gateway.revision
    plan = plan_restore(external(**ETCD), path, **etcd.of.given)
    (kept, _) = plan.changes["datastore"]
    assert "given again" not in " ".join(plan.notes)
    assert kept.startswith("keep its content in ")
    etcd.restore(path)
    assert etcd.has() == before
    assert min(key.changed for key in etcd.gateway.keys.values()) > revision, "no client sees a revision twice"
    assert etcd.gateway.leases[etcd.gateway.keys["/registry/events/e"].lease] == 600
    assert sorted(etcd.of.did) == ["deploy", "stop s1", "stop s2"]
    (aside,) = (etcd.of.folder / "state" / "test").glob("before-restore-*")
    etcd.restore(aside)
    assert etcd.has() == after
    assert nothing_left(etcd.of.folder / "state" / "test")


def test_one_that_fails_half_way_starts_no_k3s_and_is_finished_by_the_next(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = etcd.backup(), etcd.has()
    etcd.write({"/registry/x/3": "two"})
    with monkeypatch.context() as patch:
        patch.setattr(Keys, "draft", lambda _: None)
        with pytest.raises(K3sError, match="differs from the backup"):
            etcd.restore(path)
    assert UNFINISHED in etcd.has()
    assert BOOTSTRAP not in etcd.has()
    etcd.restore(path)
    assert etcd.has() == before


def test_no_k3s_starts_while_keys_are_removed_and_what_was_there_is_kept_once(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = etcd.backup(), etcd.has()
    etcd.write({"/registry/x/3": "two"})
    after = etcd.has()
    with monkeypatch.context() as patch:
        delete = Client.delete

        def killed(client: Client, first: str, *, prefix: bool = False) -> None:
            if first == "/registry/":
                raise K3sError("killed")
            delete(client, first, prefix=prefix)

        patch.setattr(Client, "delete", killed)
        with pytest.raises(K3sError, match="killed"):
            etcd.restore(path)
    assert BOOTSTRAP not in etcd.has(), "the data have begun to go"
    etcd.restore(path)
    assert etcd.has() == before
    (aside,) = (etcd.of.folder / "state" / "test").glob("before-restore-*")
    etcd.restore(aside)
    assert etcd.has() == after


def test_it_is_not_verified_and_says_so(etcd: Etcd) -> None:
    options = {"whole": True, "backup": {"verify": True}}
    plan = plan_backup(external(**ETCD), **{**etcd.of.given, "options": options})
    assert plan.steps[:2] == [
        "dump the etcd by way of a server, with the login that K3s has",
        "compare the dump with what was read: an etcd has no scratch database",
    ]
    report = etcd.of.backup(external(**ETCD), verify=True)
    assert (report.verified, report.unverified) == (False, "an etcd has no scratch database")


def test_what_it_does_not_take_is_told_before_anything_goes(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    path = etcd.backup()
    monkeypatch.setattr("tests.unit.etcd_gateway.LARGEST", 1)
    with pytest.raises(UsageError, match="more than the datastore takes: raise --max-request-bytes"):
        etcd.restore(path)
    assert len(etcd.has()) == 451, "no mark of a copy that is not whole, either"
    assert etcd.of.did == [], "no server was stopped"


def test_rows_of_a_database_go_into_an_etcd(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(connect, "opened", etcd.of.opened)
        path = Path(etcd.of.backup(external()).place)
    etcd.gateway.keys.clear()
    etcd.restore(path)
    assert len(etcd.has()) == 450
    assert etcd.has()["/registry/x/449"] == "one" * 449
