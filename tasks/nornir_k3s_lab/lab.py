"""A lab: boot the hosts of a Nornir inventory as containers on this machine, and remove them completely."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nornir_k3s_lab import cgroups, network, nspawn
from nornir_k3s_lab.container import Container, used_images
from nornir_k3s_lab.errors import LabConfigError, LabError
from nornir_k3s_lab.files import default_umask, locked
from nornir_k3s_lab.image import ensure_images
from nornir_k3s_lab.inventory import load
from nornir_k3s_lab.kernel_settings import raise_settings, restore_settings
from nornir_k3s_lab.keys import ensure_key, ensure_password, update_known_hosts
from nornir_k3s_lab.model import HostStatus, LabHost, LabSpec, problems_of
from nornir_k3s_lab.mounts import mount_type, remove_folder
from nornir_k3s_lab.system import require_programs, require_root

CACHE = Path("/var/cache/nornir-k3s-lab")
RUNTIME = Path("/var/lib/nornir-k3s-lab")
SETTINGS = "machine-settings.json"


class Lab:
    """The hosts of a lab on this machine.

    Arguments:
        name: Short name of the lab; labs with different names and networks can run at the same time.
        network: IPv4 network; this machine gets its first address.
        hosts: The hosts.
        folder: The folder of the key to log in with, and of known_hosts.
        cache: The folder of the images.
        runtime: The folder of the disks of the hosts, while they exist; not on an overlay file system.
        key_file: The private key, when it is not `folder/id_ed25519`.
        known_hosts: The file of the host keys, when it is not `folder/known_hosts`.
        say: Takes progress lines.

    Raises:
        LabConfigError: With all problems of name, network and hosts.
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
        self._containers = {host.name: Container(self.spec, host, self.folder) for host in hosts}

    @classmethod
    def from_inventory(
        cls, config: Path, inventory: Path | None = None, *, say: Callable[[str], None] = lambda _: None
    ) -> Lab:
        """Read a lab from the config.yaml of Nornir, and from its inventory or the one in a given folder."""
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
        """The name of the lab."""
        return self.spec.name

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """The hosts of the lab."""
        return self.spec.hosts

    @default_umask()
    def up(self) -> list[str]:
        """Boot every host that is not running, and wait until all accept logins; return the names of those booted."""
        require_root()
        require_programs(self.say)
        if mount_type(self.runtime) == "overlay":
            raise LabError(
                f"{self.runtime} is on an overlay file system, which cannot hold the disks of the hosts",
                hint="mount another file system there, such as ext4",
            )
        images = self._images(self._containers.values())
        with locked(self.folder, self.say):
            self._check_unchanged()
            with locked(self.runtime):
                network.check_free(self.name, self.spec.network)
                raise_settings(self.runtime / SETTINGS)
                nspawn.prepare_state()
                network.ensure_bridge(self.name, self.spec.gateway)
            self._ensure_credentials()
            missing = [container for container in self._containers.values() if not container.init]
            if missing:
                self.say(f"booting {', '.join(container.host.name for container in missing)}")
            self._each(missing, lambda container: self._boot(container, images))
            self._record_host_keys()
            self._wait(self._containers.values())
            self._check_firewall()
        return [container.host.name for container in missing]

    def _check_unchanged(self) -> None:
        changed = [name for name, container in self._containers.items() if container.outdated()]
        unknown = sorted(cgroups.hosts_of(self.name) - self._containers.keys())
        if differing := changed + unknown:
            raise LabError(
                f"the lab {self.name} runs with a different inventory; hosts that differ: {', '.join(differing)}",
                hint="run `lab down`, then `lab up`",
            )

    def _check_firewall(self) -> None:
        if len(self.hosts) < 2 or not network.bridges_are_filtered():
            return
        first, second = self.hosts[:2]
        if self._container(first.name).run(["ping", "-c3", "-W2", second.address], check=False).returncode:
            raise LabError(
                f"{first.name} cannot reach {second.name}: the firewall of this machine drops bridged packets",
                hint="allow them in the firewall, or run: sysctl -w net.bridge.bridge-nf-call-iptables=0",
            )

    def _ensure_credentials(self) -> None:
        # Before the hosts are created in parallel: they share the key, and may share a password.
        ensure_key(self.spec.key_file)
        for host in self.hosts:
            if host.sudo_password_file:
                ensure_password(host.sudo_password_file)

    def _images(self, containers: Iterable[Container]) -> dict[str, Path]:
        releases = {container.host.release for container in containers}
        return ensure_images(self.cache, sorted(releases), self.say, used_images(self.runtime))

    def _boot(self, container: Container, images: Mapping[str, Path]) -> None:
        if not container.exists:
            container.destroy(keep_host_key=True)
            container.create(images[container.host.release])
        container.power_on()

    def _wait(self, containers: Iterable[Container]) -> None:
        def wait(container: Container) -> None:
            if failed := container.wait_ready():
                self.say(f"{container.host.name}: booted, but these units failed: {' '.join(failed)}")

        self._each(list(containers), wait)

    def _record_host_keys(self) -> None:
        update_known_hosts(
            self.spec.known_hosts, {one.host.address: one.host_key() for one in self._containers.values()}
        )

    def _each(self, containers: Sequence[Container], action: Callable[[Container], None]) -> None:
        if not containers:
            return
        with ThreadPoolExecutor(max_workers=len(containers)) as pool:
            results = [pool.submit(action, container) for container in containers]
        problems = [error for error in (result.exception() for result in results) if error]
        for error in problems:
            if not isinstance(error, LabError):
                raise error
        if problems:
            raise LabError("\n".join(str(error) for error in problems))

    def status(self) -> list[HostStatus]:
        """Return the state of every host."""
        require_root()
        return [container.status() for container in self._containers.values()]

    def down(self, *, image: bool = False) -> None:
        """Remove everything of the lab, whatever its state; with `image`, all images too, unless another lab exists."""
        require_root()
        if self.folder.exists() or cgroups.hosts_of(self.name):
            with locked(self.folder, self.say):
                names = {entry.name for entry in self.folder.iterdir() if entry.is_dir()} | cgroups.hosts_of(self.name)
                everything = {name: Container(self.spec, LabHost(name, ""), self.folder) for name in names}
                self._each(list({**everything, **self._containers}.values()), Container.destroy)
                network.remove_links(self.name)
                cgroups.remove(self.name)
                remove_folder(self.folder)
        network.remove_links(self.name)
        update_known_hosts(self.spec.known_hosts, {host.address: None for host in self.hosts})
        self._restore_machine()
        if image:
            self._remove_image()

    def _restore_machine(self) -> None:
        if not self.runtime.exists():
            return
        with locked(self.runtime):
            if cgroups.any_exists() or any(entry.is_dir() for entry in self.runtime.iterdir()):
                return  # another lab exists
            restore_settings(self.runtime / SETTINGS)
            cgroups.remove()
            nspawn.remove_state()
            remove_folder(self.runtime)

    def _remove_image(self) -> None:
        if not self.cache.exists():
            return
        with locked(self.cache, self.say):
            if self.runtime.exists():
                self.say(f"the images in {self.cache} are kept: another lab exists")
                return
            remove_folder(self.cache)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs a command as root in a host, without SSH."""
        return self._container(host).command(argv)

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in a host, without SSH."""
        return self._container(host).run(argv, stdin=input, check=check, timeout=timeout)

    def ssh(self, host: str, argv: Sequence[str] = ()) -> list[str]:
        """Return the OpenSSH command line that logs in to a host as its user, or runs a command there."""
        return self._containers[self._host(host).name].ssh_command(argv)

    def cut(self, host: str) -> None:
        """Disconnect the network cable of a host."""
        self._container(host)
        network.set_link(self.name, host, "down")

    def heal(self, host: str) -> None:
        """Connect the network cable of a host again."""
        self._container(host)
        network.set_link(self.name, host, "up")

    def poweroff(self, host: str, *, hard: bool = False) -> None:
        """Shut a host down, or with `hard` cut its power; its disk stays."""
        self._container(host).power_off(hard=hard)

    def poweron(self, host: str) -> None:
        """Boot a host from its disk, and wait until it accepts logins."""
        container = self._container(host)
        if not container.exists:
            raise LabError(f"{host} has no disk to boot from", hint="run `lab up`")
        container.power_on()
        self._wait([container])

    @default_umask()
    def reset(self, *hosts: str) -> None:
        """Remove the disks of these hosts and boot them as bare Linux; they keep address and host key."""
        containers = [self._container(host) for host in hosts]
        images = self._images(containers)

        def fresh(container: Container) -> None:
            container.destroy(keep_host_key=True)
            self._boot(container, images)

        with locked(self.folder, self.say):
            self._ensure_credentials()
            self._each(containers, fresh)
            self._record_host_keys()
            self._wait(containers)

    def reset_all(self) -> None:
        """Remove the disks of all hosts and boot them as bare Linux, in parallel."""
        self.reset(*self._containers)

    def _container(self, host: str) -> Container:
        self._host(host)
        require_root()
        return self._containers[host]

    def _host(self, host: str) -> LabHost:
        try:
            return self._containers[host].host
        except KeyError:
            raise LabConfigError(f"the lab {self.name} has no host {host!r}: {', '.join(self._containers)}") from None
