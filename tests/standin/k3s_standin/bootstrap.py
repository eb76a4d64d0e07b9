"""The bootstrap data: the cluster's authorities in the datastore, sealed with the token (pkg/cluster/storage.go)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from k3s_standin import certs
from k3s_standin.log import Fatal, log
from k3s_standin.store import Store

DIFFERENT = "bootstrap data already found and encrypted with different token"
AUTHORITIES = {
    "server-ca": "k3s-server-ca",
    "client-ca": "k3s-client-ca",
    "request-header-ca": "k3s-request-header-ca",
    "etcd/server-ca": "etcd-server-ca",
    "etcd/peer-ca": "etcd-peer-ca",
}


def key_of(token: str) -> str:
    """Return the datastore's key for a token."""
    return "/bootstrap/" + hashlib.sha256(token.encode()).hexdigest()[:12]


def seal(token: str, plain: bytes) -> bytes:
    """Encrypt as K3s does: `salt:base64(nonce + AES-GCM)`."""
    salt = secrets.token_hex(8)
    nonce = os.urandom(12)
    return (
        f"{salt}:{base64.b64encode(nonce + AESGCM(_derive(token, salt)).encrypt(nonce, plain, None)).decode()}".encode()
    )


def unseal(token: str, value: bytes) -> bytes:
    """Decrypt."""
    salt, _, data = value.decode().partition(":")
    raw = base64.b64decode(data)
    return AESGCM(_derive(token, salt)).decrypt(raw[:12], raw[12:], None)


def _derive(token: str, salt: str) -> bytes:
    return PBKDF2HMAC(hashes.SHA1(), 32, salt.encode(), 4096).derive(token.encode())


def _paths(server: Path) -> list[Path]:
    names = [server / "tls" / f"{name}.{kind}" for name in AUTHORITIES for kind in ("crt", "key")]
    return [*names, server / "tls" / "service.key", server / "cred" / "passwd", server / "cred" / "ipsec.psk"]


def make_files(server: Path, token: str, agent_token: str) -> None:
    """Make what is missing on disk: authorities, passwords."""
    for name, title in AUTHORITIES.items():
        path = server / "tls" / f"{name}.crt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            certificate, key = certs.ca(title)
            path.write_text(certificate)
            write(path.with_suffix(".key"), key)
            log(
                "info",
                f"generated self-signed CA certificate CN={title}@{int(time.time())}: notBefore=now notAfter=+10y",
            )
    for path, text in (
        (server / "tls" / "service.key", certs.ca("service")[1]),
        (server / "cred" / "ipsec.psk", secrets.token_hex(48)),
        (server / "cred" / "passwd", f"{agent_token},node,node,k3s:agent\n{token},server,server,k3s:server\n"),
    ):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(path, text)


def write(path: Path, text: str) -> None:
    """Write a file of mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def prepare(store: Store, server: Path, token: str, *, wait: float = 5.0) -> bool:
    """Bring disk and datastore together before anything is started; return whether this server makes the first data."""
    if not token:
        if store.list("/bootstrap/"):
            return True  # it finds out too late, when saving: as K3s does
        return True
    key = key_of(token)
    attempts = 0
    while True:
        value = store.get(key)
        if value:
            log("info", "Reconciling bootstrap data between datastore and disk")
            _reconcile(server, json.loads(unseal(token, value)))
            return False
        others = [name for name, _ in store.list("/bootstrap/") if name != key]
        if others:
            raise Fatal(DIFFERENT)
        if value is None and store.create(key, b""):
            log("info", "Bootstrap key locked for initial create")
            return True
        log("info", "Bootstrap key is locked - waiting for data to be populated by another server")
        attempts += 1
        if attempts >= 5:
            log("warning", "Bootstrap key lock timed out - deleting lock and retrying")
            store.delete(key)
            attempts = 0
        time.sleep(wait)


def _reconcile(server: Path, data: dict[str, Any]) -> None:
    newer = []
    for name, entry in data.items():
        path = server / name
        if path.exists() and path.read_text() != entry["content"] and path.stat().st_mtime >= entry["time"] + 3:
            newer.append(str(path))
    if newer:
        raise Fatal(
            f"{', '.join(newer)} newer than datastore and could cause a cluster outage."
            " Remove the file(s) from disk and restart to be recreated from datastore."
        )
    for name, entry in data.items():
        path = server / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != entry["content"]:
            if path.exists():
                log("warning", "Updating bootstrap data on disk from datastore")
            write(path, entry["content"])
            os.utime(path, (entry["time"], entry["time"]))


def save(store: Store, server: Path, token: str) -> None:
    """Store what is on disk, sealed with the token."""
    log("info", "Saving cluster bootstrap data to datastore")
    key = key_of(token)
    if any(name != key for name, _ in store.list("/bootstrap/")):
        raise Fatal(f"Error: starting kubernetes: failed to start cluster: {DIFFERENT}")
    data = {
        str(path.relative_to(server)): {"content": path.read_text(), "time": path.stat().st_mtime}
        for path in _paths(server)
    }
    current = store.get(key)
    if current:
        log("warning", "Bootstrap key already exists")
        return
    store.put(key, seal(token, json.dumps(data).encode()))
