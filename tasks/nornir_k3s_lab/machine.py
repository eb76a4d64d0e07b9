"""One host of the lab: its disk, its boot, its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nornir_k3s_lab import cgroups, network, nspawn
from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.guest import PATH, identity_files, prepare_script
from nornir_k3s_lab.keys import ensure_key, ensure_password
from nornir_k3s_lab.model import LabHost, LabSpec
from nornir_k3s_lab.system import mount_points, remove_folder, run, unmount_below, wait_until, write_private

BOOT_SECONDS = 180
POWER_OFF_SECONDS = 150  # systemd itself gives a service 90 to end
# containerd keeps its layers here, and cannot on an overlay of an overlay.
REAL_FOLDERS = {"rancher": "/var/lib/rancher", "kubelet": "/var/lib/kubelet"}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def used_images(runtime: Path) -> set[Path]:
    """The images that hosts of any lab have their disks on."""
    found = set()
    for record in runtime.glob("*/*/host.json"):
        with contextlib.suppress(FileNotFoundError):  # its host is just being thrown away
            found.add(Path(json.loads(record.read_text())["image"]))
    return found


class Machine:
    """A host as a machine that can be switched on and off.

    Arguments:
        spec: The lab.
        host: The host.
        runtime: The lab's folder for what runs.
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
        """The process that is number 1 in the host, while it runs."""
        return cgroups.init_of(self.group)

    @property
    def exists(self) -> bool:
        """Whether the host has a disk that was prepared to the end, since this machine was started."""
        return self.record.exists() and self._recorded()["boot"] == _boot_id()

    def wanted(self) -> dict[str, Any]:
        """What the host was, or would be, prepared for; as JSON knows it."""
        asked = {**asdict(self.host), "gateway": self.spec.gateway}
        return {key: None if value is None else str(value) for key, value in asked.items()}

    def outdated(self) -> bool:
        """Whether the host was prepared for something else than the inventory says now."""
        return self.exists and self._recorded()["host"] != self.wanted()

    def _recorded(self) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads(self.record.read_text())
        return recorded

    def create(self, image: Path) -> None:
        """Give the host a fresh disk on top of the image, with its user, keys and name; keep its host key."""
        identity = self.folder / "ssh_host_ed25519_key"
        for name in ("upper", "work", *REAL_FOLDERS):
            remove_folder(self.folder / name)
            (self.folder / name).mkdir(parents=True, mode=0o755)
        self.folder.chmod(0o700)
        self._mount(image)
        public = ensure_key(identity)
        write_private(self.root / "etc/ssh/ssh_host_ed25519_key", identity.read_text())
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(public + "\n")
        files = identity_files(self.host.name, self.host.address, self.spec.gateway, uuid.uuid4().hex)
        for name, text in files.items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_text(text)
        password = ensure_password(self.host.sudo_password_file) if self.host.sudo_password_file else ""
        script = prepare_script(self.host.user, ensure_key(self.spec.key_file), password)
        run(["chroot", self.root, "sh", "-s"], stdin=script, env={"PATH": PATH})
        write_private(self.record, json.dumps({"host": self.wanted(), "image": str(image), "boot": _boot_id()}))

    def host_key(self) -> str:
        """The public key the host's sshd shows."""
        return ensure_key(self.folder / "ssh_host_ed25519_key")

    def _mount(self, image: Path) -> None:
        self.root.mkdir(exist_ok=True)
        if mount_points(self.root):
            return
        # Never waits for the machine's disk, so a host's disk is worth nothing after a restart of the machine; the
        # kernel marks it so, and takes it a second time only without the mark.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / "work/work/incompat")
        layers = f"lowerdir={image}/root,upperdir={self.folder}/upper,workdir={self.folder}/work"
        run(["mount", "-t", "overlay", "-o", f"{layers},volatile", f"lab-{self.host.name}", self.root])

    def power_on(self) -> None:
        """Boot the host from its disk; does not wait for it."""
        if self.init:
            return
        image = Path(self._recorded()["image"])
        if not image.exists():
            raise LabError(f"{self.host.name}: its image {image} is gone", hint="run `lab down`, then `lab up`")
        self._clear()
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
        )

    def power_off(self, *, hard: bool = False) -> None:
        """Switch the host off and keep its disk; `hard` cuts the power."""
        init = self.init
        if init and not hard:
            cgroups.send(self.group, init, signal.SIGRTMIN + 4)
            with contextlib.suppress(LabError):
                wait_until(lambda: not cgroups.members(self.group), "power off", POWER_OFF_SECONDS)
        self._clear()

    def _clear(self) -> None:
        cgroups.kill(self.group)
        network.detach(self.spec.name, self.host.name, self.namespace)
        nspawn.forget(self.root, self.machine_name)
        unmount_below(self.folder)
        cgroups.remove(self.group)

    def destroy(self, *, keep_identity: bool = False) -> None:
        """End everything of the host, and throw its disk away; its host key may stay for the next one."""
        self._clear()
        self.record.unlink(missing_ok=True)
        if not keep_identity:
            remove_folder(self.folder)

    def wait_ready(self) -> list[str]:
        """Wait until sshd answers and systemd has started everything; return the units that failed."""
        wait_until(self._sshd_answers, f"{self.host.name}: sshd answers on {self.host.address}", BOOT_SECONDS)
        state = run(self.enter(["systemctl", "is-system-running", "--wait"]), check=False, timeout=BOOT_SECONDS)
        if state.stdout.strip() == "running":
            return []
        failed = run(self.enter(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]), check=False)
        return [line.split()[0] for line in failed.stdout.splitlines() if line.strip()] or [state.stdout.strip()]

    def _sshd_answers(self) -> bool:
        if not cgroups.members(self.group):
            with contextlib.suppress(OSError):
                tail = (self.folder / "console.log").read_text(errors="replace").splitlines()[-10:]
                raise LabError(f"{self.host.name} did not boot:\n" + "\n".join(tail))
        try:
            with socket.create_connection((self.host.address, 22), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(256).startswith(b"SSH-")
        except OSError:
            return False

    def enter(self, argv: list[str]) -> list[str]:
        """The command line that runs a command as root inside the host, from outside and without sshd."""
        init = self.init
        if init is None:
            raise LabError(f"{self.host.name} is not running", hint="run `lab status`")
        terminal = os.environ.get("TERM", "dumb")
        inside = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", f"TERM={terminal}"]
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        return ["nsenter", f"--target={init}", *spaces, "--", *inside, *argv]
