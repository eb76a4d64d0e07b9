"""The lab: real hosts on this machine, booted from a Nornir inventory and taken away without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nornir_k3s_lab import cgroups, network, nspawn
from nornir_k3s_lab.errors import LabConfigError, LabError
from nornir_k3s_lab.image import ensure_image
from nornir_k3s_lab.keys import ensure_key, ensure_password, update_known_hosts
from nornir_k3s_lab.machine import Machine, used_images
from nornir_k3s_lab.model import LabHost, LabSpec, load, problems_of
from nornir_k3s_lab.system import (
    locked,
    mount_type,
    plain_umask,
    raise_settings,
    remove_folder,
    require_programs,
    require_root,
    restore_settings,
)

CACHE = Path("/var/cache/nornir-k3s-lab")
RUNTIME = Path("/var/lib/nornir-k3s-lab")
SETTINGS = "machine-settings.json"


@dataclass(frozen=True)
class HostStatus:
    """What is to be seen of one host.

    Arguments:
        host: The host.
        state: `running`, `off` (it has a disk) or `absent`.
        init: The machine's number of the host's process 1.
        link: The machine's end of its network link.
    """

    host: LabHost
    state: str
    init: int | None
    link: str


class Lab:
    """Real hosts on this machine.

    Arguments:
        name: Short name of the lab; labs with other names and networks may be up at the same time.
        network: IPv4 range; the machine itself has its first address.
        hosts: The hosts.
        folder: Where the key to log in with and known_hosts are kept.
        cache: Where the image is kept.
        runtime: Where the disks of the hosts are, while they exist; not on an overlay.
        key_file: The private key, when it is not `folder/id_ed25519`.
        known_hosts: The file of host keys, when it is not `folder/known_hosts`.
        say: Takes progress lines.
    """

    def __init__(
        self,
        name: str,
        network: str,
        hosts: Sequence[LabHost],
        folder: Path,
        *,
        cache: Path = CACHE,
        runtime: Path = RUNTIME,
        key_file: Path | None = None,
        known_hosts: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if problems := problems_of(name, network, hosts):
            raise LabConfigError(*problems)
        self.spec = LabSpec(
            name,
            network,
            tuple(hosts),
            key_file=key_file or folder / "id_ed25519",
            known_hosts=known_hosts or folder / "known_hosts",
        )
        self.cache = cache
        self.runtime = runtime
        self.folder = runtime / name
        self.say = say
        self._machines = {host.name: Machine(self.spec, host, self.folder) for host in hosts}

    @classmethod
    def from_inventory(
        cls, config: Path, inventory: Path | None = None, *, say: Callable[[str], None] = lambda _: None
    ) -> Lab:
        """Read the lab from Nornir's config.yaml, and the inventory it names or the given folder."""
        spec = load(config, inventory)
        return cls(
            spec.name,
            spec.network,
            spec.hosts,
            spec.key_file.parent,
            key_file=spec.key_file,
            known_hosts=spec.known_hosts,
            say=say,
        )

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.spec.name

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """The lab's hosts."""
        return self.spec.hosts

    @plain_umask()
    def up(self) -> list[str]:
        """Boot every host that does not run, and wait until all take logins; return the names of those booted."""
        require_root()
        require_programs(self.say)
        if mount_type(self.runtime) == "overlay":
            raise LabError(
                f"{self.runtime} is on an overlay, and hosts cannot have their disks there",
                hint="mount a real file system there",
            )
        image = ensure_image(self.cache, self.say, used_images(self.runtime))
        with locked(self.folder, self.say):
            self._refuse_changed()
            with locked(self.runtime):
                network.refuse_taken(self.name, self.spec.network)
                raise_settings(self.runtime / SETTINGS)
                nspawn.prepare_state()
                network.ensure_bridge(self.name, self.spec.gateway)
            self._ensure_credentials()
            missing = [machine for machine in self._machines.values() if not machine.init]
            if missing:
                self.say(f"booting {', '.join(machine.host.name for machine in missing)}")
            self._each(missing, lambda machine: self._boot(machine, image))
            self._remember_host_keys()
            self._wait(self._machines.values())
            self._refuse_firewall()
        return [machine.host.name for machine in missing]

    def _refuse_changed(self) -> None:
        changed = [name for name, machine in self._machines.items() if machine.outdated()]
        strangers = sorted(cgroups.groups_of(self.name) - self._machines.keys())
        if changed or strangers:
            raise LabError(
                f"the lab {self.name} is up with another inventory: {', '.join(changed + strangers)} differ",
                hint="run `lab down`, then `lab up`",
            )

    def _refuse_firewall(self) -> None:
        if len(self.hosts) < 2 or not network.bridges_are_filtered():
            return
        first, second = self.hosts[:2]
        if self.exec(first.name, ["ping", "-c3", "-W2", second.address], check=False).returncode:
            raise LabError(
                f"{first.name} cannot reach {second.name}: this machine's firewall drops what passes its bridges",
                hint="allow it, or: sysctl -w net.bridge.bridge-nf-call-iptables=0",
            )

    def _ensure_credentials(self) -> None:
        # Before the hosts are prepared side by side: they share the key, and may share a password.
        ensure_key(self.spec.key_file)
        for host in self.hosts:
            if host.sudo_password_file:
                ensure_password(host.sudo_password_file)

    def _boot(self, machine: Machine, image: Path) -> None:
        if not machine.exists:
            machine.destroy(keep_identity=True)
            machine.create(image)
        machine.power_on()

    def _wait(self, machines: Iterable[Machine]) -> None:
        def wait(machine: Machine) -> None:
            if failed := machine.wait_ready():
                self.say(f"{machine.host.name}: started, but these units failed: {' '.join(failed)}")

        self._each(list(machines), wait)

    def _remember_host_keys(self) -> None:
        update_known_hosts(self.spec.known_hosts, {m.host.address: m.host_key() for m in self._machines.values()})

    def _each(self, machines: Sequence[Machine], action: Callable[[Machine], None]) -> None:
        if not machines:
            return
        with ThreadPoolExecutor(max_workers=len(machines)) as pool:
            results = [pool.submit(action, machine) for machine in machines]
        problems = [error for error in (result.exception() for result in results) if error]
        for error in problems:
            if not isinstance(error, LabError):
                raise error
        if problems:
            raise LabError("\n".join(str(error) for error in problems))

    def status(self) -> list[HostStatus]:
        """What is to be seen of every host."""
        require_root()
        found = []
        for name, machine in self._machines.items():
            init = machine.init
            state = "running" if init else "off" if machine.exists else "absent"
            found.append(HostStatus(machine.host, state, init, network.link_name(self.name, name)))
        return found

    def down(self, *, image: bool = False) -> None:
        """Take everything of the lab away, whatever state it is in; with `image`, the image as well."""
        require_root()
        if self.folder.exists() or cgroups.groups_of(self.name):
            with locked(self.folder, self.say):
                names = {entry.name for entry in self.folder.iterdir() if entry.is_dir()} | cgroups.groups_of(self.name)
                strangers = {name: Machine(self.spec, LabHost(name, ""), self.folder) for name in names}
                self._each(list({**strangers, **self._machines}.values()), Machine.destroy)
                network.remove_links(self.name)
                cgroups.remove(self.name)
                remove_folder(self.folder)
        network.remove_links(self.name)
        update_known_hosts(self.spec.known_hosts, {host.address: None for host in self.hosts})
        self._leave_machine()
        if image:
            self._remove_image()

    def _leave_machine(self) -> None:
        if not self.runtime.exists():
            return
        with locked(self.runtime):
            if cgroups.any_left() or any(entry.is_dir() for entry in self.runtime.iterdir()):
                return  # another lab is up
            restore_settings(self.runtime / SETTINGS)
            cgroups.remove()
            nspawn.remove_state()
            remove_folder(self.runtime)

    def _remove_image(self) -> None:
        if not self.cache.exists():
            return
        with locked(self.cache, self.say):
            if self.runtime.exists():
                raise LabError(f"the image in {self.cache} stays: another lab is up", hint="take that one down first")
            remove_folder(self.cache)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command as root inside a host, from outside and without its sshd."""
        return self._machine(host).enter(list(argv))

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside a host, from outside and without its sshd; for faults and for looking."""
        process = subprocess.Popen(
            self.command(host, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(input or "", timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{host}: {' '.join(argv)} did not end within {timeout:.0f} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if check and process.returncode:
            raise LabError(f"{host}: {' '.join(argv)} failed with status {process.returncode}\n{(err or out).strip()}")
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def ssh(self, host: str, argv: Sequence[str] = ()) -> list[str]:
        """The command line of OpenSSH that logs in to a host as its user."""
        options = [f"UserKnownHostsFile={self.spec.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
        words = [word for option in options for word in ("-o", option)]
        login = f"{self._host(host).user}@{self._host(host).address}"
        return ["ssh", "-F", "none", "-i", str(self.spec.key_file), *words, login, *argv]

    def cut(self, host: str) -> None:
        """Pull the host's network cable, from outside."""
        self._machine(host)
        network.set_link(self.name, host, "down")

    def heal(self, host: str) -> None:
        """Plug the host's network cable in again."""
        self._machine(host)
        network.set_link(self.name, host, "up")

    def poweroff(self, host: str, *, hard: bool = False) -> None:
        """Switch a host off and keep its disk; `hard` cuts the power instead of shutting it down."""
        self._machine(host).power_off(hard=hard)

    def poweron(self, host: str) -> None:
        """Boot a host from its disk, and wait until it takes logins."""
        machine = self._machine(host)
        if not machine.exists:
            raise LabError(f"{host} has no disk to boot from", hint="run `lab up`")
        machine.power_on()
        self._wait([machine])

    @plain_umask()
    def reset(self, *hosts: str) -> None:
        """Throw the disks of these hosts away and boot them as bare Linux; they keep address and host key."""
        machines = [self._machine(host) for host in hosts]
        image = ensure_image(self.cache, self.say, used_images(self.runtime))

        def fresh(machine: Machine) -> None:
            machine.destroy(keep_identity=True)
            self._boot(machine, image)

        with locked(self.folder, self.say):
            self._ensure_credentials()
            self._each(machines, fresh)
            self._remember_host_keys()
            self._wait(machines)

    def reset_all(self) -> None:
        """Throw the disks of all hosts away and boot them as bare Linux, all at once."""
        self.reset(*self._machines)

    def _machine(self, host: str) -> Machine:
        self._host(host)
        require_root()
        return self._machines[host]

    def _host(self, host: str) -> LabHost:
        try:
            return self._machines[host].host
        except KeyError:
            raise LabConfigError(f"the lab {self.name} has no host {host!r}: {', '.join(self._machines)}") from None
