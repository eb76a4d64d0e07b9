"""Tokens in K3s' forms (pkg/clientaccess/token.go, pkg/util/token.go)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from k3s_standin import certs
from k3s_standin.log import Fatal

BOOTSTRAP = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
NOT_NORMAL = "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>"


@dataclass(frozen=True)
class Token:
    """A token's parts; `bootstrap` is set instead of user and password for one that `k3s token create` made."""

    user: str = ""
    password: str = field(default="", repr=False)
    ca_hash: str = ""
    bootstrap: str = field(default="", repr=False)


def parse(text: str) -> Token:
    """Return the parts; ValueError with K3s' own text when it is not a token."""
    if not text:
        raise ValueError("token must not be empty")
    digest = ""
    if text.startswith("K10"):
        digest, separator, rest = text[3:].partition("::")
        if not separator:
            raise ValueError("invalid token format")
        if digest and len(digest) != 64:
            raise ValueError("invalid token CA hash length")
        text = rest
        if not BOOTSTRAP.fullmatch(text):
            user, colon, password = text.partition(":")
            if not (colon and user and password):
                raise ValueError("invalid token format")
            return Token(user, password, digest)
    if BOOTSTRAP.fullmatch(text):
        return Token(ca_hash=digest, bootstrap=text)
    return Token("", text, digest)


def server_password(text: str) -> str:
    """Return the password of a server's token, whatever its form; a bootstrap token is none."""
    try:
        token = parse(text)
    except ValueError:
        raise Fatal(f"Error: preparing server: {NOT_NORMAL}") from None
    if not token.password:
        raise Fatal(f"Error: preparing server: {NOT_NORMAL}")
    return token.password


def ca_hash(path: Path) -> str:
    """Return the hash that full tokens carry: of the CA file as `/cacerts` serves it."""
    return hash_of(path.read_text())


def hash_of(text: str) -> str:
    """Return the hash of a CA: of the file, or of the root where it has several (pkg/clientaccess/token.go, hashCA)."""
    found = certs.load(text)
    roots = [one for one in found[1:] if one.subject == one.issuer == found[0].issuer]
    content = roots[0].public_bytes(serialization.Encoding.DER) if roots else text.encode()
    return hashlib.sha256(content).hexdigest()


def full(digest: str, user: str, password: str) -> str:
    """Return the full form."""
    return f"K10{digest}::{user}:{password}"
