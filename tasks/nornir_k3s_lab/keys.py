"""SSH keys of the lab: one to log in with, one per host, and the known_hosts file that ties them together."""

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

from nornir_k3s_lab.system import write_private


def ensure_key(file: Path) -> str:
    """Make a key pair unless the private half is there already; return the public line."""
    if file.exists():
        key = load_ssh_private_key(file.read_bytes(), None)
    else:
        key = Ed25519PrivateKey.generate()
        write_private(file, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    half = file.with_name(file.name + ".pub")
    if not half.exists() or half.read_text() != public + "\n":
        half.write_text(public + "\n")
    return public


def ensure_password(file: Path) -> str:
    """Make a password unless the file is there already; return it."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(18) + "\n")
    return file.read_text().strip()


def merge_known_hosts(text: str, keys: Mapping[str, str | None]) -> str:
    """Replace the lines of these addresses in a known_hosts file's text; others stay. None removes an address."""
    lines = [line for line in text.splitlines() if line.split(" ", 1)[0] not in keys]
    lines += [f"{address} {key}" for address, key in keys.items() if key]
    return "".join(line + "\n" for line in lines)


def update_known_hosts(file: Path, keys: Mapping[str, str | None]) -> None:
    """Bring the lines of these addresses up to date; a file that would be empty is removed."""
    old = file.read_text() if file.exists() else ""
    new = merge_known_hosts(old, keys)
    if new and new != old:
        write_private(file, new)
    elif not new:
        file.unlink(missing_ok=True)
