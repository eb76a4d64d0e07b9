"""Runs runbooks as `python runbooks/NAME.py` does, but in forks of a process that has imported everything already.

To start Python and import takes as long as many of these commands work, and the tests run a thousand of them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

_MOST = 1 << 17  # bytes of a request
_COVERAGE = "COVERAGE_PROCESS_CONFIG"


def run(
    words: Sequence[str], *, cwd: str, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a script with arguments as `subprocess.run` does; the environment says whether coverage measures it."""
    return _preloaded(environment.get(_COVERAGE)).run(words, cwd=cwd, environment=environment, timeout=timeout)


@functools.cache
def _preloaded(coverage: str | None) -> Preloaded:
    others = {name: value for name, value in os.environ.items() if name != _COVERAGE}
    return Preloaded(others | ({_COVERAGE: coverage} if coverage else {}))


class Preloaded:
    """The process that forks; it ends with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[other.fileno()],
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def run(
        self, words: Sequence[str], *, cwd: str, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with arguments as `subprocess.run` does."""
        request = json.dumps({"words": words, "cwd": cwd, "environment": dict(environment)}).encode()
        (read, write), begin = os.pipe(), time.monotonic()
        with _file() as out, _file() as err, os.fdopen(read) as told:
            with self._lock:
                socket.send_fds(self._socket, [request], [out.fileno(), err.fileno(), write])
            os.close(write)
            pid = int(told.readline())
            late = threading.Timer(timeout, _kill, [pid])
            late.start()
            try:
                status = int(told.readline())
            finally:
                late.cancel()
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read())
        if status == -signal.SIGKILL and time.monotonic() - begin >= timeout:
            raise subprocess.TimeoutExpired(list(words), timeout, *said)
        return subprocess.CompletedProcess(list(words), status, *said)


def _file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait(child: int, told: int) -> None:
    """Wait until a fork has ended; end it when nobody waits for it any more: its test was interrupted."""
    ended, events = os.pidfd_open(child), select.poll()
    events.register(ended, select.POLLIN)
    events.register(told, select.POLLERR)
    if ended not in dict(events.poll()):
        _kill(child)
    os.close(ended)


def _serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the fork, and nothing when nobody asks any more."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, _MOST, 3)
        if not data:
            return None
        if (between := os.fork()) == 0 and (child := os.fork()) == 0:
            asked.close()
            signal.signal(signal.SIGINT, interrupt)
            for number, descriptor in enumerate(descriptors[:2], 1):
                os.dup2(descriptor, number)
            for descriptor in descriptors:
                os.close(descriptor)
            return dict(json.loads(data))
        if between == 0:
            os.write(descriptors[2], f"{child}\n".encode())
            _wait(child, descriptors[2])
            _, status = os.waitpid(child, 0)
            with contextlib.suppress(BrokenPipeError):  # an interrupted test does not wait for it
                os.write(descriptors[2], f"{os.waitstatus_to_exitcode(status)}\n".encode())
            _kill(os.getpid())  # without what Python, and coverage, do at an end
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def main() -> None:
    """Import everything, then serve on the socket whose descriptor is the argument."""
    import nornir_k3s  # noqa: PLC0415 - only the process that forks needs it

    for module in pkgutil.walk_packages(nornir_k3s.__path__, "nornir_k3s."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["words"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise  # Python prints it
        _end(end.code)


def _end(status: int) -> NoReturn:
    """End as Python does, but without taking apart what was imported: that is most of the time of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]  # it joins threads; Python calls it first, too
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
