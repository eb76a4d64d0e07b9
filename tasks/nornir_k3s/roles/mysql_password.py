"""What MariaDB and MySQL store of a password, to set and compare passwords without showing them.

Sources: MySQL's manual, "Caching SHA-2 Pluggable Authentication", and `sql/auth/sha2_password.cc`
(`$A$`, thousands of rounds in hex, `$`, a salt of 20 bytes, the digest); U. Drepper, "Unix crypt using SHA-256 and
SHA-512", for the digest.
"""

from __future__ import annotations

import hashlib
import hmac

from nornir_k3s.model.secret import Secret

_ROUNDS = 5000  # what MySQL sets itself: caching_sha2_password_digest_rounds
_SALT = 20
_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def native(password: Secret) -> str:
    """Return mysql_native_password's hash."""
    inner = hashlib.sha1(password.reveal().encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def caching_sha2(password: Secret) -> str:
    """Return caching_sha2_password's hash; the salt is derived, so that the same password gives the same one."""
    key = password.reveal().encode()
    salt = "".join(_LETTERS[byte & 63] for byte in hmac.new(key, b"nornir-k3s", "sha256").digest()[:_SALT])
    return f"$A${_ROUNDS // 1000:03X}${salt}{_encoded(_digest(key, salt.encode()))}"


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _stretched(data: bytes, length: int) -> bytes:
    return (data * (length // len(data) + 1))[:length]


def _digest(key: bytes, salt: bytes) -> bytes:
    start = key + salt + _stretched(_sha256(key + salt + key), len(key))
    left = len(key)
    while left:
        start += _sha256(key + salt + key) if left & 1 else key
        left >>= 1
    digest = _sha256(start)
    keys = _stretched(_sha256(key * len(key)), len(key))
    salts = _stretched(_sha256(salt * (16 + digest[0])), len(salt))
    for n in range(_ROUNDS):
        middle = (salts if n % 3 else b"") + (keys if n % 7 else b"")
        digest = _sha256(keys + middle + digest if n & 1 else digest + middle + keys)
    return digest


def _encoded(digest: bytes) -> str:
    """Return the digest in crypt's base 64: three bytes that are ten apart give four letters."""
    order = [(n * 21 % 30, (n * 21 + 10) % 30, (n * 21 + 20) % 30) for n in range(10)]
    text = "".join(_letters(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in order)
    return text + _letters(digest[31] << 8 | digest[30], 3)


def _letters(number: int, count: int) -> str:
    return "".join(_LETTERS[number >> 6 * n & 63] for n in range(count))
