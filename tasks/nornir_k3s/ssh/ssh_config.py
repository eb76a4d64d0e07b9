"""Ways: where a host's connection leads, by inventory and ssh_config together, and through which jump hosts.

netmiko reads ssh_config by itself, but takes no identities from it, does not have a jump host's own key checked as
strictly, and trips over `jump:2222`, `none`, IPv6 and more than one jump. So it is given the outcome instead.
`Include` is not followed, as it never was. A ProxyCommand runs as it is written: whom it trusts is its own affair.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import paramiko
from nornir.core.configuration import Config
from nornir.core.inventory import Host
from paramiko.ssh_exception import NoValidConnectionsError

from nornir_k3s.ssh import lazy_paramiko
from nornir_k3s.ssh.classify import Target, is_transient
from nornir_k3s.ssh.tunnel import Tunnel, TunnelFailed

CONNECTION = "netmiko"
USERS_OWN = "~/.ssh/known_hosts"
GLOBAL = "/etc/ssh/ssh_known_hosts"
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:/]+)(?::(?P<port>\d+))?/?")
# Many run at once: none may ask, none may write to known_hosts.
_ALWAYS = ("BatchMode=yes", "UpdateHostKeys=no", "LogLevel=INFO", "ConnectTimeout=10")
_NOTICE = ("ServerAliveInterval=20", "ServerAliveCountMax=3")


@dataclass(frozen=True)
class Way:
    """Where a connection leads.

    Arguments:
        address: A name or an IP address.
        port: Of its sshd.
        user: Whom to log in as.
        known_hosts: The file its host key must be in.
        identity: The key file that ssh_config names, where it exists.
        jump: The way to the jump host before it.
        proxy: The program whose input and output lead there.
        ssh: The arguments that lead `ssh` there, for what is jumped through.
    """

    address: str
    port: int
    user: str
    known_hosts: Path
    identity: str = ""
    jump: Way | None = None
    proxy: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How known_hosts names it."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    def target(self, host: str) -> Target:
        """Return what messages about this host say of it."""
        return Target(host, self.address, self.port, self.user, str(self.known_hosts))

    def connect(self, timeout: float) -> socket.socket:
        """Return a socket that leads there.

        Raises:
            OSError: It cannot be reached; what a proxy has to say shows itself later, in `Tunnel.failure`.
        """
        if self.proxy:
            return Tunnel(self.proxy)
        try:
            return socket.create_connection((self.address, self.port), timeout)
        except (socket.gaierror, TimeoutError):
            raise
        except OSError as error:
            raise NoValidConnectionsError({(self.address, self.port): error}) from None


def way_to(host: Host, config: Config | None) -> Way:
    """Return the way to a host; what the inventory says comes before what ssh_config says.

    Arguments:
        host: Nornir's host; its connection "netmiko" is meant.
        config: Nornir's, for the path of ssh_config where the connection's extras have none.

    Raises:
        ValueError: There is no such ssh_config, or a jump in it cannot be read.
        ConfigParseError: ssh_config cannot be read.
    """
    known = host.get_connection_parameters(CONNECTION)
    extras = known.extras or {}
    book = _Book(_file(extras, config), known_hosts_of(extras), strict=strict(extras))
    # As with netmiko, the usual port in the inventory leaves the word to ssh_config.
    port = known.port if known.port != 22 else None
    return book.way(known.hostname or host.name, port=port, user=known.username)


@contextlib.contextmanager
def blaming(sock: socket.socket | None) -> Iterator[None]:
    """Close a socket that led nowhere; where it is a tunnel, what that one said is raised.

    Raises:
        TunnelFailed: With those words, caused by the error.
    """
    try:
        yield
    except Exception as error:
        if sock:
            sock.close()
        # A login that was refused, or a key, came through the tunnel: that was well, then.
        if isinstance(sock, Tunnel) and is_transient(error) and (said := sock.failure()):
            raise TunnelFailed(said) from error
        raise


def strict(extras: dict[str, Any]) -> bool:
    """Tell whether host keys are checked: unless `ssh_strict: false` says in so many words that they are not."""
    return extras.get("ssh_strict") is not False


def known_hosts_of(extras: dict[str, Any]) -> Path:
    """Return the file of host keys that a connection with these options trusts."""
    return Path(str(extras.get("alt_key_file") or USERS_OWN)).expanduser()


def _file(extras: dict[str, Any], config: Config | None) -> Path | None:
    if "ssh_config_file" not in extras:
        usual = Path((config or Config()).ssh.config_file).expanduser().absolute()
        return usual if usual.is_file() else None
    if not extras["ssh_config_file"]:
        return None
    named = Path(str(extras["ssh_config_file"])).expanduser().absolute()
    if not named.is_file():
        raise ValueError(f"ssh_config_file {named} does not exist")
    return named


@dataclass(frozen=True)
class _Book:
    """One ssh_config, with what the inventory says of host keys."""

    file: Path | None
    known_hosts: Path
    strict: bool

    def way(
        self,
        name: str,
        *,
        port: int | None = None,
        user: str | None = None,
        jump: Way | None = None,
        seen: tuple[str, ...] = (),
    ) -> Way:
        """Return the way to what ssh_config knows by this name; a jump that is given replaces its own."""
        if name in seen:
            raise ValueError(f"ProxyJump leads in a circle: {', '.join([*seen, name])}")
        found = self._lookup(name, port, user)
        address, number = found["hostname"], int(found.get("port") or 22)
        keys = (Path(key).expanduser() for key in found.get("identityfile") or ())
        command = found.get("proxycommand")
        if jump is None and "proxycommand" not in found:  # OpenSSH takes what comes first, paramiko cannot tell
            jump = self._last(found.get("proxyjump") or "none", (*seen, name))
        if jump:
            proxy = self._ssh(jump, f"[{address}]:{number}")
        else:
            # paramiko puts values for tokens, but leaves the sign for a percent sign as it is.
            proxy = ("/bin/sh", "-c", f"exec {command.replace('%%', '%')}") if command else ()
        given = [*(["-p", str(port)] if port else []), *(["-l", user] if user else [])]
        return Way(
            address=address,
            port=number,
            user=found.get("user") or getpass.getuser(),
            known_hosts=self.known_hosts,
            identity=next((str(key) for key in keys if key.is_file()), ""),
            jump=jump,
            proxy=proxy,
            ssh=(*given, "--", name),
        )

    def _lookup(self, name: str, port: int | None, user: str | None) -> dict[str, Any]:
        # The first word on a matter counts in ssh_config: so its tokens (%p), too, say what the inventory says.
        first = (f"Port {port}\n" if port else "") + (f"User {user}\n" if user else "")
        text = first + (self.file.read_text() if self.file else "")
        if "match" in text.lower():
            lazy_paramiko.load()
        config = paramiko.SSHConfig()
        config.parse(StringIO(text))
        return dict(config.lookup(name))

    def _last(self, specs: str, seen: tuple[str, ...]) -> Way | None:
        """Return the way to the last of some jump hosts, which leads through those before it."""
        jump: Way | None = None
        for spec in specs.split(",") if specs.lower() != "none" else ():
            parts = _JUMP.fullmatch(spec.strip())
            if parts is None:
                raise ValueError(f"ProxyJump cannot be read: {spec}")
            port = int(parts["port"]) if parts["port"] else None
            jump = self.way(parts["host"].strip("[]"), port=port, user=parts["user"], jump=jump, seen=seen)
        return jump

    def _ssh(self, jump: Way, place: str) -> tuple[str, ...]:
        """Return the program that leads through a jump host; each on the way is checked as strictly as the host."""
        options = [*_ALWAYS, *_NOTICE, f'GlobalKnownHostsFile={GLOBAL} "{self.known_hosts.absolute()}"']
        if self.strict:
            options.append("StrictHostKeyChecking=yes")
        if jump.jump:  # not ssh's own ProxyJump: the `ssh` that it starts would not get these options
            inner = shlex.join(self._ssh(jump.jump, f"[{jump.address}]:{jump.port}"))
            options.append(f"ProxyCommand={inner.replace('%', '%%')}")
        words = [word for option in options for word in ("-o", option)]
        return ("ssh", "-F", str(self.file), *words, "-W", place, *jump.ssh)
