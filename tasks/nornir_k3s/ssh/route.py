"""Routes: how a host's sshd is reached, by inventory and ssh_config together, and through which jump hosts.

netmiko reads ssh_config by itself, but takes no identities from it, does not have a jump host's own key checked as
strictly, and fails on `jump:2222`, `none`, IPv6 and more than one jump. So it is given the outcome instead.
A ProxyCommand runs as it is written: whose host keys it trusts is not checked here.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nornir.core.configuration import Config
from nornir.core.inventory import Host
from paramiko.ssh_exception import NoValidConnectionsError

from nornir_k3s.ssh.classify import Target, is_transient
from nornir_k3s.ssh.identity import exists
from nornir_k3s.ssh.ssh_config import SSHConfigError, lookup
from nornir_k3s.ssh.tunnel import Tunnel, TunnelFailed

CONNECTION = "netmiko"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts"
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:/]+)(?::(?P<port>\d+))?/?")
# Many run at the same time: none may ask a question, none may write to known_hosts.
_JUMP_OPTIONS = (
    "BatchMode=yes",
    "UpdateHostKeys=no",
    "LogLevel=INFO",
    "ConnectTimeout=10",
    "ServerAliveInterval=20",
    "ServerAliveCountMax=3",
)


@dataclass(frozen=True)
class Route:
    """How a host's sshd is reached.

    Arguments:
        address: A name or an IP address.
        port: Of its sshd.
        user: Whom to log in as.
        known_hosts: The file its host key must be in.
        identities: The key files that ssh_config names, those that exist.
        identities_only: Whether ssh_config says that no other keys are offered.
        agent: The socket of the SSH agent, `none`, or nothing where it is that of the environment.
        jump: The route to the jump host before it.
        proxy: The program whose input and output are connected to the sshd.
        ssh_args: The arguments that `ssh` is given for it, where it is a jump host itself.
    """

    address: str
    port: int
    user: str
    known_hosts: Path
    identities: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    jump: Route | None = None
    proxy: tuple[str, ...] = ()
    ssh_args: tuple[str, ...] = ()

    @property
    def known_hosts_name(self) -> str:
        """The name of the host in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def jumps(self) -> Iterator[Route]:
        """The routes to its jump hosts, the nearest to the host first."""
        jump = self.jump
        while jump:
            yield jump
            jump = jump.jump

    def target(self, host: str) -> Target:
        """Return what messages about this host say of it."""
        return Target(host, self.address, self.port, self.user, str(self.known_hosts))

    def connect(self, timeout: float) -> socket.socket:
        """Return a socket that is connected to the sshd.

        Raises:
            OSError: It cannot be reached; what goes wrong in a proxy is known later, from `Tunnel.failure`.
        """
        if self.proxy:
            return Tunnel(self.proxy)
        try:
            return socket.create_connection((self.address, self.port), timeout)
        except (socket.gaierror, TimeoutError):
            raise
        except OSError as error:
            raise NoValidConnectionsError({(self.address, self.port): error}) from None


def resolve_route(host: Host, config: Config | None) -> Route:
    """Return the route to a host; the inventory takes precedence over ssh_config.

    Arguments:
        host: Nornir's host; its connection "netmiko" is meant.
        config: Nornir's, for the path of ssh_config where the connection's extras have none.

    Raises:
        SSHConfigError: There is no such ssh_config, or it has a mistake.
    """
    known = host.get_connection_parameters(CONNECTION)
    extras = known.extras or {}
    resolver = _Resolver(_config_file(extras, config), known_hosts_file(extras), strict=is_strict(extras))
    # As with netmiko, the usual port in the inventory leaves the decision to ssh_config.
    port = known.port if known.port != 22 else None
    return resolver.route(known.hostname or host.name, port=port, user=known.username)


@contextlib.contextmanager
def tunnel_failures(sock: socket.socket | None) -> Iterator[None]:
    """Close a socket on which connecting failed; where it is a tunnel, raise what its program said.

    Raises:
        TunnelFailed: With those words, caused by the error.
    """
    try:
        yield
    except Exception as error:
        if sock:
            sock.close()
        # A refused login or a wrong host key came through the tunnel: the tunnel itself worked.
        if isinstance(sock, Tunnel) and is_transient(error) and (said := sock.failure()):
            raise TunnelFailed(said) from error
        raise


def is_strict(extras: dict[str, Any]) -> bool:
    """Say whether host keys are checked: they are, unless the option is literally `ssh_strict: false`."""
    return extras.get("ssh_strict") is not False


def known_hosts_file(extras: dict[str, Any]) -> Path:
    """Return the file of host keys that a connection with these options trusts."""
    return Path(str(extras.get("alt_key_file") or USER_KNOWN_HOSTS)).expanduser()


def _config_file(extras: dict[str, Any], config: Config | None) -> Path | None:
    if "ssh_config_file" not in extras:
        usual = Path((config or Config()).ssh.config_file).expanduser().absolute()
        return usual if usual.is_file() else None
    if not extras["ssh_config_file"]:
        return None
    named = Path(str(extras["ssh_config_file"])).expanduser().absolute()
    if not named.is_file():
        raise SSHConfigError(f"ssh_config_file {named} does not exist")
    return named


@dataclass(frozen=True)
class _Resolver:
    """One ssh_config file, and the inventory's options for host keys."""

    file: Path | None
    known_hosts: Path
    strict: bool

    def route(
        self,
        name: str,
        *,
        port: int | None = None,
        user: str | None = None,
        jump: Route | None = None,
        seen: tuple[str, ...] = (),
    ) -> Route:
        """Return the route to what ssh_config knows by this name; a jump that is given replaces its own."""
        if name in seen:
            raise SSHConfigError(f"ProxyJump leads in a circle: {', '.join([*seen, name])}")
        if self.file is None:  # no process is started for it
            return Route(name, port or 22, user or getpass.getuser(), self.known_hosts)
        found = lookup(self.file, name, port=port, user=user)
        proxy: tuple[str, ...] = ()
        if jump := jump or self._jump_route(found.proxy_jump, (*seen, name)):
            proxy = self._ssh_command(jump, f"[{found.address}]:{found.port}")
        elif found.proxy_command:
            proxy = ("/bin/sh", "-c", f"exec {found.proxy_command}")
        return Route(
            address=found.address,
            port=found.port,
            user=found.user,
            known_hosts=self.known_hosts,
            identities=tuple(key for key in found.identities if exists(key)),
            identities_only=found.identities_only,
            agent=found.agent,
            jump=jump,
            proxy=proxy,
            ssh_args=(*(["-p", str(port)] if port else []), *(["-l", user] if user else []), "--", name),
        )

    def _jump_route(self, specs: str, seen: tuple[str, ...]) -> Route | None:
        """Return the route to the last of some jump hosts, which leads through those before it."""
        jump: Route | None = None
        for spec in specs.split(",") if specs else ():
            parts = _JUMP.fullmatch(spec.strip())
            if parts is None:
                raise SSHConfigError(f"ProxyJump cannot be read: {spec}")
            port = int(parts["port"]) if parts["port"] else None
            jump = self.route(parts["host"].strip("[]"), port=port, user=parts["user"], jump=jump, seen=seen)
        return jump

    def _ssh_command(self, jump: Route, destination: str) -> tuple[str, ...]:
        """Return the command that forwards through a jump host; every jump host's key is checked as the host's is."""
        options = [*_JUMP_OPTIONS, f'GlobalKnownHostsFile={_GLOBAL_KNOWN_HOSTS} "{self.known_hosts.absolute()}"']
        if self.strict:
            options.append("StrictHostKeyChecking=yes")
        if jump.jump:  # not ssh's own ProxyJump: the `ssh` that it starts would not get these options
            inner = shlex.join(self._ssh_command(jump.jump, f"[{jump.address}]:{jump.port}"))
            options.append(f"ProxyCommand={inner.replace('%', '%%')}")
        words = [word for option in options for word in ("-o", option)]
        return ("ssh", "-F", str(self.file), *words, "-W", destination, *jump.ssh_args)
