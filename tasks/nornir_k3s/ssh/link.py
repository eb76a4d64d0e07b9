"""Link: the one nornir-netmiko connection of a host, opened when needed, dropped when it is dead."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import paramiko
from nornir.core.configuration import Config
from nornir.core.inventory import Host
from paramiko.ssh_exception import IncompatiblePeer

from nornir_k3s.ssh.classify import Target, chain
from nornir_k3s.ssh.known_hosts import for_paramiko
from nornir_k3s.ssh.ssh_config import CONNECTION, Way, blaming, known_hosts_of, strict, way_to
from nornir_k3s.ssh.tunnel import Tunnel

# A peer that is gone shows itself after this many seconds without an acknowledgement: keepalives make traffic for it.
SILENCE = 60
KEEPALIVE = 20
# What a peer is offered first is without them: AES-GCM does in hardware, in one pass, what these need two for.
SLOW = [*(f"aes{bits}-{mode}" for mode in ("ctr", "cbc") for bits in (128, 192, 256)), "3des-cbc"]


class Link:
    """A host's connection and its transport.

    Arguments:
        host: Nornir's host; its connection "netmiko" is used, whoever opened it.
        config: Nornir's, for ~/.ssh/config.
    """

    def __init__(self, host: Host, config: Config | None) -> None:
        self._host = host
        self._config = config
        self._lock = threading.Lock()
        self._plugin: object = None
        self._way: Way | None = None
        self._transport: paramiko.Transport | None = None

    @property
    def transport(self) -> paramiko.Transport | None:
        """The transport where it is open and still believes in its peer."""
        current = self._transport if self._host.connections.get(CONNECTION) is self._plugin else None
        return current if current is not None and current.is_active() else None

    @property
    def extras(self) -> dict[str, Any]:
        """The connection's options."""
        return self._host.get_connection_parameters(CONNECTION).extras or {}

    @property
    def target(self) -> Target:
        """Where it leads, for messages."""
        if self._way:
            return self._way.target(self._host.name)
        known = self._host.get_connection_parameters(CONNECTION)
        return Target(
            host=self._host.name,
            address=known.hostname or "",
            port=known.port or 22,
            user=known.username or "",
            known_hosts=str(known_hosts_of(self.extras)),
        )

    def open(self) -> paramiko.Transport:
        """Return the open transport, connecting once where there is none.

        Raises:
            Exception: Whatever netmiko and paramiko raise; see `classify`.
        """
        with self._lock:
            if current := self.transport:
                return current
            if self._host.connections.get(CONNECTION) is self._plugin:
                self._drop()  # it is dead; one that somebody else has opened since is taken over instead
            try:
                connection = self._connect()
                transport: paramiko.Transport = connection.remote_conn_pre.get_transport()
                if not transport.is_active():
                    raise paramiko.SSHException("SSH session not active")
            except Exception:
                self._drop()
                raise
            _tune(transport)
            self._plugin, self._transport = self._host.connections[CONNECTION], transport
            return transport

    def _connect(self) -> Any:  # noqa: ANN401 - netmiko has no types
        if CONNECTION not in self._host.connections:
            self._way = way_to(self._host, self._config)
            try:
                return self._connect_anew(self._way, {"disabled_algorithms": {"ciphers": SLOW}} | self.extras)
            except Exception as error:
                if not any(isinstance(cause, IncompatiblePeer) for cause in chain(error)):
                    raise
                self._host.connections.pop(CONNECTION, None)
                return self._connect_anew(self._way, self.extras)
        connection = self._host.connections[CONNECTION].connection
        _log_in(connection)
        return connection

    def _connect_anew(self, way: Way, extras: dict[str, Any]) -> Any:  # noqa: ANN401 - netmiko has no types
        tunnel = Tunnel(way.proxy) if way.proxy else None
        with blaming(tunnel), for_paramiko(way.known_hosts) as keys:
            return self._connect_by(way, _options(extras, way, keys, tunnel))

    def _connect_by(self, way: Way, options: dict[str, Any]) -> Any:  # noqa: ANN401 - netmiko has no types
        plugin = self._host.open_connection(
            CONNECTION,
            self._config or Config(),
            hostname=way.address,
            port=way.port,
            username=way.user,
            extras=options,
        )
        _log_in(plugin.connection)
        return plugin.connection

    def drop(self) -> None:
        """Close the connection; the next `open` makes a new one."""
        # Before taking the lock: this wakes a call that holds it.
        if self._transport is not None:
            self._transport.close()
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()  # netmiko's own way says goodbye first, to a peer that may be gone
        self._transport = None
        plugin = self._host.connections.pop(CONNECTION, None)
        if plugin is not None:
            with contextlib.suppress(Exception):
                plugin.close()


def _log_in(connection: Any) -> None:  # noqa: ANN401 - netmiko has no types
    """Log in where netmiko has not (`auto_connect: false`), and without the shell that it would start.

    Nobody types there; it costs a terminal and a login shell on the host, and leaves `exit` in root's history.
    """
    if getattr(connection, "remote_conn_pre", None) is None:
        client = connection._build_ssh_client()
        try:
            client.connect(**connection._connect_params_dict())
        except BaseException:
            client.close()
            raise
        connection.remote_conn_pre = client


def _options(extras: dict[str, Any], way: Way, keys: Path, tunnel: Tunnel | None) -> dict[str, Any]:
    """Return the options for netmiko: the way has said what ssh_config has to say."""
    options = extras | {"ssh_config_file": None} | ({"sock": tunnel} if tunnel else {})
    if strict(extras):  # who wants keys to be checked need not say in three options where they are
        options["system_host_keys"] = bool(options.get("alt_key_file") and options.get("system_host_keys"))
        options["ssh_strict"] = options["alt_host_keys"] = True
    if options.get("alt_host_keys"):
        options["alt_key_file"] = str(keys)
    if not options.get("key_file"):
        # Without a key file, netmiko takes `use_keys` for a mistake even where an agent or a password would do.
        options |= {"key_file": way.identity or None, "use_keys": bool(way.identity)}
    return options


def _tune(transport: paramiko.Transport) -> None:
    transport.set_keepalive(KEEPALIVE)
    sock = transport.sock
    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):  # a tunnel
        return
    # Without it each exec waits for the peer's delayed acknowledgement: 48 ms instead of 3.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)
