"""The machine under the lab: its programs, kernel settings, mounts and locks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from filelock import lock_descriptor
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

# What eight hosts with K3s need from the one kernel they share, as least values.
LEAST = {
    "fs/inotify/max_user_instances": 16384,
    "fs/inotify/max_user_watches": 1048576,
}
# What K3s' kubelet sets for the whole machine; put back by the last `down`.
TOUCHED_BY_K3S = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 600,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a program of the machine and return what it wrote.

    Arguments:
        argv: The program and its arguments; never a shell line.
        stdin: What to send on standard input; nothing by default.
        check: Raise LabError on a status other than 0.
        timeout: Seconds after which the program is killed.
        env: The environment, instead of this process' own.
        pass_fds: File descriptors the program keeps.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=env,
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(words[:4])} did not end within {timeout:.0f} s") from error
    if check and done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabError(f"{' '.join(words[:8])} failed with status {done.returncode}\n{tail}")
    return done


def wait_until(condition: Callable[[], bool], what: str, seconds: float, every: float = 0.1) -> None:
    """Wait until a condition holds; raise LabError naming it when the deadline ends."""
    waiting = Retrying(
        retry=retry_if_result(lambda holds: not holds), stop=stop_after_delay(seconds), wait=wait_fixed(every)
    )
    try:
        waiting(condition)
    except RetryError as error:
        raise LabError(f"waited {seconds:.0f} s in vain: {what}") from error


def require_root() -> None:
    """Refuse to go on without root."""
    if os.geteuid() != 0:
        raise LabError("the lab boots hosts on this machine and needs root", hint="run the same command with sudo")


def require_programs(say: Callable[[str], None]) -> None:
    """Install what the lab needs on this machine, by apt."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise LabError(
            f"this machine lacks {', '.join(missing)}, and only Debian's apt-get is known here",
            hint="install the programs " + ", ".join(sorted(PROGRAMS)) + " yourself; the hosts are Debian, too",
        )
    say(f"installing on this machine: {' '.join(missing)}")
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends", *missing]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if run(install, check=False, env=env).returncode:
        run(["apt-get", "update", "-q"], check=False, env=env)  # a source that is away may not matter
        run(install, env=env)


@contextlib.contextmanager
def plain_umask() -> Iterator[None]:
    """Let what is made be readable, as hosts need it; private files have their own modes."""
    old = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(old)


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[int]:
    """Hold an exclusive lock on a folder, made when missing; the lock ends with the process, however it ends.

    Yields the lock's file descriptor, for children that must keep the lock when this process is killed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not lock_descriptor(descriptor, blocking=False):
                say(f"another process works on {folder}: waiting for it")
                lock_descriptor(descriptor)
            # The one before may have removed the folder: a lock on a removed folder protects nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == folder.stat().st_ino:
                    yield descriptor
                    return
        finally:
            os.close(descriptor)


def write_private(file: Path, text: str) -> None:
    """Write a file, 0600 also while it is written; a reader sees the old text or the new one, never half."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        try:
            draft.write(text)
            draft.flush()
            Path(draft.name).replace(file)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def mounts(mountinfo: str | None = None) -> list[tuple[Path, str]]:
    """All mounts of the machine, the latest last: mount point and type of file system."""
    found = []
    for line in (Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo).splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        found.append((Path(point), after.split()[0]))
    return found


def mount_points(below: Path) -> list[Path]:
    """The mount points at or below a folder, the deepest and latest first."""
    return [point for point, _ in reversed(mounts()) if point == below or below in point.parents]


def mount_type(path: Path, mountinfo: str | None = None) -> str:
    """The type of the file system a path is on."""
    type_ = ""
    best = Path()
    for point, kind in mounts(mountinfo):
        if (point == path or point in path.parents) and len(point.parts) >= len(best.parts):
            best, type_ = point, kind
    return type_


def unmount_below(folder: Path, seconds: float = 30) -> None:
    """Unmount everything at or below a folder; processes that are just ending may keep it busy for a moment."""

    def gone() -> bool:
        for path in mount_points(folder):
            run(["umount", path], check=False)
        return not mount_points(folder)

    wait_until(gone, f"unmount everything below {folder}", seconds)


def remove_folder(folder: Path) -> None:
    """Remove a folder, never what is mounted below it."""
    unmount_below(folder)
    if folder.exists():
        shutil.rmtree(folder)


def raise_settings(record: Path, proc: Path = Path("/proc/sys")) -> None:
    """Raise the machine's kernel settings to what the hosts need; the first time, write down the old values."""
    values = {name: _read(proc / name) for name in (*LEAST, *TOUCHED_BY_K3S) if (proc / name).exists()}
    if not record.exists():
        write_private(record, json.dumps(values, indent=1) + "\n")
    for name, least in LEAST.items():
        if name in values and int(values[name]) < least:
            (proc / name).write_text(f"{least}\n")


def restore_settings(record: Path, proc: Path = Path("/proc/sys")) -> None:
    """Put the machine's kernel settings back to what they were before the first lab."""
    if not record.exists():
        return
    for name, value in json.loads(record.read_text()).items():
        if _read(proc / name) != value:
            (proc / name).write_text(f"{value}\n")
    record.unlink()


def _read(path: Path) -> str:
    return path.read_text().strip()
