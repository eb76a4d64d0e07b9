"""The suite itself: what it says by name of its files."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import BY_KIND, FIRST


def test_files_with_a_place_of_their_own_exist() -> None:
    names = {path.name for path in Path(__file__).parents[1].rglob("test_*.py")}
    assert {*FIRST, *BY_KIND} <= names
