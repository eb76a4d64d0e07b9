"""Secrets of a lab: the key to log in with, the host keys with their known_hosts file, and sudo passwords."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from nornir_k3s_lab.files import write_private


def ensure_key(file: Path) -> str:
    """Create an Ed25519 key pair unless the private key exists; return the public key as one line."""
    if file.exists():
        key = load_ssh_private_key(file.read_bytes(), None)
    else:
        key = Ed25519PrivateKey.generate()
        write_private(file, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    public_file = file.with_name(file.name + ".pub")
    if not public_file.exists() or public_file.read_text() != public + "\n":
        public_file.write_text(public + "\n")
    return public


def ensure_password(file: Path) -> str:
    """Create a random password unless the file exists; return the password."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(18) + "\n")
    return file.read_text().strip()


def update_known_hosts(file: Path, keys: Mapping[str, str | None]) -> None:
    """Replace the lines of these addresses and keep all others; a file without lines is removed.

    Arguments:
        file: A known_hosts file.
        keys: The host key of each address; None removes the address.
    """
    old = file.read_text() if file.exists() else ""
    lines = [line for line in old.splitlines() if line.split(" ", 1)[0] not in keys]
    lines += [f"{address} {key}" for address, key in keys.items() if key]
    new = "".join(line + "\n" for line in lines)
    if new and new != old:
        write_private(file, new)
    elif not new:
        file.unlink(missing_ok=True)
