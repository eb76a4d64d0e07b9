"""systemd-nspawn: how a host's root folder becomes a running system, and what that leaves on the machine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nornir_k3s_lab.guest import PATH, REPOSITORY
from nornir_k3s_lab.system import mount_points, mount_type, run, unmount_below

STATE = Path("/run/systemd/nspawn")
_OURS = "nornir-k3s-lab"
# K3s and the kubelet write sysctls; and /tmp is a disk, as on a plain Debian, not this machine's memory.
_ENVIRONMENT = {"PATH": PATH, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_NSPAWN_TMPFS_TMP": "0"}
# nspawn ends with this status when the host wants to be rebooted.
_LOOP = 'while "$0" "$@"; [ $? = 133 ]; do :; done'


def start(
    root: Path,
    machine: str,
    hostname: str,
    *,
    groups: Sequence[Path],
    namespace: Path,
    binds: Mapping[str, str],
    packages: Path,
    console: Path,
) -> None:
    """Boot a root folder; does not wait for it.

    Arguments:
        root: The root folder.
        machine: A name that no other container of the machine has.
        hostname: The host's own name.
        groups: The control group folders it runs in.
        namespace: The file of its network namespace.
        binds: Folders of the machine, and where they are in the host.
        packages: The package repository, seen by the host without a right to write.
        console: The file its console is written to.
    """
    nspawn = [
        # Entered beforehand: by its own --network-namespace-path, the host's /sys would show the machine's interfaces.
        *[
            "nsenter",
            f"--net={namespace}",
            "systemd-nspawn",
            "--quiet",
            "--settings=no",
            "--register=no",
            "--keep-unit",
            "--boot",
        ],
        *[f"--directory={root}", f"--machine={machine}", f"--hostname={hostname}"],
        "--rlimit=NOFILE=1024:1048576",  # as on a real host, or as near as this machine allows
        "--capability=all",
        "--system-call-filter=@keyring bpf",
        *["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=passive"],
        f"--bind-ro={packages}:{REPOSITORY}",
        *[f"--bind={outside}:{inside}" for outside, inside in binds.items()],
    ]
    join = "".join(f"echo $$ > '{group}/cgroup.procs' && " for group in groups)
    with console.open("ab") as stream:
        # The shell returns when nspawn is in the host's control group and on its own: from then on `down` finds it.
        subprocess.run(
            ["sh", "-c", f'{join}exec setsid --fork sh -c "$0" "$@"', _LOOP, *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=True,
            cwd="/",
            env=_ENVIRONMENT,
        )


def forget(root: Path, machine: str) -> None:
    """Remove what nspawn leaves behind for a container when it is killed; its root is still mounted."""
    if mount_points(root):
        seen = root.stat()
        (STATE / "locks" / f"inode-{seen.st_dev}:{seen.st_ino}").unlink(missing_ok=True)
    propagate = STATE / "propagate" / machine
    unmount_below(propagate)
    with contextlib.suppress(FileNotFoundError):
        propagate.rmdir()


def prepare_state() -> None:
    """Let nspawn keep its state in memory: it refuses to clean up on a disk, and so to boot a container twice."""
    STATE.mkdir(parents=True, exist_ok=True)
    if mount_type(STATE) != "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=1m", _OURS, STATE])


def remove_state() -> None:
    """Undo `prepare_state`; what other containers of the machine keep there stays."""
    if mount_points(STATE) == [STATE]:
        unmount_below(STATE)
    for folder in (STATE / "propagate", STATE / "locks", STATE):
        with contextlib.suppress(OSError):
            folder.rmdir()
