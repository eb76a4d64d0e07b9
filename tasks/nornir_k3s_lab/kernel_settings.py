"""Kernel settings of this machine, which all hosts share: raised for the labs, and restored after the last one."""

from __future__ import annotations

import json
from pathlib import Path

from nornir_k3s_lab.files import write_private

# What eight hosts with K3s need of the kernel that they share.
LEAST = {
    "fs/inotify/max_user_instances": 16384,
    "fs/inotify/max_user_watches": 1048576,
}
# What the kubelet sets for the whole machine.
SET_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def raise_settings(record: Path, proc: Path = Path("/proc/sys")) -> None:
    """Raise the settings to the least values that the hosts need.

    Arguments:
        record: The file that keeps the old values; written once, before the first lab.
        proc: The folder of the settings.
    """
    values = {name: _read(proc / name) for name in (*LEAST, *SET_BY_KUBELET) if (proc / name).exists()}
    if not record.exists():
        write_private(record, json.dumps(values, indent=1) + "\n")
    for name, least in LEAST.items():
        if name in values and int(values[name]) < least:
            (proc / name).write_text(f"{least}\n")


def restore_settings(record: Path, proc: Path = Path("/proc/sys")) -> None:
    """Restore the values of `record`, and remove it."""
    if not record.exists():
        return
    for name, value in json.loads(record.read_text()).items():
        if _read(proc / name) != value:
            (proc / name).write_text(f"{value}\n")
    record.unlink()


def _read(path: Path) -> str:
    return path.read_text().strip()
