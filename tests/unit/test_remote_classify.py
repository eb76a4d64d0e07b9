"""netmiko's outer exceptions say little: the cause in the chain decides."""

from __future__ import annotations

import socket

import paramiko
import pytest
from netmiko.exceptions import NetmikoAuthenticationException, NetmikoTimeoutException
from paramiko.ssh_exception import BadHostKeyException, NoValidConnectionsError

from nornir_k3s.errors import AuthenticationFailed, HostKeyError, HostUnreachable
from nornir_k3s.remote.classify import Target, classify, is_transient

KEY = paramiko.RSAKey.generate(1024)
REFUSED = NoValidConnectionsError({("10.0.0.1", 22): ConnectionRefusedError(111, "refused")})
CASES: list[tuple[BaseException | None, type[Exception], type[HostUnreachable], bool]] = [
    (REFUSED, NetmikoTimeoutException, HostUnreachable, True),
    (TimeoutError("timed out"), NetmikoTimeoutException, HostUnreachable, True),
    (ConnectionResetError(104, "reset"), NetmikoTimeoutException, HostUnreachable, True),
    (paramiko.SSHException("Error reading SSH protocol banner"), NetmikoTimeoutException, HostUnreachable, True),
    (socket.gaierror(socket.EAI_AGAIN, "again"), NetmikoTimeoutException, HostUnreachable, True),
    (socket.gaierror(socket.EAI_NONAME, "unknown"), NetmikoTimeoutException, HostUnreachable, False),
    (BadHostKeyException("h", KEY, KEY), NetmikoTimeoutException, HostKeyError, False),
    (paramiko.SSHException("Server 'h' not found in known_hosts"), NetmikoTimeoutException, HostKeyError, False),
    (
        paramiko.SSHException("No authentication methods available"),
        NetmikoTimeoutException,
        AuthenticationFailed,
        False,
    ),
    (FileNotFoundError(2, "No such file", "/k"), NetmikoTimeoutException, AuthenticationFailed, False),
    (paramiko.AuthenticationException("no"), NetmikoAuthenticationException, AuthenticationFailed, False),
    (paramiko.PasswordRequiredException("enc"), NetmikoAuthenticationException, AuthenticationFailed, False),
    (None, ValueError, HostUnreachable, False),
]


@pytest.mark.parametrize(("cause", "outer", "kind", "transient"), CASES)
def test_each_cause_has_its_class(
    cause: BaseException | None, outer: type[Exception], kind: type[HostUnreachable], transient: bool
) -> None:
    try:
        try:
            if cause:
                raise cause
        finally:
            raise outer("TCP connection to device failed.\n\nCommon causes of this problem are: ...")
    except Exception as error:
        found = error
    assert type(classify(Target("h1"), found)) is kind
    assert is_transient(found) is transient
    assert str(classify(Target("h1"), found)).startswith("h1: ")
