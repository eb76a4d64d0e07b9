"""One host of the lab as a container: its disk, boot and removal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nornir_k3s_lab import cgroups, network, nspawn
from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.files import package_file, write_private
from nornir_k3s_lab.host_files import PATH, identity_files, mask_generators
from nornir_k3s_lab.keys import ensure_key, ensure_password
from nornir_k3s_lab.model import UNIFIED, HostStatus, LabHost, LabSpec
from nornir_k3s_lab.mounts import mount_points, remove_folder, unmount_below
from nornir_k3s_lab.system import run, wait_until

BOOT_SECONDS = 180
POWER_OFF_SECONDS = 150  # systemd itself gives a service 90 to stop
# containerd keeps its layers here, which is impossible on an overlay of an overlay.
REAL_FOLDERS = {"rancher": "/var/lib/rancher", "kubelet": "/var/lib/kubelet"}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def used_images(runtime: Path) -> set[Path]:
    """The images that the disks of hosts of any lab are based on."""
    found = set()
    for record in runtime.glob("*/*/host.json"):
        with contextlib.suppress(FileNotFoundError):  # the host has just been removed
            found.add(Path(json.loads(record.read_text())["image"]))
    return found


class Container:
    """A host as a container that can be powered on and off.

    Arguments:
        spec: The lab.
        host: The host.
        runtime: The folder of the lab for everything that exists while it is up.
    """

    def __init__(self, spec: LabSpec, host: LabHost, runtime: Path) -> None:
        self.spec = spec
        self.host = host
        self.folder = runtime / host.name
        self.group = f"{spec.name}/{host.name}"
        self.machine_name = f"{spec.name}-{host.name}"
        self.root = self.folder / "root"
        self.namespace = self.folder / "net"
        self.record = self.folder / "host.json"

    @property
    def init(self) -> int | None:
        """The process ID, on this machine, of the host's process 1; None when the host is not running."""
        return cgroups.init_of(self.group)

    @property
    def exists(self) -> bool:
        """Whether the host has a complete disk, created since this machine was booted."""
        return self.record.exists() and self._recorded()["boot"] == _boot_id()

    def status(self) -> HostStatus:
        """Return the state of the host."""
        init = self.init
        state = "running" if init else "off" if self.exists else "absent"
        return HostStatus(self.host, state, init, network.link_name(self.spec.name, self.host.name))

    def _wanted(self) -> dict[str, Any]:
        settings = {**asdict(self.host), "gateway": self.spec.gateway}
        return {key: None if value is None else str(value) for key, value in settings.items()}

    def outdated(self) -> bool:
        """Whether the inventory has changed since the host was created."""
        return self.exists and self._recorded()["host"] != self._wanted()

    def _recorded(self) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads(self.record.read_text())
        return recorded

    def create(self, image: Path) -> None:
        """Create an empty disk on top of the image, with user, keys and name of the host; its host key stays."""
        for name in ("upper", "work", *REAL_FOLDERS):
            remove_folder(self.folder / name)
            (self.folder / name).mkdir(parents=True, mode=0o755)
        self.folder.chmod(0o700)
        self._mount(image)
        public = self.host_key()
        write_private(self.root / "etc/ssh/ssh_host_ed25519_key", self._host_key_file.read_text())
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(public + "\n")
        files = identity_files(self.host.name, self.host.address, self.spec.gateway, uuid.uuid4().hex)
        for name, text in files.items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_text(text)
        mask_generators(self.root)
        self._create_user()
        write_private(self.record, json.dumps({"host": self._wanted(), "image": str(image), "boot": _boot_id()}))

    def _create_user(self) -> None:
        password = ensure_password(self.host.sudo_password_file) if self.host.sudo_password_file else ""
        script = "create_user.sh"
        arguments = [self.host.user, ensure_key(self.spec.key_file)]
        argv = ["chroot", str(self.root), "sh", "-c", package_file(script), script, *arguments]
        run(argv, stdin=password, env={"PATH": PATH}, title=f"{self.host.name}: {script}")

    @property
    def _host_key_file(self) -> Path:
        return self.folder / "ssh_host_ed25519_key"

    def host_key(self) -> str:
        """The public host key of the host."""
        return ensure_key(self._host_key_file)

    def _mount(self, image: Path) -> None:
        self.root.mkdir(exist_ok=True)
        if mount_points(self.root):
            return
        # `volatile` never waits for the disk of this machine, so the hosts' disks do not survive its reboot. The kernel
        # mounts such an overlay a second time only without this mark.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / "work/work/incompat")
        layers = f"lowerdir={image}/root,upperdir={self.folder}/upper,workdir={self.folder}/work"
        run(["mount", "-t", "overlay", "-o", f"{layers},volatile", f"lab-{self.host.name}", self.root])

    def power_on(self) -> None:
        """Boot the host from its disk; does not wait until it is up."""
        if self.init:
            return
        image = Path(self._recorded()["image"])
        if not image.exists():
            raise LabError(f"{self.host.name}: its image {image} does not exist", hint="run `lab down`, then `lab up`")
        self._stop()
        self._mount(image)
        network.attach(self.spec.name, self.host.name, self.namespace)
        nspawn.start(
            self.root,
            self.machine_name,
            self.host.name,
            groups=cgroups.create(self.group),
            namespace=self.namespace,
            binds={str(self.folder / name): inside for name, inside in REAL_FOLDERS.items()},
            packages=image / "packages",
            console=self.folder / "console.log",
            unified=self.host.release in UNIFIED,
        )

    def power_off(self, *, hard: bool = False) -> None:
        """Shut the host down, or with `hard` kill it at once; its disk stays."""
        init = self.init
        if init and not hard:
            cgroups.send_signal(self.group, init, signal.SIGRTMIN + 4)
            with contextlib.suppress(LabError):
                wait_until(lambda: not cgroups.members(self.group), "it does not shut down", POWER_OFF_SECONDS)
        self._stop()

    def _stop(self) -> None:
        cgroups.kill(self.group)
        network.detach(self.spec.name, self.host.name, self.namespace)
        nspawn.clean_up(self.root, self.machine_name)
        unmount_below(self.folder)
        cgroups.remove(self.group)

    def destroy(self, *, keep_host_key: bool = False) -> None:
        """Stop the host and remove its disk; its host key may stay for the next one."""
        self._stop()
        self.record.unlink(missing_ok=True)
        if not keep_host_key:
            remove_folder(self.folder)

    def wait_ready(self) -> list[str]:
        """Wait until sshd answers and systemd has started everything; return the units that failed."""
        wait_until(self._sshd_answers, f"{self.host.name}: sshd does not answer on {self.host.address}", BOOT_SECONDS)
        state = run(self.command(["systemctl", "is-system-running", "--wait"]), check=False, timeout=BOOT_SECONDS)
        if state.stdout.strip() == "running":
            return []
        failed = run(self.command(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]), check=False)
        return [line.split()[0] for line in failed.stdout.splitlines() if line.strip()] or [state.stdout.strip()]

    def _sshd_answers(self) -> bool:
        if not cgroups.members(self.group):
            with contextlib.suppress(OSError):
                tail = (self.folder / "console.log").read_text(errors="replace").splitlines()[-10:]
                raise LabError(f"{self.host.name} did not boot; the end of its console:\n" + "\n".join(tail))
        try:
            with socket.create_connection((self.host.address, 22), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(256).startswith(b"SSH-")
        except OSError:
            return False

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command as root in the host, without SSH."""
        init = self.init
        if init is None:
            raise LabError(f"{self.host.name} is not running", hint="run `lab status`")
        terminal = os.environ.get("TERM", "dumb")
        environment = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", f"TERM={terminal}"]
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        return ["nsenter", f"--target={init}", *spaces, "--", *environment, *argv]

    def ssh_command(self, argv: Sequence[str]) -> list[str]:
        """The OpenSSH command line that logs in to the host as its user, or runs a command there."""
        options = [f"UserKnownHostsFile={self.spec.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
        words = [word for option in options for word in ("-o", option)]
        login = f"{self.host.user}@{self.host.address}"
        return ["ssh", "-F", "none", "-i", str(self.spec.key_file), *words, login, *argv]

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the host, without SSH; at a timeout it is killed with its children."""
        title = f"{self.host.name}: {' '.join(argv)}"
        return run(self.command(argv), stdin=stdin, check=check, timeout=timeout, new_session=True, title=title)
