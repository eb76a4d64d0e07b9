"""One control group per host: it separates their systemd, and tells which host a process belongs to."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from nornir_k3s_lab.mounts import mounts
from nornir_k3s_lab.system import wait_until

ROOT = "nornir-k3s-lab"
_POINT = Path("/sys/fs/cgroup")


def hierarchies(mountinfo: str | None = None) -> list[tuple[Path, str]]:
    """The control group hierarchies of this machine: mount point and type (`cgroup` or `cgroup2`)."""
    found = dict(mounts(mountinfo)).items()
    return [(point, type_) for point, type_ in found if type_.startswith("cgroup") and point.is_relative_to(_POINT)]


def create(group: str) -> list[Path]:
    """Create a group such as `lab/s1` in every hierarchy; return the folders that a process must join."""
    folders = []
    for point, type_ in hierarchies():
        only_v2 = type_ == "cgroup2" and point == _POINT
        folder = point
        # In v2 only leaves have processes: nspawn splits its group in two, and expects this name for its own half.
        for name in (ROOT, *group.split("/"), *(["supervisor"] if only_v2 else [])):
            if only_v2 and name != "supervisor":
                _enable_controllers(folder)
            folder = folder / name
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
            _allow_realtime(folder)
        folders.append(folder)
    return folders


def _enable_controllers(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # K3s itself reports a missing one
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    # A new group of a v1 cpuset has no CPUs, and accepts no process until it has some.
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not (folder / "cgroup.subtree_control").exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def _allow_realtime(folder: Path) -> None:
    # A new v1 group may schedule nothing in real time, which keepalived asks for. Children share what their parent has.
    shares = {1: 400_000, 2: 100_000, 3: 5_000}  # microseconds of each second: all labs, one lab, one host
    depth = len(folder.parts) - folder.parts.index(ROOT)
    file = folder / "cpu.rt_runtime_us"
    if file.exists() and file.read_text().strip() == "0":
        with contextlib.suppress(OSError):  # as on a machine that gives no real time: keepalived goes on without
            file.write_text(str(shares.get(depth, 0)))


def members(group: str) -> set[int]:
    """The process IDs of a group and all groups below it."""
    found: set[int] = set()
    for point, _ in hierarchies():
        for folder, _, _ in os.walk(point / ROOT / group):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    return found - {0}


def init_of(group: str) -> int | None:
    """The process 1 of a host: its ID is 1 in the first PID namespace below that of this machine."""
    for pid in members(group):
        pids = _namespace_pids(pid)
        if len(pids) == 2 and pids[1] == 1:
            return pid
    return None


def _namespace_pids(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def send_signal(group: str, pid: int, number: int) -> None:
    """Send a signal to a process if it is still in the group: its ID may have been reused."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if pid in members(group):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def kill(group: str, seconds: float = 30) -> None:
    """Kill every process of a group: first the host's init, which ends its whole PID namespace."""

    def ended() -> bool:
        init = init_of(group)
        for pid in [init] if init else members(group):
            send_signal(group, pid, signal.SIGKILL)
        return not members(group)

    wait_until(ended, f"processes of {group} are still running", seconds, every=0.03)


def remove(group: str = "") -> None:
    """Remove a group, and all groups below it, from every hierarchy."""

    def removed() -> bool:
        left = False
        for point, _ in hierarchies():
            for folder, _, _ in os.walk(point / ROOT / group, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    left = left or Path(folder).exists()
        return not left

    wait_until(removed, f"cannot remove the control groups of {group or ROOT}", 30, every=0.03)


def any_exists() -> bool:
    """Whether any lab has a control group."""
    return any(folder.is_dir() for point, _ in hierarchies() for folder in (point / ROOT).glob("*"))


def hosts_of(lab: str) -> set[str]:
    """The names of the hosts of a lab that have a control group."""
    found: set[str] = set()
    for point, _ in hierarchies():
        folder = point / ROOT / lab
        if folder.is_dir():
            found.update(entry.name for entry in folder.iterdir() if entry.is_dir())
    return found
