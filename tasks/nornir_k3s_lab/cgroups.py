"""One control group per host: it separates the hosts' systemds, and says for certain which processes are whose."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from nornir_k3s_lab.system import mounts, wait_until

ROOT = "nornir-k3s-lab"
_POINT = Path("/sys/fs/cgroup")


def hierarchies(mountinfo: str | None = None) -> list[tuple[Path, str]]:
    """The machine's control group hierarchies: mount point and type (`cgroup` or `cgroup2`)."""
    found = dict(mounts(mountinfo)).items()
    return [(point, type_) for point, type_ in found if type_.startswith("cgroup") and point.is_relative_to(_POINT)]


def create(group: str) -> list[Path]:
    """Make a group such as `lab/s1` in every hierarchy; return the folders a process must join."""
    folders = []
    for point, type_ in hierarchies():
        only_v2 = type_ == "cgroup2" and point == _POINT
        folder = point
        # In v2 only leaves have processes: nspawn splits its group in two, and knows its own half by this name.
        for name in (ROOT, *group.split("/"), *(["supervisor"] if only_v2 else [])):
            if only_v2 and name != "supervisor":
                _hand_down_controllers(folder)
            folder = folder / name
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
        folders.append(folder)
    return folders


def _hand_down_controllers(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # K3s says itself which one it misses
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    # A new group of a v1 cpuset has no CPUs, and then takes no process.
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not (folder / "cgroup.subtree_control").exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def members(group: str) -> set[int]:
    """The processes of a group and all groups below it."""
    found: set[int] = set()
    for point, _ in hierarchies():
        for folder, _, _ in os.walk(point / ROOT / group):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    return found - {0}


def init_of(group: str) -> int | None:
    """The host's own process 1: the one that is number 1 in exactly one namespace below the machine's."""
    for pid in members(group):
        numbers = _namespace_numbers(pid)
        if len(numbers) == 2 and numbers[1] == 1:
            return pid
    return None


def _namespace_numbers(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []


def send(group: str, pid: int, number: int) -> None:
    """Send a signal to a process if it still is the group's: its number may have a new owner by now."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if pid in members(group):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def kill(group: str, seconds: float = 30) -> None:
    """End every process of a group: first the host's init, which takes all of its namespace with it."""

    def ended() -> bool:
        init = init_of(group)
        for pid in [init] if init else members(group):
            send(group, pid, signal.SIGKILL)
        return not members(group)

    wait_until(ended, f"all processes of {group} end", seconds, every=0.03)


def remove(group: str = "") -> None:
    """Remove a group, and all groups below it, from every hierarchy."""

    def gone() -> bool:
        left = False
        for point, _ in hierarchies():
            for folder, _, _ in os.walk(point / ROOT / group, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    left = left or Path(folder).exists()
        return not left

    wait_until(gone, f"remove the control groups of {group or ROOT}", 30, every=0.03)


def any_left() -> bool:
    """Whether any lab has a control group."""
    return any(folder.is_dir() for point, _ in hierarchies() for folder in (point / ROOT).glob("*"))


def groups_of(lab: str) -> set[str]:
    """The names of all hosts of a lab that have a control group."""
    found: set[str] = set()
    for point, _ in hierarchies():
        folder = point / ROOT / lab
        if folder.is_dir():
            found.update(entry.name for entry in folder.iterdir() if entry.is_dir())
    return found
