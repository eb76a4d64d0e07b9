"""The state folder of a cluster: shared, damaged, of another account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.errors import Busy, InventoryError, UsageError
from nornir_k3s.run import take_back
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store

from .conftest import Living, known, second


def test_the_state_of_a_folder_that_cannot_be_written_is_in_memory(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = second(living)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.store, "write", refuse)
    take_back.begin(run, living.read)
    assert run.cluster.token == living.cluster.token
    living.facts(run)
    take_back.renew(run, living.read)
    with pytest.raises(UsageError, match="Permission denied"):
        run.store.save("token", "x")


def test_two_runs_do_not_replace_each_other_s_secrets(tmp_path: Path) -> None:
    one, other = (Store(tmp_path / "state", base=tmp_path) for _ in range(2))
    for store in (one, other):
        store.secret("token", None, make=k3s.new_token)
    one.commit()
    before = one.read("token")
    with pytest.raises(Busy, match="another run has made token"):
        other.commit()
    assert one.read("token") == before
    one.take("token", "older\n", "what it was\n")
    assert one.read("token") == "older\n", "for this run"
    assert other.read("token") == before, "somebody has saved another one meanwhile"


def test_a_state_of_another_account_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UsageError, match=r"cannot be read: Permission denied[\s\S]*docs/team.md"):
        Store(tmp_path, base=tmp_path).read("token")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot be written"), Store(tmp_path, base=tmp_path).locked():
        pass


@pytest.mark.parametrize("name", ["token", "members.json", "ca.json", "packages.json"])
@pytest.mark.parametrize("text", [b"\xff\xfe", b'[{"name": '])
def test_a_damaged_file_of_the_state_is_told_in_words(living: Living, name: str, text: bytes) -> None:
    run = known(living)
    if name == "token" and text.isascii():
        return  # any text may be one
    (run.store.folder / name).write_bytes(text)
    store = Store(run.store.folder, base=living.folder)

    def read() -> None:
        second(living)
        known_cluster.ca(store)
        known_cluster.packages(store)

    with pytest.raises((UsageError, InventoryError)) as caught:
        read()
    assert f"{name} is damaged" in str(caught.value)


def test_a_damaged_certificate_of_the_check_is_told_in_words(living: Living) -> None:
    run = known(living)
    (run.store.folder / "lb-check.json").write_text("{")
    with pytest.raises(UsageError, match=r"lb-check\.json is damaged"):
        run.check_certificate()


def test_a_lock_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nornir_k3s.state.store._PATIENCE", 0.01)
    one, other = (Store(tmp_path / "state", base=tmp_path) for _ in range(2))
    with one.locked(), pytest.raises(Busy, match="is held by another process"), other.locked():
        pass
