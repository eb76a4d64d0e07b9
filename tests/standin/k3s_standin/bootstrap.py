"""The bootstrap data: the cluster's authorities in the datastore, sealed with the token (pkg/cluster/storage.go)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from k3s_standin import certs
from k3s_standin.log import Fatal, log
from k3s_standin.places import folder, write
from k3s_standin.store import Store

DIFFERENT = "bootstrap data already found and encrypted with different token"
AUTHORITIES = {
    "client-ca": "k3s-client-ca",
    "server-ca": "k3s-server-ca",
    "request-header-ca": "k3s-request-header-ca",
    "etcd/server-ca": "etcd-server-ca",
    "etcd/peer-ca": "etcd-peer-ca",
}
# What the row holds, under K3s' names for it.
FILES = {
    "ClientCA": "tls/client-ca.crt",
    "ClientCAKey": "tls/client-ca.key",
    "ETCDPeerCA": "tls/etcd/peer-ca.crt",
    "ETCDPeerCAKey": "tls/etcd/peer-ca.key",
    "ETCDServerCA": "tls/etcd/server-ca.crt",
    "ETCDServerCAKey": "tls/etcd/server-ca.key",
    "EncryptionConfig": "cred/encryption-config.json",
    "EncryptionHash": "cred/encryption-state.json",
    "IPSECKey": "cred/ipsec.psk",
    "PasswdFile": "cred/passwd",
    "RequestHeaderCA": "tls/request-header-ca.crt",
    "RequestHeaderCAKey": "tls/request-header-ca.key",
    "ServerCA": "tls/server-ca.crt",
    "ServerCAKey": "tls/server-ca.key",
    "ServiceKey": "tls/service.key",
}
LOCK_ATTEMPTS = 5


def key_of(password: str) -> str:
    """Return the datastore's key for a token's password."""
    return "/bootstrap/" + hashlib.sha256(password.encode()).hexdigest()[:12]


def seal(password: str, plain: bytes) -> bytes:
    """Encrypt as K3s does: `salt:base64(nonce + AES-GCM)`."""
    salt, nonce = secrets.token_hex(8), os.urandom(12)
    sealed = nonce + AESGCM(_derive(password, salt)).encrypt(nonce, plain, None)
    return f"{salt}:{base64.b64encode(sealed).decode()}".encode()


def unseal(password: str, value: bytes) -> bytes:
    """Decrypt."""
    salt, _, data = value.decode().partition(":")
    raw = base64.b64decode(data)
    return AESGCM(_derive(password, salt)).decrypt(raw[:12], raw[12:], None)


def _derive(password: str, salt: str) -> bytes:
    return PBKDF2HMAC(hashes.SHA1(), 32, salt.encode(), 4096).derive(password.encode())


def make_files(server: Path, password: str, agent_password: str) -> None:
    """Make what is missing on disk: authorities, keys, passwords."""
    for name, title in AUTHORITIES.items():
        path = server / "tls" / f"{name}.crt"
        if not path.exists():
            folder(path.parent, 0o755)
            certificate, key = certs.authority(title)
            write(path, certificate, 0o644)
            write(path.with_suffix(".key"), key)
    ensure_users(server, password, agent_password)
    texts = {"tls/service.key": certs.new_key(), "cred/ipsec.psk": secrets.token_hex(48)}
    for name, text in texts.items():
        if not (server / name).exists():
            write(server / name, text)


def ensure_users(server: Path, password: str, agent_password: str) -> None:
    """Write the passwords of servers and agents, if others are there (pkg/daemons/control/deps, genUsers)."""
    path = server / "cred" / "passwd"
    users = f"{agent_password},node,node,k3s:agent\n{password},server,server,k3s:server\n"
    if not path.exists() or path.read_text() != users:
        write(path, users)


def prepare(store: Store, server: Path, password: str) -> bool:
    """Bring disk and datastore together before anything is started; return whether the data is this server's to make."""
    if not password:
        return True  # K3s finds out too late, when saving, that the datastore is a cluster's
    key, attempts = key_of(password), 0
    while True:
        entry = store.get(key)
        others = [name for name, _ in store.list("/bootstrap/") if name != key]
        if entry and entry.value:
            if others:
                log("warning", "found multiple bootstrap keys in storage")
            log("info", "Reconciling bootstrap data between datastore and disk")
            _reconcile(server, json.loads(unseal(password, entry.value)))
            return False
        if others:
            raise Fatal(DIFFERENT)
        if entry is None and store.create(key, b""):
            log("info", "Bootstrap key locked for initial create")
            return True
        attempts += 1
        if attempts >= LOCK_ATTEMPTS:
            log("warning", "Bootstrap key lock timed out - deleting lock and retrying")
            store.delete(key)
            attempts = 0
            continue
        log("info", "Bootstrap key is locked - waiting for data to be populated by another server")
        time.sleep(5)


def _reconcile(server: Path, data: dict[str, dict[str, str]]) -> None:
    stored = {
        server / FILES[name]: (base64.b64decode(entry["Content"]), _seconds(entry["Timestamp"]))
        for name, entry in data.items()
        if name in FILES
    }
    differ = [path for path, (content, _) in stored.items() if path.exists() and path.read_bytes() != content]
    newer = [str(path) for path in differ if path.stat().st_mtime >= stored[path][1] + 3]
    if newer:
        raise Fatal(
            f"{', '.join(newer)} newer than datastore and could cause a cluster outage."
            " Remove the file(s) from disk and restart to be recreated from datastore."
        )
    for path in differ:
        log("warning", f"{path} will be updated from the datastore.")
    for path in differ:
        log("warning", f"{path} will be updated from the datastore.")
    if differ:
        log("warning", "Updating bootstrap data on disk from datastore")
    for path, (content, at) in stored.items():
        if path in differ or not path.exists():
            folder(path.parent, 0o755 if path.parent.name == "etcd" else 0o700)
            write(path, content, 0o644 if path.suffix == ".crt" else 0o600)
            os.utime(path, (at, at))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def save(store: Store, server: Path, password: str) -> None:
    """Store what is on disk, sealed with the token."""
    log("info", "Saving cluster bootstrap data to datastore")
    key = key_of(password)
    if any(name != key for name, _ in store.list("/bootstrap/")):
        raise Fatal(f"Error: starting kubernetes: failed to start cluster: {DIFFERENT}")
    entry = store.get(key)
    if entry and entry.value:
        log("warning", "Bootstrap key already exists")
        return
    log("info", "Bootstrap key lock is held")
    store.put(key, seal(password, json.dumps(content(server)).encode()))


def put(store: Store, password: str, found: dict[str, Any]) -> None:
    """Store other data, sealed with the token."""
    log("info", "Saving cluster bootstrap data to datastore")
    store.put(key_of(password), seal(password, json.dumps(found).encode()))


def content(server: Path) -> dict[str, Any]:
    """Return the files as the row holds them."""
    found = {}
    for name, relative in FILES.items():
        path = server / relative
        if path.exists():
            at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
            found[name] = {"Timestamp": at, "Content": base64.b64encode(path.read_bytes()).decode()}
    return found


def rotate(store: Store, server: Path, old: str, new: str) -> None:
    """Store the data under another token, forget the row of the old one, and save what is on disk now."""
    log("info", f"created bootstrap key {key_of(new)}")
    log("info", "Saving cluster bootstrap data to datastore")
    for _ in range(2):
        store.put(key_of(new), seal(new, json.dumps(content(server)).encode()))
        store.delete(key_of(old))
