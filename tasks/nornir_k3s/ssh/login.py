"""Login: one attempt on one connection, which says how it ended.

paramiko goes on offering keys on a connection that sshd has closed, and then reports the consequence ("No existing
session"), which looks like a host that is overloaded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import BadAuthenticationType, PasswordRequiredException

from nornir_k3s.ssh import identity
from nornir_k3s.ssh.known_hosts import KnownHosts

# What `SSHClient.connect` takes for its own login, which the strategy replaces.
_REPLACED = ("password", "pkey", "key_filename", "passphrase", "allow_agent", "look_for_keys")
_SECOND_FACTORS = {"password", "keyboard-interactive"}

log = logging.getLogger(__name__)


class TooManyKeys(paramiko.AuthenticationException):
    """sshd closed the connection after it had refused several keys."""


class LoginRefused(paramiko.AuthenticationException):
    """sshd closed the connection as it refused what was offered: its MaxAuthTries is 1."""


class UnusableHostKey(paramiko.SSHException):
    """known_hosts has a line for the host, but not one that lets it in."""


@dataclass(frozen=True)
class Login:
    """What is offered, in this order.

    Arguments:
        user: Whom to log in as.
        key_files: Private or public keys, or certificates.
        passphrase: Of the private keys.
        agent: Offer all keys of the SSH agent; those of the key files are used in any case.
        usual: Offer the files in ~/.ssh that OpenSSH tries by itself.
        password: The last that is tried.
        socket: Of the SSH agent; `none` where none may be used, nothing for that of the environment.
    """

    user: str
    key_files: tuple[str, ...] = ()
    passphrase: str | None = None
    agent: bool = False
    usual: bool = False
    password: str | None = None
    socket: str = ""


class Strategy:
    """A login, as paramiko's `AuthStrategy`."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._unusable: list[Exception] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in.

        Raises:
            TooManyKeys: sshd closed the connection after several keys.
            LoginRefused: It did so after the only thing that was offered.
            AuthenticationException: Nothing that was offered was accepted.
            SSHException: There was nothing to offer, or the connection was lost.
        """
        agent = identity.open_agent(self._login.socket)
        try:
            refusal, second_factor = self._offer_keys(transport, agent.get_keys())
        finally:
            agent.close()
        if second_factor == set():
            return
        password = self._login.password
        if password is not None:
            self._attempt(transport, lambda: transport.auth_password(self._login.user, password), refused=0)
        elif second_factor:
            raise BadAuthenticationType("a second factor is needed", sorted(second_factor))
        else:
            errors = [*([refusal] if refusal else []), *self._unusable]
            raise errors[0] if errors else paramiko.SSHException("No authentication methods available")

    def _offer_keys(
        self, transport: paramiko.Transport, held: tuple[paramiko.AgentKey, ...]
    ) -> tuple[Exception | None, set[str] | None]:
        """Return the last refusal, and what sshd wants besides an accepted key; None if none was accepted."""
        refusal: Exception | None = None
        for refused, key in enumerate(self._keys(held)):
            try:
                more = self._attempt(
                    transport, lambda key=key: transport.auth_publickey(self._login.user, key), refused=refused
                )
            except BadAuthenticationType as error:  # sshd takes no keys at all
                return error, None
            except TooManyKeys:
                raise
            except paramiko.AuthenticationException as error:
                if not transport.is_active():
                    raise
                refusal = error
                continue
            if set(more) & _SECOND_FACTORS or not more:
                return None, set(more) & _SECOND_FACTORS
            # It wants a second key: the next ones are offered.
        return refusal, None

    def _attempt(self, transport: paramiko.Transport, offer: Any, *, refused: int) -> list[str]:  # noqa: ANN401 - a key of any kind
        try:
            return list(offer())
        except paramiko.SSHException as error:
            if transport.is_active():
                raise
            said = getattr(transport, "farewell", "")
            if refused:
                raise TooManyKeys(f"{refused + 1} keys were offered") from error
            if "authentication failures" in said:
                raise LoginRefused(said) from error
            raise

    def _keys(self, held: tuple[paramiko.AgentKey, ...]) -> Iterator[paramiko.PKey]:
        """Yield each key once: those of key files first."""
        seen: set[bytes] = set()
        for file in self._login.key_files:
            for key in self._of_file(file, held, optional=False):
                yield from self._new(key, seen)
        for key in held if self._login.agent else ():
            yield from self._new(key, seen)
        for file in identity.usual_files() if self._login.usual else ():
            for key in self._of_file(file, held, optional=True):
                yield from self._new(key, seen)

    def _new(self, key: paramiko.PKey, seen: set[bytes]) -> Iterator[paramiko.PKey]:
        own = key.blob if isinstance(key, paramiko.AgentKey) else key.asbytes()
        blob = key.public_blob.key_blob if key.public_blob else own
        if blob not in seen:
            seen.add(blob)
            yield key

    def _of_file(self, file: str, held: tuple[paramiko.AgentKey, ...], *, optional: bool) -> Iterator[paramiko.PKey]:
        """Yield a file's key with its certificate, and without."""
        key = self._usable(
            lambda: identity.load(file, self._login.passphrase or self._login.password, held), file, optional=optional
        )
        if key is None:
            return
        with_certificate = self._usable(lambda: identity.certified(key, file), file, optional=optional)
        if with_certificate is not None:
            yield with_certificate
        yield key

    def _usable(self, load: Callable[[], paramiko.PKey | None], file: str, *, optional: bool) -> paramiko.PKey | None:
        try:
            return load()
        except (identity.UnusableKey, PasswordRequiredException, OSError) as error:
            log.debug("key file %s is not used: %s", file, error)
            if not optional:
                self._unusable.append(error)
            return None


class _Transport(paramiko.Transport):
    """A transport that remembers what the other side said when it closed the connection."""

    farewell = ""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = message.get_text()
        log.debug("disconnected: %s", self.farewell)


class Client(paramiko.SSHClient):
    """An SSH client with this project's login, whatever netmiko asks for.

    Arguments:
        login: What is offered.
    """

    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login_offer = login

    def connect(self, hostname: str, **options: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Connect and log in once."""
        kept = {key: value for key, value in options.items() if key not in _REPLACED}
        kept |= {"auth_strategy": Strategy(self._login_offer), "transport_factory": _Transport}
        super().connect(hostname, **kept)


class HostKeyPolicy(paramiko.MissingHostKeyPolicy):
    """Refuses a key that is not on record under the host's exact name, unless OpenSSH would find it under another.

    Arguments:
        file: The known_hosts file.
        address: The host's address, without the port.
    """

    def __init__(self, file: Path, address: str) -> None:
        self._file = file
        self._address = address

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002 - its base
        """Raise unless the key is known for the address without a port, as OpenSSH accepts it."""
        known = KnownHosts()
        with contextlib.suppress(OSError):
            known = KnownHosts(self._file.read_bytes())
        blob = key.asbytes()
        for name in (hostname, self._address):
            if known.revoked(blob, name):
                raise UnusableHostKey(f"its SSH host key is revoked in {self._file} (@revoked)")
        if known.keys(self._address, [blob]).get(key.get_name()) == blob:
            return
        if any(known.certified(name) for name in (hostname, self._address)):
            raise UnusableHostKey(
                f"{self._file} trusts it only by @cert-authority, and certificates of hosts are not supported"
            )
        raise paramiko.SSHException(f"Server {hostname!r} not found in known_hosts")
