"""systemd-nspawn: boot a root folder as a container, and remove what that leaves on this machine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nornir_k3s_lab.files import package_file
from nornir_k3s_lab.host_files import PACKAGES, PATH
from nornir_k3s_lab.mounts import mount_points, mount_type, unmount_below
from nornir_k3s_lab.system import run

STATE = Path("/run/systemd/nspawn")
# K3s and the kubelet write sysctls; and /tmp is a disk, as on a plain Debian, not memory of this machine.
_ENVIRONMENT = {"PATH": PATH, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_NSPAWN_TMPFS_TMP": "0"}


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
    unified: bool = False,
) -> None:
    """Boot a root folder; does not wait until it is up.

    Arguments:
        root: The root folder.
        machine: The name of the container, unique on this machine.
        hostname: The host name.
        groups: The folders of its control groups.
        namespace: The file of its network namespace.
        binds: Folders of this machine, and their paths in the host.
        packages: The package repository, which the host can read.
        console: The file that its console is written to.
        unified: Give it cgroup v2 alone, also where this machine has v1, whose controllers it then lacks.
    """
    nspawn = [
        # Entered beforehand: with --network-namespace-path, the host's /sys would show the interfaces of this machine.
        *["nsenter", f"--net={namespace}", "systemd-nspawn", "--boot"],
        *["--quiet", "--settings=no", "--register=no", "--keep-unit"],
        *[f"--directory={root}", f"--machine={machine}", f"--hostname={hostname}"],
        "--rlimit=NOFILE=1024:1048576",  # as on a real host, or as near as this machine allows
        *["--capability=all", "--system-call-filter=@keyring bpf"],
        *["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=passive"],
        f"--bind-ro={packages}:{PACKAGES}",
        *[f"--bind={outside}:{inside}" for outside, inside in binds.items()],
    ]
    script = "start_container.sh"
    # As an argument, not as a file: the shell reads on while the container runs, and an update may replace the file.
    shell = ["sh", "-c", package_file(script), script]
    with console.open("ab") as stream:
        subprocess.run(
            [*shell, *map(str, groups), "--", *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=True,
            cwd="/",
            env=_ENVIRONMENT | ({"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if unified else {}),
        )


def clean_up(root: Path, machine: str) -> None:
    """Remove what nspawn leaves behind for a container that was killed; its root is still mounted."""
    if mount_points(root):
        seen = root.stat()
        (STATE / "locks" / f"inode-{seen.st_dev}:{seen.st_ino}").unlink(missing_ok=True)
    propagate = STATE / "propagate" / machine
    unmount_below(propagate)
    with contextlib.suppress(FileNotFoundError):
        propagate.rmdir()


def prepare_state() -> None:
    """Mount a tmpfs for nspawn's state: on a disk it fails to clean up, and cannot boot a container twice."""
    STATE.mkdir(parents=True, exist_ok=True)
    if mount_type(STATE) != "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=1m", "nornir-k3s-lab", STATE])


def remove_state() -> None:
    """Undo `prepare_state`, except for the state of other containers."""
    if mount_points(STATE) == [STATE]:
        unmount_below(STATE)
    for folder in (STATE / "propagate", STATE / "locks", STATE):
        with contextlib.suppress(OSError):
            folder.rmdir()
