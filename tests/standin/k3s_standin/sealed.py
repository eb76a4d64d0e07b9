"""Secrets as an API server keeps them in the datastore: encrypted with its keys (kubernetes: apiserver/pkg/storage/value)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from k3s_standin.store import Change, Entry, Feed, Store, StoreError

SECRETS = "/registry/secrets/"
PREFIX = b"k8s:enc:aescbc:v1:"


class Undecryptable(StoreError):
    """A secret that none of this server's keys can read."""


@dataclass
class Keys:
    """What an encryption-config.json says: keys by name, the newest use first, and whether they are used to write."""

    keys: dict[str, bytes] = field(default_factory=dict)
    writes: bool = False

    @classmethod
    def read(cls, config: dict[str, Any]) -> Keys:
        """Read the configuration."""
        providers = config["resources"][0]["providers"]
        found = [key for one in providers for key in one.get("aescbc", {}).get("keys", [])]
        return cls({key["name"]: base64.b64decode(key["secret"]) for key in found}, "aescbc" in providers[0])

    def seal(self, plain: bytes) -> bytes:
        """Encrypt with the first key; without keys, or with identity first, the value stays as it is."""
        if not self.writes:
            return plain
        name, key = next(iter(self.keys.items()))
        iv, padder = os.urandom(16), PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
        return PREFIX + name.encode() + b"\0" + iv + sealed

    def unseal(self, value: bytes) -> bytes:
        """Decrypt what is encrypted.

        Raises:
            Undecryptable: In the words of Kubernetes.
        """
        if not value.startswith(PREFIX):
            return value
        if not self.keys:
            raise Undecryptable("identity transformer tried to read encrypted data")
        name, _, data = value.removeprefix(PREFIX).partition(b"\0")
        if (key := self.keys.get(name.decode())) is None:
            raise Undecryptable("no matching key was found for the provided AES transformer")
        decryptor = Cipher(algorithms.AES(key), modes.CBC(data[:16])).decryptor()
        unpadder = PKCS7(128).unpadder()
        try:
            plain = unpadder.update(decryptor.update(data[16:]) + decryptor.finalize()) + unpadder.finalize()
        except ValueError:
            raise Undecryptable("invalid padding on input") from None
        if not plain.startswith(b"{"):
            raise Undecryptable("invalid padding on input")
        return plain


class Sealed(Store):
    """A datastore whose secrets are encrypted with the keys in force."""

    def __init__(self, store: Store) -> None:
        self.store, self.keys = store, Keys()

    def get(self, key: str) -> Entry | None:
        entry = self.store.get(key)
        return self._opened(key, entry) if entry else None

    def list(self, prefix: str) -> list[tuple[str, Entry]]:
        try:
            return [(key, self._opened(key, entry)) for key, entry in self.store.list(prefix)]
        except Undecryptable as error:
            raise Undecryptable(f'unable to transform key "{prefix}": {error}') from None

    def create(self, key: str, value: bytes) -> bool:
        return self.store.create(key, self._closed(key, value))

    def swap(self, key: str, value: bytes, revision: int) -> bool:
        return self.store.swap(key, self._closed(key, value), revision)

    def delete(self, key: str) -> bool:
        return self.store.delete(key)

    def probe(self) -> None:
        self.store.probe()

    def revision(self) -> int:
        return self.store.revision()

    def compact(self) -> None:
        self.store.compact()

    def feed(self, prefix: str, revision: int) -> Feed:
        return _Opened(self, self.store.feed(prefix, revision))

    def _opened(self, key: str, entry: Entry) -> Entry:
        return replace(entry, value=self.keys.unseal(entry.value)) if key.startswith(SECRETS) else entry

    def _closed(self, key: str, value: bytes) -> bytes:
        return self.keys.seal(value) if key.startswith(SECRETS) else value


class _Opened(Feed):
    def __init__(self, sealed: Sealed, feed: Feed) -> None:
        self.sealed, self.feed = sealed, feed

    def poll(self) -> list[Change]:
        return [(kind, key, self.sealed._opened(key, entry)) for kind, key, entry in self.feed.poll()]
