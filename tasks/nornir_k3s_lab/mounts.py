"""The mounts of this machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from nornir_k3s_lab.system import run, wait_until


def mounts(mountinfo: str | None = None) -> list[tuple[Path, str]]:
    """All mounts of this machine, the latest last: mount point and type of file system.

    Arguments:
        mountinfo: The text of /proc/self/mountinfo, instead of the file itself.

    Source: proc(5), `/proc/pid/mountinfo`.
    """
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
    """The type of the file system that holds a path."""
    type_ = ""
    best = Path()
    for point, kind in mounts(mountinfo):
        if (point == path or point in path.parents) and len(point.parts) >= len(best.parts):
            best, type_ = point, kind
    return type_


def unmount_below(folder: Path, seconds: float = 30) -> None:
    """Unmount everything at or below a folder; processes that are ending may keep it busy for a moment."""

    def unmounted() -> bool:
        for path in mount_points(folder):
            run(["umount", path], check=False)
        return not mount_points(folder)

    wait_until(unmounted, f"cannot unmount everything below {folder}", seconds)


def remove_folder(folder: Path) -> None:
    """Remove a folder, but nothing that is mounted below it."""
    unmount_below(folder)
    if folder.exists():
        shutil.rmtree(folder)
