"""The programs of this machine: run them, wait for what they do, and install those that are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from nornir_k3s_lab.errors import LabError

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "dpkg-deb": "dpkg",
}


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 600,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
    title: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine.

    Arguments:
        argv: The program and its arguments.
        stdin: What to send on standard input; nothing by default.
        check: Raise LabError on a status other than 0.
        timeout: Seconds after which the program is killed.
        env: The environment, instead of that of this process.
        pass_fds: File descriptors that the program inherits.
        new_session: Start it in a session of its own; at a timeout its children are killed with it.
        title: What errors call it, instead of the first words of `argv`.

    Raises:
        LabError: It is not installed, failed, or timed out.
    """
    words = [str(word) for word in argv]
    title = title or " ".join(words[:8])
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            pass_fds=pass_fds,
            start_new_session=new_session,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed on this machine") from error
    with process:
        try:
            out, err = process.communicate(stdin or "", timeout=timeout)
        except BaseException as error:
            _kill(process, group=new_session)
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"{title} timed out after {timeout:g} s") from error
            raise
    if check and process.returncode:
        tail = "\n".join((err or out).strip().splitlines()[-30:])
        raise LabError(f"{title} failed with status {process.returncode}\n{tail}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _kill(process: subprocess.Popen[str], *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def wait_until(condition: Callable[[], bool], problem: str, seconds: float, every: float = 0.1) -> None:
    """Wait until a condition holds.

    Arguments:
        condition: Asked again and again.
        problem: What is wrong when it never holds, for the error.
        seconds: The timeout.
        every: Seconds between two tries.

    Raises:
        LabError: The timeout has passed.
    """
    waiting = Retrying(
        retry=retry_if_result(lambda holds: not holds), stop=stop_after_delay(seconds), wait=wait_fixed(every)
    )
    try:
        waiting(condition)
    except RetryError as error:
        raise LabError(f"timed out after {seconds:g} s: {problem}") from error


def require_root() -> None:
    """Raise LabError unless this process runs as root."""
    if os.geteuid() != 0:
        raise LabError("the lab starts containers on this machine and needs root", hint="run the command with sudo")


def require_programs(say: Callable[[str], None]) -> None:
    """Install with apt-get the programs that are missing on this machine."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise LabError(
            f"packages are missing on this machine: {', '.join(missing)}; the lab can install them on Debian only",
            hint="install these programs: " + ", ".join(sorted(PROGRAMS)),
        )
    say(f"installing packages on this machine: {' '.join(missing)}")
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends", *missing]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if run(install, check=False, env=env).returncode:
        run(["apt-get", "update", "-q"], check=False, env=env)  # one unreachable source need not matter
        run(install, env=env)
