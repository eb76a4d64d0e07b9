"""Who may work on a cluster at the same time."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nornir_k3s.errors import Busy, UsageError
from nornir_k3s.state.locks import deploy_lock, drift_lock

HOLD = """
import sys
from pathlib import Path
from nornir_k3s.state.locks import deploy_lock, drift_lock
with {lock}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
Hold = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Have another process hold a lock: until it gets a line, or is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(lock: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(lock=lock), str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_deploy_goes_first_and_two_checks_never_overlap(tmp_path: Path) -> None:
    with drift_lock(tmp_path), pytest.raises(Busy, match="another drift check"), drift_lock(tmp_path):
        pass
    with deploy_lock(tmp_path):
        with pytest.raises(Busy, match=r"a deploy of .* is in progress"), drift_lock(tmp_path):
            pass
        with pytest.raises(Busy, match="another deploy"), deploy_lock(tmp_path):
            pass
    with pytest.raises(Busy, match="began meanwhile"), drift_lock(tmp_path), deploy_lock(tmp_path):
        pass
    with drift_lock(tmp_path):
        pass


def test_the_locks_of_another_process_count(tmp_path: Path, hold: Hold) -> None:
    deploy = hold("deploy_lock")
    with pytest.raises(Busy, match="another deploy"), deploy_lock(tmp_path):
        pass
    with pytest.raises(Busy, match=r"a deploy of .* is in progress"), drift_lock(tmp_path):
        pass
    deploy.communicate("end\n")
    hold("drift_lock")
    with pytest.raises(Busy, match="another drift check"), drift_lock(tmp_path):
        pass
    with deploy_lock(tmp_path):  # it does not wait for a drift check
        pass


def test_a_check_notices_a_deploy_of_another_process(tmp_path: Path, hold: Hold) -> None:
    with pytest.raises(Busy, match=r"a deploy of .* is in progress"), drift_lock(tmp_path):
        deploy = hold("deploy_lock")
    deploy.communicate("end\n")
    with pytest.raises(Busy, match="began meanwhile"), drift_lock(tmp_path):
        hold("deploy_lock").communicate("end\n")


def test_an_error_of_the_check_is_told_before_a_deploy_that_began(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), drift_lock(tmp_path), deploy_lock(tmp_path):
        1 / 0  # noqa: B018 - any error


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path, hold: Hold) -> None:
    deploy = hold("deploy_lock")
    with pytest.raises(Busy), drift_lock(tmp_path):
        pass
    deploy.kill()
    deploy.wait()
    with drift_lock(tmp_path), (tmp_path / "deploy.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lock_files_are_private_and_stay(tmp_path: Path) -> None:
    folder, old = tmp_path / "state" / "cluster", os.umask(0)
    try:
        seen = []
        for _ in range(2):
            with deploy_lock(folder), drift_lock(tmp_path):
                pass
            seen.append((folder / "deploy.lock").stat().st_ino)
    finally:
        os.umask(old)
    assert seen[0] == seen[1]
    for path, mode in ((folder, 0o700), (folder / "deploy.lock", 0o600), (tmp_path / "drift.lock", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_check_before_the_first_deploy_makes_no_lock_of_one(tmp_path: Path) -> None:
    with drift_lock(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["drift.lock"]


@pytest.mark.parametrize("lock", [deploy_lock, drift_lock])
def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, lock: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"file cannot be written: (Not a directory|File exists)"),
        lock(tmp_path / "file"),
    ):
        pass
