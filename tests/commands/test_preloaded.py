"""Commands in forks of a process that has imported everything do what processes of their own do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests import preloaded

SCRIPT = """import atexit, os, sys, threading
atexit.register(print, "the end")
threading.Thread(target=lambda: (threading.main_thread().join(), print("a thread"))).start()
print(sys.argv[1:], os.environ["HERE"], os.getcwd(), sys.path[0], __name__, sys.stdin.read())
print("it fails", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_a_fork_prints_and_ends_as_a_process_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words, environment = [str(script), "7", "a b"], {**os.environ, "HERE": "x"}
    done = preloaded.run(words, cwd="/", environment=environment, timeout=60)
    process = subprocess.run(
        [sys.executable, *words], cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (process.returncode, process.stdout, process.stderr)
    assert done.returncode == 7


def test_a_fork_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        preloaded.run([str(script)], cwd="/", environment=os.environ, timeout=1)
    assert raised.value.timeout == 1


def test_a_fork_that_a_signal_ends_has_its_number(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert preloaded.run([str(script)], cwd="/", environment=os.environ, timeout=60).returncode == -15


def test_a_fork_is_killed_when_the_test_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a signal: one that comes just before a read ends it only with the next one."""
    script, pid = tmp_path / "script.py", tmp_path / "pid"
    script.write_text("import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n")

    def timer(*_: object) -> object:
        for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.05), reraise=True):
            with attempt:
                assert pid.read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr(preloaded, "threading", SimpleNamespace(Lock=threading.Lock, Timer=timer))
    with pytest.raises(KeyboardInterrupt):
        preloaded.run([str(script), str(pid)], cwd="/", environment=os.environ, timeout=60)
    for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            assert not Path("/proc", pid.read_text()).exists()
