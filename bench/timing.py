"""Run a command and measure it: its time, its memory, and when it printed what."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT = 1800.0
# The ends of our phases, and the progress of the peer.
_PROGRESS = re.compile(r"\w.*: .*\(\d+\.\d s\)$|by hand: ")
_PEAK = "peak memory, KiB: "
_LAUNCH = Path(__file__).with_name("launch.py")


class BenchError(Exception):
    """A side failed, or the results of the sides differ: there is nothing to compare."""


@dataclass(frozen=True)
class Timing:
    """The measurements of a command.

    Arguments:
        seconds: How long it took.
        memory: Its peak, in MiB.
        lines: What it printed, with the seconds since its start.
    """

    seconds: float
    memory: float
    lines: list[tuple[float, str]] = field(repr=False)

    @property
    def progress(self) -> list[tuple[float, str]]:
        """The lines that report progress."""
        return [(at, line) for at, line in self.lines if _PROGRESS.match(line)]


def timed(argv: list[str], environment: dict[str, str], codes: tuple[int, ...] = (0,)) -> Timing:
    """Run a command to its end and measure it.

    Arguments:
        argv: The command.
        environment: Its environment variables.
        codes: The exit codes of success.

    Raises:
        BenchError: It failed or timed out.
    """
    argv = [sys.executable, "-IS", str(_LAUNCH), *argv]
    begin = time.monotonic()
    # In a session of its own, so that everything it has started can be ended when this process is interrupted.
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(TIMEOUT, _end, [process])
    watchdog.start()
    lines = []
    try:
        for line in process.stdout or ():
            lines.append((time.monotonic() - begin, line.rstrip()))
        status = process.wait()
        seconds = time.monotonic() - begin
    finally:
        watchdog.cancel()
        _end(process)
    if status not in codes:
        tail = "\n".join(f"  {at:6.1f} s  {line}" for at, line in lines[-20:])
        raise BenchError(f"{' '.join(argv)} ended with status {status} after {seconds:.0f} s\n{tail}")
    peaks = [int(line.rpartition(_PEAK)[2]) for _, line in lines if _PEAK in line]
    if len(peaks) != 1:
        raise BenchError(f"{' '.join(argv)} printed its peak memory {len(peaks)} times, expected once")
    return Timing(seconds, peaks[0] / 1024, lines)


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(10)
