"""One writer for every file that this tool makes on the controller."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nornir_k3s import atomic_file


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o177])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["text ä\n", b"\x00bytes"])
def test_a_file_is_written_private_and_replaced(tmp_path: Path, umask: int, content: str | bytes) -> None:
    path = tmp_path / "file"
    for old in (None, 0o644):
        if old:
            path.write_text("old")
            path.chmod(old)
        atomic_file.write(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_exact_or_the_umask_s(tmp_path: Path, umask: int) -> None:
    atomic_file.write(tmp_path / "exact", "", mode=0o644)
    atomic_file.write(tmp_path / "usual", "", mode=None)
    assert mode(tmp_path / "exact") == 0o644
    assert mode(tmp_path / "usual") == 0o666 & ~umask


def test_a_draft_is_never_open_to_others(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = os.fdopen

    def fdopen(descriptor: int, mode: str) -> object:
        opened.append(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
        return real(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", fdopen)
    atomic_file.write(tmp_path / "secret", "secret")
    atomic_file.write(tmp_path / "later-readable", "text", mode=0o644)
    assert opened == [0, 0]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "file").symlink_to("other")
    atomic_file.write(tmp_path / "file", "new")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "other").read_text() == "other"


def test_a_draft_s_name_that_is_taken_is_neither_followed_nor_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0")
    (tmp_path / "other").write_text("other")
    (tmp_path / ".file.0").symlink_to("other")
    with pytest.raises(FileExistsError):
        atomic_file.write(tmp_path / "file", "new")
    assert (tmp_path / ".file.0").is_symlink()
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "file").exists()


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_file.write(path, "new")
    monkeypatch.undo()
    with pytest.raises(UnicodeEncodeError):
        atomic_file.write(path, "\ud800")
    with pytest.raises(IsADirectoryError):
        atomic_file.write(tmp_path, "new")
    with pytest.raises(FileNotFoundError):
        atomic_file.write(tmp_path / "nowhere" / "file", "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir(), *tmp_path.parent.glob(f".{tmp_path.name[:40]}*")] == [path]


def test_a_long_name_fits(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    atomic_file.write(path, "x")
    assert list(tmp_path.iterdir()) == [path]


def test_the_owner_is_set_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def refuse(_: int, *owner: int) -> None:
        asked.append(owner)
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    atomic_file.write(tmp_path / "file", "x", mode=0o640, owner=(4, 5))
    assert asked == [(4, 5)]
    assert mode(tmp_path / "file") == 0o640


def test_a_killed_process_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = f"""
from pathlib import Path
from nornir_k3s import atomic_file
n = 0
while True:
    n += 1
    atomic_file.write(Path({str(path)!r}), f"{{n}} " * 50_000)
    if n == 1: print(flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        seen = {tuple(set(path.read_text().split())) for _ in range(20)}
        process.kill()
    seen.add(tuple(set(path.read_text().split())))
    assert {len(words) for words in seen} == {1}
    assert {len(path.read_text().split())} == {50_000}
