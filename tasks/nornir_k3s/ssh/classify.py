"""What netmiko and paramiko raise, classified once and by the real cause, into this project's own errors.

netmiko raises NetmikoTimeoutException for nearly everything (unknown host keys and missing keys too): the cause is
found in the exception's chain, never in its outer type. This is about connections. Once a script has been sent, a lost
connection is OutcomeUnknown, and the place that lost it says so.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paramiko
from netmiko.exceptions import ConfigInvalidException, NetmikoAuthenticationException, ReadTimeout
from paramiko.config import ConfigParseError
from paramiko.ssh_exception import (
    BadAuthenticationType,
    BadHostKeyException,
    IncompatiblePeer,
    NoValidConnectionsError,
    PasswordRequiredException,
    ProxyCommandFailure,
)

from nornir_k3s.errors import AuthenticationFailed, HostKeyError, HostUnreachable, K3sError
from nornir_k3s.ssh.tunnel import TunnelFailed


@dataclass(frozen=True)
class Target:
    """Where a connection leads, for messages."""

    host: str
    address: str = ""
    port: int = 22
    user: str = ""
    known_hosts: str = ""

    @property
    def place(self) -> str:
        """The address and port."""
        return f"{self.address or self.host}:{self.port}"


@dataclass(frozen=True)
class Rule:
    """One cause: how it is recognised, whether it may pass by itself, and what a person is told."""

    matches: Callable[[BaseException], bool]
    transient: bool
    kind: type[HostUnreachable]
    text: str
    hint: str


def _is(*types: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, types)


def _says(*words: str) -> Callable[[BaseException], bool]:
    return lambda error: any(word in str(error) for word in words)


def _tunnel(*words: str) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, TunnelFailed) and _says(*words)(error)


def _channel(*codes: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, paramiko.ChannelException) and error.code in codes


def _name_service_is_away(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN


def _refused(error: BaseException) -> bool:
    return isinstance(error, NoValidConnectionsError) and any(
        getattr(e, "errno", None) == errno.ECONNREFUSED for e in error.errors.values()
    )


def _key_file(error: BaseException) -> bool:
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)) and bool(error.filename)


COLLECT = "python runbooks/hostkeys.py"
_ALIVE = "is the host up, and is there a route to it?"
# The first rule that fits any exception of the chain wins: those that must never be retried come first.
RULES = (
    Rule(
        _is(BadHostKeyException), False, HostKeyError,
        "its SSH host key is not the one on record in {known_hosts}: {detail}",
        "if the host was installed anew: `{collect} --replace {host}`."
        " Otherwise someone may be in between: do not go on",
    ),
    Rule(
        _says("not found in known_hosts"), False, HostKeyError,
        "its SSH host key is not in known_hosts ({known_hosts})",
        "collect it with `{collect}`, and compare the fingerprint with the host's own",
    ),
    Rule(
        _tunnel("Host key verification failed", "host key is known", "HOST IDENTIFICATION HAS CHANGED"),
        False, HostKeyError,
        "the SSH host key of its jump host is not in known_hosts, or not the one there: {detail}",
        "collect it with `{collect}`, and compare the fingerprint with the jump host's own",
    ),
    Rule(
        _tunnel("Permission denied", "Too many authentication failures"), False, AuthenticationFailed,
        "its jump host refuses the login: {detail}",
        "log in there with ssh: its user and IdentityFile are in ssh_config, and a passphrase is for the SSH agent",
    ),
    Rule(
        _tunnel("Could not resolve hostname", "configuration option", "cannot be started", "not found"),
        False, HostUnreachable,
        "the way to it fails: {detail}",
        "check ProxyJump and ProxyCommand in ssh_config",
    ),
    Rule(
        _tunnel(""), True, HostUnreachable,
        "no connection to {place} through its jump host: {detail}",
        "is the jump host up, does it allow TCP forwarding, and is there a route from there?",
    ),
    Rule(
        _says("No authentication methods available"), False, AuthenticationFailed,
        "there is neither key nor password for it",
        "set key_file and use_keys in the connection's extras, or k3s_ssh.password",
    ),
    Rule(
        _is(PasswordRequiredException), False, AuthenticationFailed,
        "its SSH key has a passphrase",
        "give k3s_ssh.passphrase",
    ),
    Rule(
        # paramiko tries a key file as each kind of key in turn, and tells how the last one failed.
        _says("Invalid key", "checkints do not match", "expected OPENSSH key"), False, AuthenticationFailed,
        "the user, the key or its passphrase was refused (user {user})",
        "try the same login with ssh",
    ),
    Rule(
        _says("Authentication timeout", "transport shut down or saw EOF"), True, HostUnreachable,
        "it broke off while logging in",
        "is sshd overloaded, or does it block this address (fail2ban)?",
    ),
    Rule(
        _is(BadAuthenticationType), False, AuthenticationFailed,
        "user {user} cannot log in this way: {detail}",
        "set what sshd asks for: key_file, or k3s_ssh.password",
    ),
    Rule(
        _is(NetmikoAuthenticationException, paramiko.AuthenticationException), False, AuthenticationFailed,
        "the user, key or password was refused (user {user})",
        "try the same login with ssh",
    ),
    Rule(
        _key_file, False, AuthenticationFailed,
        "{detail}",
        "check key_file in the inventory",
    ),
    Rule(
        _is(ReadTimeout), False, HostUnreachable,
        "its login shell shows no prompt that netmiko knows",
        "set `auto_connect: false` in the connection's extras: this tool needs no prompt",
    ),
    Rule(
        _is(IncompatiblePeer, ProxyCommandFailure, ConfigInvalidException, ConfigParseError, ValueError),
        False, HostUnreachable,
        "no SSH connection: {detail}",
        "check the connection's options in the inventory, and ~/.ssh/config",
    ),
    Rule(
        _name_service_is_away, True, HostUnreachable,
        "its name cannot be resolved: the name service does not answer",
        "check the name servers of this machine",
    ),
    Rule(
        _is(socket.gaierror), False, HostUnreachable,
        "its name cannot be resolved: {address}",
        "check `hostname` in the inventory",
    ),
    Rule(
        _refused, True, HostUnreachable,
        "the SSH port refuses connections at {place}",
        "is sshd running, and on that port?",
    ),
    Rule(
        _is(NoValidConnectionsError), True, HostUnreachable,
        "no connection to {place}: {detail}",
        _ALIVE,
    ),
    Rule(
        # The second is paramiko's word for it where several threads open a channel at once.
        lambda error: _channel(2, 4)(error) or _says("Unable to open channel")(error), True, HostUnreachable,
        "sshd allows no more sessions on this connection",
        "raise MaxSessions in its sshd_config",
    ),
    Rule(
        _channel(1, 3), False, HostUnreachable,
        "sshd forbids this: {detail}",
        "check sshd_config: ForceCommand, AllowTcpForwarding, the options in authorized_keys",
    ),
    Rule(
        _says("Error reading SSH protocol banner", "No existing session", "EOF in transport thread"),
        True, HostUnreachable,
        "it takes connections at {place}, but sshd does not answer",
        "is it overloaded (MaxStartups), or is another service on that port?",
    ),
    Rule(
        _says("SSH session not active", "Timeout opening channel", "Socket is closed", "Channel closed"),
        True, HostUnreachable,
        "the connection was lost",
        _ALIVE,
    ),
    Rule(
        _is(TimeoutError), True, HostUnreachable,
        "it does not answer at {place}",
        _ALIVE,
    ),
    Rule(
        _is(ConnectionError, EOFError), True, HostUnreachable,
        "it broke the connection off at {place}",
        "is sshd overloaded, or does it block this address (fail2ban)?",
    ),
)  # fmt: skip
_OTHERWISE = Rule(
    _is(BaseException), False, HostUnreachable, "no SSH connection: {detail}", "try `ssh -v` to the host from here"
)  # fmt: skip


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it was raised from or during, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_transient(error: BaseException) -> bool:
    """Say whether connecting may work a moment later: the host boots, or is flooded."""
    return not isinstance(error, K3sError) and _find(error)[0].transient


def classify(target: Target, error: BaseException) -> HostUnreachable:
    """Return this project's error for a connection that could not be made, or not be used."""
    rule, cause = _find(error)
    words = {
        "detail": _detail(cause),
        "place": target.place,
        "address": target.address or target.host,
        "user": target.user or "not set",
        "known_hosts": target.known_hosts or "~/.ssh/known_hosts",
        "host": target.host,
        "collect": COLLECT,
    }
    return rule.kind(target.host, rule.text.format(**words), hint=rule.hint.format(**words))


def _find(error: BaseException) -> tuple[Rule, BaseException]:
    causes = list(chain(error))
    for rule in RULES:
        for cause in reversed(causes):
            if rule.matches(cause):
                return rule, cause
    return _OTHERWISE, causes[-1]


def _detail(cause: BaseException) -> str:
    if isinstance(cause, BadHostKeyException):
        return f"expected {cause.expected_key.fingerprint}, got {cause.key.fingerprint}"
    if isinstance(cause, BadAuthenticationType):
        return f"sshd takes {', '.join(cause.allowed_types)}"
    if isinstance(cause, NoValidConnectionsError):
        return ", ".join(sorted({getattr(e, "strerror", None) or str(e) for e in cause.errors.values()}))
    if isinstance(cause, OSError) and cause.filename:
        return f"{cause.filename}: {cause.strerror}"
    return " ".join(str(cause).split())[:300] or type(cause).__name__
