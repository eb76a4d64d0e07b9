"""Classifies what netmiko and paramiko raise, by the real cause, into this project's own errors.

netmiko raises NetmikoTimeoutException for nearly everything (unknown host keys and missing keys too): the cause is
found in the exception's chain, never in its outer type. This is about connections. Once a script has been sent, a lost
connection is OutcomeUnknown, which is raised where it is noticed.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paramiko
from netmiko.exceptions import ConfigInvalidException, NetmikoAuthenticationException, ReadTimeout
from paramiko.ssh_exception import (
    BadAuthenticationType,
    BadHostKeyException,
    IncompatiblePeer,
    NoValidConnectionsError,
    PasswordRequiredException,
    ProxyCommandFailure,
)

from nornir_k3s.errors import AuthenticationFailed, HostKeyError, HostUnreachable, K3sError
from nornir_k3s.ssh.identity import UnusableKey
from nornir_k3s.ssh.login import LoginRefused, TooManyKeys, UnusableHostKey
from nornir_k3s.ssh.ssh_config import SSHConfigError
from nornir_k3s.ssh.tunnel import TunnelFailed


@dataclass(frozen=True)
class Target:
    """What messages say about a connection."""

    host: str
    address: str = ""
    port: int = 22
    user: str = ""
    known_hosts: str = ""

    @property
    def endpoint(self) -> str:
        """The address and port."""
        return f"{self.address or self.host}:{self.port}"


@dataclass(frozen=True)
class Rule:
    """One cause: how it is recognised, whether it may pass by itself, the error, its message and the next step."""

    matches: Callable[[BaseException], bool]
    transient: bool
    kind: type[HostUnreachable]
    message: str
    hint: str


def _is(*types: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, types)


def _contains(*words: str) -> Callable[[BaseException], bool]:
    return lambda error: any(word in str(error) for word in words)


def _tunnel(*words: str) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, TunnelFailed) and _contains(*words)(error)


def _channel(*codes: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, paramiko.ChannelException) and error.code in codes


def _name_service_unavailable(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN


def _port_refused(error: BaseException) -> bool:
    return isinstance(error, NoValidConnectionsError) and any(
        getattr(e, "errno", None) == errno.ECONNREFUSED for e in error.errors.values()
    )


def _key_file_unreadable(error: BaseException) -> bool:
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)) and bool(error.filename)


COLLECT = "nornir-k3s hostkeys"
_IS_IT_UP = "is the host up, and is there a route to it?"
# The first rule that matches any exception of the chain wins: causes that must never be retried come first.
RULES = (
    Rule(
        _is(BadHostKeyException), False, HostKeyError,
        "its SSH host key is not the one on record in {known_hosts}: {detail}",
        "if the host was reinstalled: `{collect} --replace {host}`."
        " Otherwise this may be a man-in-the-middle attack: do not go on",
    ),
    Rule(
        _contains("not found in known_hosts"), False, HostKeyError,
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
        _tunnel("Too many authentication failures"), False, AuthenticationFailed,
        "its jump host refuses the login: too many keys were offered: {detail}",
        "set IdentityFile and IdentitiesOnly for the jump host in ssh_config",
    ),
    Rule(
        _tunnel("Permission denied"), False, AuthenticationFailed,
        "its jump host refuses the login: {detail}",
        "try to log in there with ssh; set its User and IdentityFile in ssh_config; a passphrase needs the SSH agent",
    ),
    Rule(
        _tunnel("Could not resolve hostname", "configuration option", "cannot be started", "not found"),
        False, HostUnreachable,
        "its jump host or ProxyCommand failed: {detail}",
        "check ProxyJump and ProxyCommand in ssh_config",
    ),
    Rule(
        _is(SSHConfigError), False, HostUnreachable,
        "ssh_config cannot be used: {detail}",
        "fix ssh_config (`ssh` must be installed), or set `ssh_config_file: null` in the connection's extras",
    ),
    Rule(
        _tunnel(""), True, HostUnreachable,
        "no connection to {endpoint} through its jump host: {detail}",
        "is the jump host up, does it allow TCP forwarding, and is there a route from there?",
    ),
    Rule(
        _is(UnusableHostKey), False, HostKeyError,
        "{detail}",
        "record the host's own key with `{collect}`, or replace a revoked one",
    ),
    Rule(
        _is(TooManyKeys), False, AuthenticationFailed,
        "too many keys offered: sshd closed the connection when {detail} (user {user}; its MaxAuthTries)",
        "give key_file in the connection's extras (of an agent's key, the .pub file),"
        " or IdentityFile and IdentitiesOnly in ssh_config",
    ),
    Rule(
        _is(UnusableKey), False, AuthenticationFailed,
        "its SSH key cannot be used: {detail}",
        "check key_file, or IdentityFile in ssh_config, and k3s_ssh.passphrase",
    ),
    Rule(
        _contains("No authentication methods available"), False, AuthenticationFailed,
        "no key and no password is set for it",
        "add the key to the SSH agent, or set key_file in the connection's extras, or k3s_ssh.password",
    ),
    Rule(
        _is(PasswordRequiredException), False, AuthenticationFailed,
        "its SSH key has a passphrase, and none is set: {detail}",
        "set k3s_ssh.passphrase, or add the key to the SSH agent",
    ),
    Rule(
        # Of a connection that other code has set up: paramiko tries a key file as each type of key in turn.
        _contains("Invalid key", "checkints do not match", "expected OPENSSH key"), False, AuthenticationFailed,
        "the user, the key or its passphrase was refused (user {user})",
        "try the same login with ssh",
    ),
    Rule(
        _is(LoginRefused), False, AuthenticationFailed,
        "the user, key or password was refused (user {user})",
        "try the same login with ssh",
    ),
    Rule(
        _contains("Authentication timeout", "transport shut down or saw EOF"), True, HostUnreachable,
        "it closed the connection during the login",
        "is sshd overloaded, or does it block this address (fail2ban)?",
    ),
    Rule(
        _is(BadAuthenticationType), False, AuthenticationFailed,
        "user {user} cannot log in with this method: {detail}",
        "set what sshd accepts: key_file, or k3s_ssh.password",
    ),
    Rule(
        _is(NetmikoAuthenticationException, paramiko.AuthenticationException), False, AuthenticationFailed,
        "the user, key or password was refused (user {user})",
        "try the same login with ssh",
    ),
    Rule(
        _key_file_unreadable, False, AuthenticationFailed,
        "{detail}",
        "check key_file in the inventory",
    ),
    Rule(
        _is(ReadTimeout), False, HostUnreachable,
        "netmiko does not recognise the prompt of its login shell",
        "set `auto_connect: false` in the connection's extras: this tool needs no prompt",
    ),
    Rule(
        _is(IncompatiblePeer, ProxyCommandFailure, ConfigInvalidException, ValueError),
        False, HostUnreachable,
        "no SSH connection: {detail}",
        "check the connection's options in the inventory",
    ),
    Rule(
        _name_service_unavailable, True, HostUnreachable,
        "its name cannot be resolved: the name service does not answer",
        "check the name servers of this machine",
    ),
    Rule(
        _is(socket.gaierror), False, HostUnreachable,
        "its name cannot be resolved: {address}",
        "check `hostname` in the inventory",
    ),
    Rule(
        _port_refused, True, HostUnreachable,
        "the SSH port refuses connections at {endpoint}",
        "is sshd running, and on that port?",
    ),
    Rule(
        _is(NoValidConnectionsError), True, HostUnreachable,
        "no connection to {endpoint}: {detail}",
        _IS_IT_UP,
    ),
    Rule(
        # The second is paramiko's message where several threads open a channel at the same time.
        lambda error: _channel(2, 4)(error) or _contains("Unable to open channel")(error), True, HostUnreachable,
        "sshd allows no more sessions on this connection",
        "raise MaxSessions in its sshd_config",
    ),
    Rule(
        _channel(1, 3), False, HostUnreachable,
        "sshd forbids this: {detail}",
        "check sshd_config: ForceCommand, AllowTcpForwarding, the options in authorized_keys",
    ),
    Rule(
        _contains("Error reading SSH protocol banner", "No existing session", "EOF in transport thread"),
        True, HostUnreachable,
        "it accepts connections at {endpoint}, but sshd does not answer",
        "is it overloaded (MaxStartups), or is another service on that port?",
    ),
    Rule(
        _contains("SSH session not active", "Timeout opening channel", "Socket is closed", "Channel closed"),
        True, HostUnreachable,
        "the connection was lost",
        _IS_IT_UP,
    ),
    Rule(
        _is(TimeoutError), True, HostUnreachable,
        "it does not answer at {endpoint}",
        _IS_IT_UP,
    ),
    Rule(
        _is(ConnectionError, EOFError), True, HostUnreachable,
        "it closed the connection at {endpoint}",
        "is sshd overloaded, or does it block this address (fail2ban)?",
    ),
)  # fmt: skip
_UNKNOWN = Rule(
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
    """Say whether connecting may work a moment later: the host boots, or is overloaded."""
    return not isinstance(error, K3sError) and _find(error)[0].transient


def classify(target: Target, error: BaseException) -> HostUnreachable:
    """Return this project's error for a connection that could not be opened, or not be used."""
    rule, cause = _find(error)
    words = {
        "detail": _detail(cause),
        "endpoint": target.endpoint,
        "address": target.address or target.host,
        "user": target.user or "not set",
        "known_hosts": target.known_hosts or "~/.ssh/known_hosts",
        "host": target.host,
        "collect": COLLECT,
    }
    return rule.kind(target.host, rule.message.format(**words), hint=rule.hint.format(**words))


def _find(error: BaseException) -> tuple[Rule, BaseException]:
    causes = list(chain(error))
    for rule in RULES:
        for cause in reversed(causes):
            if rule.matches(cause):
                return rule, cause
    return _UNKNOWN, causes[-1]


def _detail(cause: BaseException) -> str:
    if isinstance(cause, BadHostKeyException):
        return f"expected {cause.expected_key.fingerprint}, got {cause.key.fingerprint}"
    if isinstance(cause, BadAuthenticationType):
        return f"sshd accepts {', '.join(cause.allowed_types)}"
    if isinstance(cause, NoValidConnectionsError):
        return ", ".join(sorted({getattr(e, "strerror", None) or str(e) for e in cause.errors.values()}))
    if isinstance(cause, OSError) and cause.filename:
        return f"{cause.filename}: {cause.strerror}"
    return " ".join(str(cause).split())[:300] or type(cause).__name__
