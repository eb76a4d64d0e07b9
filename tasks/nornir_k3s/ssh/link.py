"""Link: the one nornir-netmiko connection of a host, opened when needed, closed when it is dead."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import paramiko
from netmiko import platforms
from nornir.core.configuration import Config
from nornir.core.inventory import Host
from paramiko.ssh_exception import BadHostKeyException, IncompatiblePeer

from nornir_k3s.ssh.classify import Target, chain
from nornir_k3s.ssh.known_hosts import KnownHosts, for_paramiko
from nornir_k3s.ssh.login import Client, HostKeyPolicy, Login
from nornir_k3s.ssh.route import CONNECTION, Route, is_strict, known_hosts_file, resolve_route, tunnel_failures
from nornir_k3s.ssh.tunnel import Tunnel

# A host that has vanished is noticed after this many seconds without a TCP acknowledgement; keepalives cause traffic.
ACK_TIMEOUT = 60
KEEPALIVE = 20
# Offered only to hosts that know no other: AES-GCM encrypts and authenticates in one pass, in hardware.
SLOW_CIPHERS = [*(f"aes{bits}-{mode}" for mode in ("ctr", "cbc") for bits in (128, 192, 256)), "3des-cbc"]


class Link:
    """A host's connection and its transport.

    Arguments:
        host: Nornir's host; its connection "netmiko" is used, also if other code has opened it.
        config: Nornir's, for the path of ssh_config.
    """

    def __init__(self, host: Host, config: Config | None) -> None:
        self._host = host
        self._config = config
        self._lock = threading.Lock()
        self._plugin: object = None
        self._route: Route | None = None
        self._transport: paramiko.Transport | None = None

    @property
    def transport(self) -> paramiko.Transport | None:
        """The transport, if it is open and not known to be dead."""
        current = self._transport if self._host.connections.get(CONNECTION) is self._plugin else None
        return current if current is not None and current.is_active() else None

    @property
    def extras(self) -> dict[str, Any]:
        """The connection's options."""
        return self._host.get_connection_parameters(CONNECTION).extras or {}

    @property
    def target(self) -> Target:
        """What messages say about it."""
        if self._route:
            return self._route.target(self._host.name)
        known = self._host.get_connection_parameters(CONNECTION)
        return Target(
            host=self._host.name,
            address=known.hostname or "",
            port=known.port or 22,
            user=known.username or "",
            known_hosts=str(known_hosts_file(self.extras)),
        )

    def open(self) -> paramiko.Transport:
        """Return the open transport; connect, without retries, if there is none.

        Raises:
            Exception: Whatever netmiko and paramiko raise; see `classify`.
        """
        with self._lock:
            if current := self.transport:
                return current
            if self._host.connections.get(CONNECTION) is self._plugin:
                self._close()  # it is dead; one that other code has opened since is used instead
            try:
                connection = self._connect()
                transport: paramiko.Transport = connection.remote_conn_pre.get_transport()
                if not transport.is_active():
                    raise paramiko.SSHException("SSH session not active")
            except Exception:
                self._close()
                raise
            _tune(transport)
            self._plugin, self._transport = self._host.connections[CONNECTION], transport
            return transport

    def _connect(self) -> Any:  # noqa: ANN401 - netmiko has no types
        if CONNECTION not in self._host.connections:
            self._route = resolve_route(self._host, self._config)
            extras = {"disabled_algorithms": {"ciphers": SLOW_CIPHERS}} | self.extras
            try:
                return self._connect_new(self._route, extras)
            except Exception as error:
                presented = _another_key(error, self._route)
                if not presented and not any(isinstance(cause, IncompatiblePeer) for cause in chain(error)):
                    raise
                self._host.connections.pop(CONNECTION, None)
                return self._connect_new(self._route, extras if presented else self.extras, presented)
        connection = self._host.connections[CONNECTION].connection
        _log_in(connection)
        return connection

    def _connect_new(self, route: Route, extras: dict[str, Any], presented: Collection[bytes] = ()) -> Any:  # noqa: ANN401 - netmiko has no types
        """Connect; of several keys on record, the one that the host has presented counts."""
        tunnel = Tunnel(route.proxy) if route.proxy else None
        with tunnel_failures(tunnel), for_paramiko(route.known_hosts, route.known_hosts_name, presented) as keys:
            return self._connect_netmiko(route, _options(extras, keys, tunnel))

    def _connect_netmiko(self, route: Route, options: dict[str, Any]) -> Any:  # noqa: ANN401 - netmiko has no types
        known = self._host.get_connection_parameters(CONNECTION)
        login = _login(self.extras, route, known.password)
        plugin = self._host.open_connection(
            CONNECTION,
            self._config or Config(),
            hostname=route.address,
            port=route.port,
            username=route.user,
            # It may be missing, or another tool's: what is behind the connection is Linux in any case.
            platform=known.platform if known.platform in platforms else "linux",
            extras=options | {"auto_connect": False},
        )
        connection = plugin.connection
        connection._get_ssh_client_instance = lambda: Client(login)
        if is_strict(self.extras):
            connection.key_policy = HostKeyPolicy(route.known_hosts, route.address)
        if options.get("auto_connect", True):
            connection._open()
        _log_in(connection)
        return connection

    def close(self) -> None:
        """Close the connection; the next `open` makes a new one."""
        # Before taking the lock: this ends a call that holds it.
        if self._transport is not None:
            self._transport.close()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()  # netmiko's `disconnect` would first send to a host that may not answer
        self._transport = None
        plugin = self._host.connections.pop(CONNECTION, None)
        if plugin is not None:
            with contextlib.suppress(Exception):
                plugin.close()


def _another_key(error: Exception, route: Route) -> list[bytes]:
    """Return the key that a host presented, if it is on record beside the one of its type that paramiko expected."""
    found = next((cause.key for cause in chain(error) if isinstance(cause, BadHostKeyException)), None)
    if found is None:
        return []
    blob, name = found.asbytes(), route.known_hosts_name
    known = KnownHosts.read(route.known_hosts)
    recorded = known.keys(name, [blob]).get(found.get_name()) == blob and not known.revoked(blob, name)
    return [blob] if recorded else []


def _log_in(connection: Any) -> None:  # noqa: ANN401 - netmiko has no types
    """Log in where netmiko has not (`auto_connect: false`), and without the interactive shell that it would start.

    That shell is of no use here; it costs a terminal and a login on the host, and leaves `exit` in root's history.
    """
    if getattr(connection, "remote_conn_pre", None) is None:
        client = connection._build_ssh_client()
        try:
            client.connect(**connection._connect_params_dict())
        except BaseException:
            client.close()
            raise
        connection.remote_conn_pre = client


def _options(extras: dict[str, Any], keys: Path, tunnel: Tunnel | None) -> dict[str, Any]:
    """Return the options for netmiko, which neither reads ssh_config nor chooses the keys: see `_login`."""
    options = extras | {"ssh_config_file": None} | ({"sock": tunnel} if tunnel else {})
    if is_strict(extras):  # netmiko wants three options for it; one, or none, is enough here
        options["system_host_keys"] = bool(options.get("alt_key_file") and options.get("system_host_keys"))
        options["ssh_strict"] = options["alt_host_keys"] = True
    if options.get("alt_host_keys"):
        options["alt_key_file"] = str(keys)
    # The login is this project's own (`_login`); netmiko would take some of what is right there for mistakes.
    return options | {"key_file": None, "use_keys": False}


def _login(extras: dict[str, Any], route: Route, password: str | None) -> Login:
    """Return what is offered; the inventory's key file comes before those of ssh_config.

    Where no key file is named, the usual ones are offered as `ssh` does it, unless the inventory wants a password only.
    """
    files = (str(extras["key_file"]),) if extras.get("key_file") else route.identities
    usual = not files and bool(extras.get("use_keys") or extras.get("allow_agent") or not password)
    return Login(
        user=route.user,
        key_files=files,
        passphrase=extras.get("passphrase"),
        agent=bool(extras.get("allow_agent") or (usual and "allow_agent" not in extras)) and not route.identities_only,
        usual=usual,
        password=password or None,
        socket=route.agent,
    )


def _tune(transport: paramiko.Transport) -> None:
    transport.set_keepalive(KEEPALIVE)
    sock = transport.sock
    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):  # a tunnel
        return
    # Without it each exec waits for the host's delayed acknowledgement: 48 ms instead of 3.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ACK_TIMEOUT * 1000)
