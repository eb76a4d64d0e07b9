"""What speaks against a replacement, and what is done before the deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.errors import PreflightFailed, UsageError
from nornir_k3s.workflows import remove, replace

from .conftest import HOSTS
from .test_left import nr

REIMAGED = "s2: the host was reinstalled; expected: x -> y [reimaged]"
OTHER = "s2: port 6443 is in use [port]"


def look(monkeypatch: pytest.MonkeyPatch, folder: Path, *problems: str, name: str = "s2") -> bool:
    """Return whether the node counts as lost, where the preflight finds these problems."""
    asked: list[bool] = []

    def read(run: Any, names: list[str], *, lost: bool, anew: bool) -> list[Any]:
        assert anew, "it joins again with all its roles"
        asked.append(lost)
        return [run.cluster.member(names[0])]

    def plan(*_: object, **__: object) -> None:
        if problems:
            raise PreflightFailed(problems)

    monkeypatch.setattr(remove, "read", read)
    monkeypatch.setattr(replace, "plan", plan)
    _, member = replace._look(nr(HOSTS), name, {"base": folder, "state": folder / "state", "options": None})
    assert member.name == name
    return asked[0]


def test_a_host_that_lost_its_password_is_replaced_whatever_its_old_node_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(monkeypatch, tmp_path, REIMAGED) is False
    assert look(monkeypatch, tmp_path) is True, "one whose K3s has made another password must be seen down"


@pytest.mark.parametrize("problems", [(OTHER,), (REIMAGED, OTHER), (REIMAGED.replace("s2", "s1", 1),)])
def test_a_deploy_that_would_fail_for_another_reason_is_told_before_the_node_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: tuple[str, ...]
) -> None:
    with pytest.raises(PreflightFailed) as caught:
        look(monkeypatch, tmp_path, *problems)
    assert caught.value.problems == [one for one in problems if one != REIMAGED]


def test_a_host_that_is_not_in_the_inventory_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="s9 is not in the inventory"):
        look(monkeypatch, tmp_path, name="s9")
