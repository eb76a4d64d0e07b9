"""Exceptions of netmiko and paramiko, classified once and by their real cause, into this project's own.

netmiko raises NetmikoTimeoutException for nearly everything (unknown host keys and missing keys too): the cause is
found in the exception's chain, never in its outer type.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import paramiko
from netmiko.exceptions import ConfigInvalidException, NetmikoAuthenticationException
from paramiko.ssh_exception import (
    BadHostKeyException,
    IncompatiblePeer,
    NoValidConnectionsError,
    PasswordRequiredException,
    ProxyCommandFailure,
)

from nornir_k3s.errors import AuthenticationFailed, HostError, HostKeyError, HostUnreachable

_TRANSIENT_WORDS = (
    "Error reading SSH protocol banner",
    "No existing session",
    "SSH session not active",
    "Timeout opening channel",
    "Socket is closed",
    "EOF in transport thread",
)


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
    if isinstance(error, HostError):
        return False
    causes = list(chain(error))
    if any(isinstance(e, AuthenticationFailedTypes) for e in causes) or _permanent(causes):
        return False
    return any(
        isinstance(e, (NoValidConnectionsError, TimeoutError, ConnectionError, EOFError))
        or (isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN)
        or (isinstance(e, paramiko.ChannelException) and e.code in (2, 4))
        or any(words in str(e) for words in _TRANSIENT_WORDS)
        for e in causes
    )


AuthenticationFailedTypes = (
    NetmikoAuthenticationException,
    paramiko.AuthenticationException,
    PasswordRequiredException,
)


def _permanent(causes: list[BaseException]) -> bool:
    return any(
        isinstance(e, (BadHostKeyException, IncompatiblePeer, ProxyCommandFailure, ConfigInvalidException, ValueError))
        or "not found in known_hosts" in str(e)
        or "No authentication methods available" in str(e)
        for e in causes
    )


def classify(host: str, error: BaseException) -> HostUnreachable:
    """Return this project's error for a connection that could not be made.

    Arguments:
        host: The host's name in the inventory.
        error: What netmiko or paramiko raised.
    """
    causes = list(chain(error))
    for cause in causes:
        if found := _one(host, cause):
            return found
    reason = " ".join(str(causes[-1]).split())[:300] or type(causes[-1]).__name__
    return HostUnreachable(host, f"no SSH connection: {reason}", hint="try `ssh -v` to the host from here")


def _one(host: str, cause: BaseException) -> HostUnreachable | None:  # noqa: PLR0911 - one return a cause
    text = str(cause)
    if isinstance(cause, BadHostKeyException):
        return HostKeyError(
            host,
            "its SSH host key is not the one on record",
            hint="if the host was installed anew, replace its line in known_hosts; otherwise someone may be in between",
        )
    if "not found in known_hosts" in text:
        return HostKeyError(
            host,
            "its SSH host key is not in known_hosts",
            hint="collect it with ssh-keyscan, compare the fingerprint, add it",
        )
    if "No authentication methods available" in text:
        return AuthenticationFailed(host, "there is neither key nor password for it", hint="set key_file or password")
    if isinstance(cause, PasswordRequiredException):
        return AuthenticationFailed(host, "its SSH key has a passphrase", hint="give k3s_ssh.passphrase")
    if isinstance(cause, paramiko.AuthenticationException):
        return AuthenticationFailed(host, "the user, key or password was refused", hint="try the same login with ssh")
    if isinstance(cause, socket.gaierror):
        return HostUnreachable(host, "its name cannot be resolved", hint="check `hostname` in the inventory")
    if isinstance(cause, NoValidConnectionsError):
        return HostUnreachable(host, "the SSH port refuses connections", hint="is the host up, and sshd on that port?")
    if isinstance(cause, (FileNotFoundError, PermissionError)) and cause.filename:
        return AuthenticationFailed(host, f"{cause.filename}: {cause.strerror}", hint="check key_file in the inventory")
    if isinstance(cause, TimeoutError) and not isinstance(cause, socket.gaierror):
        return HostUnreachable(host, "it does not answer", hint="is the host up, and is there a route to it?")
    return None
