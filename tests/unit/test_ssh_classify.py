"""netmiko's outer exceptions say little: the cause in the chain decides."""

from __future__ import annotations

import socket

import paramiko
import pytest
from netmiko.exceptions import NetmikoAuthenticationException, NetmikoTimeoutException, ReadTimeout
from paramiko.ssh_exception import (
    AuthenticationException,
    BadAuthenticationType,
    BadHostKeyException,
    IncompatiblePeer,
    NoValidConnectionsError,
    SSHException,
)

from nornir_k3s.errors import AuthenticationFailed, HostKeyError, HostUnreachable, Interrupted
from nornir_k3s.ssh.classify import Target, classify, is_transient
from nornir_k3s.ssh.ssh_config import SSHConfigError
from nornir_k3s.ssh.tunnel import TunnelFailed

REFUSAL = NetmikoAuthenticationException
TARGET = Target("h1", address="10.0.0.1", port=2222, user="ops", known_hosts="/known")
KEY = paramiko.RSAKey.generate(1024)
REFUSED = NoValidConnectionsError({("10.0.0.1", 22): ConnectionRefusedError(111, "refused")})
NETMIKO = NetmikoTimeoutException
UNREACHABLE = NoValidConnectionsError({("10.0.0.1", 22): OSError(113, "No route to host")})
BOTH = NoValidConnectionsError(
    {("::1", 22): OSError(101, "Network is unreachable"), ("10.0.0.1", 22): ConnectionRefusedError(111, "refused")}
)
CASES: list[tuple[BaseException | None, type[Exception], type[HostUnreachable], bool, str]] = [
    (REFUSED, NETMIKO, HostUnreachable, True, "refuses connections at 10.0.0.1:2222"),
    (BOTH, NETMIKO, HostUnreachable, True, "refuses connections"),
    (UNREACHABLE, NETMIKO, HostUnreachable, True, "No route to host"),
    (TimeoutError("timed out"), NETMIKO, HostUnreachable, True, "does not answer at 10.0.0.1:2222"),
    (ConnectionResetError(104, "reset"), NETMIKO, HostUnreachable, True, "closed the connection at"),
    (EOFError(), NETMIKO, HostUnreachable, True, "closed the connection at"),
    (SSHException("Error reading SSH protocol banner"), NETMIKO, HostUnreachable, True, "sshd does not answer"),
    (SSHException("No existing session"), NETMIKO, HostUnreachable, True, "sshd does not answer"),
    (SSHException("SSH session not active"), SSHException, HostUnreachable, True, "the connection was lost"),
    (SSHException("Timeout opening channel."), SSHException, HostUnreachable, True, "the connection was lost"),
    (OSError("Socket is closed"), SSHException, HostUnreachable, True, "the connection was lost"),
    (SSHException("Unable to open channel."), SSHException, HostUnreachable, True, "no more sessions"),
    (paramiko.ChannelException(2, "Connect failed"), SSHException, HostUnreachable, True, "no more sessions"),
    (paramiko.ChannelException(1, "Prohibited"), SSHException, HostUnreachable, False, "sshd forbids this"),
    (socket.gaierror(socket.EAI_AGAIN, "again"), NETMIKO, HostUnreachable, True, "name service does not answer"),
    (socket.gaierror(socket.EAI_NONAME, "unknown"), NETMIKO, HostUnreachable, False, "cannot be resolved: 10.0.0.1"),
    (BadHostKeyException("h", KEY, KEY), NETMIKO, HostKeyError, False, "on record in /known: expected SHA256"),
    (SSHException("Server 'h' not found in known_hosts"), NETMIKO, HostKeyError, False, "not in known_hosts (/known)"),
    (SSHException("No authentication methods available"), NETMIKO, AuthenticationFailed, False, "no key and no passw"),
    (FileNotFoundError(2, "No such file", "/k"), NETMIKO, AuthenticationFailed, False, "/k: No such file"),
    (PermissionError(13, "Permission denied", "/k"), NETMIKO, AuthenticationFailed, False, "/k: Permission denied"),
    (AuthenticationException("no"), REFUSAL, AuthenticationFailed, False, "refused (user ops)"),
    (BadAuthenticationType("no", ["publickey"]), REFUSAL, AuthenticationFailed, False, "sshd accepts publickey"),
    (AuthenticationException("Authentication timeout."), REFUSAL, HostUnreachable, True, "during the login"),
    (paramiko.PasswordRequiredException("enc"), REFUSAL, AuthenticationFailed, False, "has a passphrase"),
    (SSHException("Invalid key"), SSHException, AuthenticationFailed, False, "passphrase was refused (user ops)"),
    (TunnelFailed("Host key verification failed."), NETMIKO, HostKeyError, False, "of its jump host is not in"),
    (TunnelFailed("u@j: Permission denied"), NETMIKO, AuthenticationFailed, False, "refuses the login: u@j"),
    (TunnelFailed("ssh: Could not resolve hostname j"), NETMIKO, HostUnreachable, False, "ProxyCommand failed: ssh"),
    (SSHConfigError("a mistake"), SSHException, HostUnreachable, False, "ssh_config cannot be used: a mistake"),
    (TunnelFailed("stdio forwarding failed"), NETMIKO, HostUnreachable, True, "10.0.0.1:2222 through its jump host"),
    (IncompatiblePeer("no cipher"), NETMIKO, HostUnreachable, False, "no SSH connection: no cipher"),
    (SSHException("something new"), NETMIKO, HostUnreachable, False, "no SSH connection: something new"),
    (None, ReadTimeout, HostUnreachable, False, "does not recognise the prompt"),
    (None, ValueError, HostUnreachable, False, "no SSH connection"),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "outer", "kind", "transient", "words"), CASES)
def test_each_cause_has_its_class_and_its_words(
    cause: BaseException | None, outer: type[Exception], kind: type[HostUnreachable], transient: bool, words: str
) -> None:
    try:
        try:
            if cause:
                raise cause
        finally:
            raise outer("TCP connection to device failed.\n\nCommon causes of this problem are: ...")
    except Exception as error:
        found = error
    told = classify(TARGET, found)
    assert type(told) is kind
    assert is_transient(found) is transient
    assert str(told).startswith("h1: ")
    assert words in told.message
    assert told.hint


def test_an_unknown_key_comes_with_the_command_that_collects_it() -> None:
    told = classify(TARGET, SSHException("Server 'h' not found in known_hosts"))
    assert "`nornir-k3s hostkeys`" in told.hint


def test_our_own_errors_are_never_tried_again() -> None:
    assert not is_transient(HostUnreachable("h1", "timed out"))
    assert not is_transient(Interrupted("stopped"))
