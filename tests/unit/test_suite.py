"""The suite itself: what it says by name of its files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import tested
from tests.conftest import BY_KIND, FIRST


def test_files_with_a_place_of_their_own_exist() -> None:
    names = {path.name for path in Path(__file__).parents[1].rglob("test_*.py")}
    assert {*FIRST, *BY_KIND} <= names
    ends = {path.name for path in Path(__file__).parents[1].glob("e2e/test_*.py")}
    assert ends <= set(FIRST), "FIRST in tests/conftest.py says when they run"


@pytest.mark.parametrize(("unified", "words"), [(True, "had cgroup v2"), (False, "none was run with cgroup v2")])
def test_the_page_says_which_cgroups_the_machine_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unified: bool, words: str
) -> None:
    if unified:
        (tmp_path / "controllers").touch()
    monkeypatch.setattr(tested, "CONTROLLERS", tmp_path / "controllers")
    tested.write(tmp_path / "tested.md", [])
    assert words in (tmp_path / "tested.md").read_text()


def test_the_table_has_what_passed_and_says_what_was_not_run(tmp_path: Path) -> None:
    def report(*words: str, when: str = "call") -> Any:
        return SimpleNamespace(when=when, user_properties=[("proved", list(words))])

    tested.write(
        tmp_path / "tested.md",
        [
            report("mysql", "9.7.4-2", "sid", "managed", "deploy", "second run"),
            report("mysql", "9.7.4-2", "sid", "managed", "dump"),
            report("mysql", "9.7.4-2", "sid", "managed", "drift", when="teardown"),
            report("mariadb", "1:11.8.9+ds-0+deb13u1", "trixie", "external", "deploy"),
            report("etcd", "3.5.16-4", "trixie", "managed", "deploy"),
        ],
    )
    day = datetime.now(UTC).date()
    expected = [
        f"| trixie | etcd 3.5.16 | managed | yes | not run | - | not run | not run | {day} |",
        f"| trixie | MariaDB 11.8.9 | external | yes | not run | not run | not run | - | {day} |",
        f"| sid | MySQL 9.7.4 | managed | yes | yes | not run | not run | yes | {day} |",
    ]
    assert rows(tmp_path) == expected
    # Another run has only shown something of a newer version of one of them, and of one that is not there yet.
    again = [
        report("mysql", "9.7.5-1", "sid", "managed", "deploy"),
        report("etcd", "3.4.23-4+b3", "bookworm", "managed", "deploy"),
    ]
    tested.write(tmp_path / "tested.md", again)
    assert rows(tmp_path) == [
        f"| bookworm | etcd 3.4.23 | managed | yes | not run | - | not run | not run | {day} |",
        *expected[:2],
        f"| sid | MySQL 9.7.5 | managed | yes | not run | not run | not run | not run | {day} |",
    ]


def rows(folder: Path) -> list[str]:
    return [line for line in (folder / "tested.md").read_text().splitlines() if line.startswith("| ")][1:]
