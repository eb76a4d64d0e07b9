"""Identities: the keys that a login may offer, from key files in every format of OpenSSH and from its agent.

As with OpenSSH, a key that the agent holds is used from there, also where the file has only its public half.

Source: ssh_config(5), IdentityFile and IdentitiesOnly; `pubkey_prepare` in OpenSSH's sshconnect2.c; PROTOCOL.key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
import io
import socket
from collections.abc import Sequence
from pathlib import Path

import paramiko
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.agent import AgentSSH
from paramiko.ssh_exception import PasswordRequiredException

_CERTIFICATE = "-cert.pub"
_MAGIC = b"openssh-key-v1\0"
_TOO_OLD = "a kind of key that sshd does not take: use ed25519, ecdsa or rsa"
_BEGIN, _END = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END"


class UnusableKey(paramiko.AuthenticationException):
    """A key file cannot be used; the text says why, and what to do."""


class _Agent(AgentSSH):
    """The SSH agent behind a socket that ssh_config names (IdentityAgent); paramiko knows that of the environment."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if path != "none":
            with contextlib.suppress(OSError, paramiko.SSHException):  # OpenSSH goes on without an agent, too
                self._socket.connect(path)
                self._connect(self._socket)  # type: ignore[attr-defined] # missing in its stubs

    def close(self) -> None:
        """Close the connection to it."""
        self._close()  # type: ignore[attr-defined] # missing in its stubs
        self._socket.close()


def open_agent(path: str) -> paramiko.Agent | _Agent:
    """Return the SSH agent of a socket; without one that of the environment, for `none` one without keys."""
    return _Agent(path) if path else paramiko.Agent()


def usual_files() -> tuple[str, ...]:
    """Return the key files that OpenSSH tries by itself, where they exist."""
    files = [Path("~/.ssh").expanduser() / f"id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")]
    return tuple(str(file) for file in files if file.is_file())


def exists(file: str) -> bool:
    """Say whether there is a key file, or its public half, by this name."""
    return Path(file).is_file() or Path(f"{file}.pub").is_file()


def load(file: str, passphrase: str | None, agent: Sequence[paramiko.AgentKey]) -> paramiko.PKey:
    """Return the key of a file: the agent's, if it holds it, or the file's own.

    Arguments:
        file: Of a private key, a public key or a certificate.
        passphrase: Of the private key.
        agent: The keys of the agent.

    Raises:
        UnusableKey: It is no key, or one for which the agent is needed; the passphrase is wrong.
        PasswordRequiredException: It has a passphrase, and none is given.
        OSError: It cannot be read.
    """
    path = Path(file.removesuffix(_CERTIFICATE)).expanduser()
    public = _public_half(path)
    held = next((key for key in agent if public and key.asbytes() == public), None)
    if held is not None:
        return held
    if not path.exists() and public:
        path = path.with_name(f"{path.name}.pub")
    content = path.read_bytes()
    if _parse_public(content):
        raise UnusableKey(f"{path} is a public key, and the SSH agent does not hold its private key: run ssh-add")
    if content.startswith(b"PuTTY-User-Key-File"):
        raise UnusableKey(f"{path} is a PuTTY key: convert it with `puttygen KEY -O private-openssh-new -o NEW`")
    return _private(path, content, passphrase)


def certified(key: paramiko.PKey, file: str) -> paramiko.PKey | None:
    """Return a copy of a key with the certificate that lies beside its file, or nothing if there is none.

    OpenSSH offers the key itself, too: a certificate may have expired, or be one for other hosts.

    Raises:
        UnusableKey: The file of the certificate is none.
        OSError: It cannot be read.
    """
    path = Path(f"{file.removesuffix('.pub').removesuffix('-cert')}{_CERTIFICATE}").expanduser()
    if not path.is_file() or isinstance(key, paramiko.AgentKey):  # the agent has certificates of its own
        return None
    found = copy.copy(key)
    try:
        found.load_certificate(str(path))
    except (ValueError, UnicodeDecodeError, paramiko.SSHException) as error:
        raise UnusableKey(f"{path} is no certificate of its key ({error})") from None
    return found


def _private(path: Path, content: bytes, passphrase: str | None) -> paramiko.PKey:
    secret = passphrase.encode() if passphrase else None
    own_format = _BEGIN in content
    if b"BEGIN DSA PRIVATE KEY" in content or _kind(content) == b"ssh-dss":
        raise UnusableKey(f"{path} is {_TOO_OLD}")  # cryptography warns before it reads one
    read = serialization.load_ssh_private_key if own_format else serialization.load_pem_private_key
    try:
        try:
            found = read(content, secret)
        except TypeError:  # a passphrase that no key needs is no mistake: it may be the login's password
            if secret is None:
                raise
            found = read(content, None)
    except TypeError:
        raise PasswordRequiredException(f"{path} has a passphrase") from None
    except UnsupportedAlgorithm as error:
        raise UnusableKey(f"{path} is a kind of key that only the SSH agent can use: run ssh-add ({error})") from None
    except (ValueError, InvalidTag):
        if secret and (own_format or b"ENCRYPTED" in content):
            raise UnusableKey(f"{path}: its passphrase is wrong, or the file is damaged") from None
        raise UnusableKey(f"{path} is no private key that OpenSSH or OpenSSL knows") from None
    kinds = (
        (rsa.RSAPrivateKey, paramiko.RSAKey),
        (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
        (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
    )
    for kind, ours in kinds:
        if isinstance(found, kind):
            # paramiko does not read PKCS#8; all kinds are handed over in OpenSSH's format.
            with contextlib.suppress(ValueError):  # a curve that OpenSSH does not have
                text = found.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
                )
                return ours.from_private_key(io.StringIO(text.decode()))
    raise UnusableKey(f"{path} is {_TOO_OLD}")


def _kind(content: bytes) -> bytes:
    """Return the kind of a key in OpenSSH's format, of which the public half is not encrypted."""
    public = _parse_openssh(content)
    return paramiko.Message(public).get_binary() if public else b""


def _public_half(path: Path) -> bytes | None:
    """Return the public key of a file: of its own, of the `.pub` beside it, or the part that is not encrypted."""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if found := _parse_public(content) or _parse_openssh(content):
            return found
    with contextlib.suppress(OSError):
        return _parse_public(path.with_name(f"{path.name}.pub").read_bytes())
    return None


def _parse_public(content: bytes) -> bytes | None:
    words = content.split(None, 2)
    if len(words) < 2 or not words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return None
    try:
        return base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return None


def _parse_openssh(content: bytes) -> bytes | None:
    body = content.partition(_BEGIN)[2].partition(_END)[0]
    try:
        raw = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        return None
    if not raw.startswith(_MAGIC):
        return None
    message = paramiko.Message(raw[len(_MAGIC) :])
    for _ in range(3):  # cipher, key derivation, its options
        message.get_binary()
    return message.get_binary() if message.get_int() == 1 else None
