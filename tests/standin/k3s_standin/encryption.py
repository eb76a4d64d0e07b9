"""The keys of secrets, and `secrets-encrypt` on the server's side (pkg/secretsencrypt, pkg/server/handlers)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k3s_standin import bootstrap, events
from k3s_standin.log import log
from k3s_standin.places import write
from k3s_standin.sealed import SECRETS, Keys, Sealed, Undecryptable
from k3s_standin.store import StoreError

ANNOTATION = "k3s.io/encryption-config-hash"
ACTIVE, FINISHED = "reencrypt_active", "reencrypt_finished"
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_NODES = "/registry/minions/"


class Refused(Exception):
    """What a server says in its journal; the command prints only a number."""


class Encryption:
    """One server's keys: the files, those in force, and the stage that its node shows.

    Arguments:
        on: `secrets-encryption` is set.
    """

    def __init__(self, store: Sealed, server: Path, name: str, *, on: bool) -> None:
        self.store, self.name, self.on = store, name, on
        self.server, self.password = server, ""
        self.config = server / "cred" / "encryption-config.json"
        self.state = server / "cred" / "encryption-state.json"

    def begin(self, password: str) -> None:
        """Make a key where the setting asks for one and neither disk nor datastore has any; bring the keys into force.

        A key of a server that joins a cluster without keys is saved nowhere else.
        """
        self.password = password
        if not self.on:
            return
        if not self.config.exists():
            self._write([_new_key("aescbckey")], "start", writes=True)
        self._load()

    def announce(self) -> None:
        """Show the stage as an annotation of the node, as soon as it is registered."""
        if self.on:
            threading.Thread(target=self._announce, daemon=True).start()

    def _announce(self) -> None:
        while True:
            try:
                if self._annotate(self.state.read_text()):
                    return
            except StoreError as error:
                log("error", f"Failed to write the annotation {ANNOTATION}: {error}")
            time.sleep(0.2)

    def wait_until_readable(self) -> None:
        """Wait until this server can list the secrets; without their key it never gets ready."""
        while True:
            try:
                self.store.list(SECRETS)
            except Undecryptable as error:
                log("error", f"failed to list *core.Secret: {error}; reinitializing...")
            except StoreError:
                pass
            else:
                return
            time.sleep(1)

    def status(self) -> dict[str, Any]:
        """Return what `status` shows."""
        if not self.config.exists():
            return {"stage": "", "activekey": ""}
        keys, writes = self._keys(), self._writes()
        names = [f"AES-CBC {key['name']}" for key in keys]
        found: dict[str, Any] = {"stage": "", "activekey": names[0] if writes else ""}
        found["enable"] = self.on and writes
        try:
            self._verify()
            found["hashmatch"] = True
        except Refused as error:
            found["hasherror"] = str(error)
        own = self._annotations().get(self.name, "")
        found["stage"] = own.partition("-")[0]
        if inactive := names[1:] if writes else names:
            found["inactivekeys"] = inactive
        return found

    def change(self, asked: dict[str, Any]) -> None:
        """Do one of the verbs.

        Raises:
            Refused: It cannot be done now.
        """
        stage, force = asked.get("stage"), bool(asked.get("force"))
        if stage is None:
            self._enable(on=bool(asked.get("enable")))
        elif stage == "prepare":
            self._require(force, "start", FINISHED)
            key = self._another_key()
            self._write([*self._keys(), key], "prepare", writes=True)
        elif stage == "rotate":
            self._require(force, "prepare")
            keys = self._keys()
            self._write([keys[-1], *keys[:-1]], "rotate", writes=True)
        elif stage == ACTIVE:
            self._require(force, "rotate")
            self._stored()
            self._annotate(f"{ACTIVE}-{self._hash()}")
            threading.Thread(target=self._reencrypt, args=[bool(asked.get("skip"))], daemon=True).start()
            return
        elif stage == "rotate_keys":
            self._rotate_keys()
        else:
            raise Refused(f"unknown stage {stage} requested")
        if stage in ("prepare", "rotate"):
            self._annotate(self.state.read_text())
            self._save()

    def _another_key(self) -> dict[str, str]:
        """Return a new key; its name is the second, and K3s, which restarts before it asks for the next, takes longer."""
        while (name := f"aescbckey-{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}") in {key["name"] for key in self._keys()}:
            time.sleep(0.05)
        return _new_key(name)

    def _rotate_keys(self) -> None:
        """Rotate the keys at once: the others, which have the old one, read nothing afterwards."""
        self._require(False, "start", FINISHED)
        self._annotate(f"{ACTIVE}-{self._hash()}")
        key = self._another_key()
        self._write([key, *self._keys()], self.state.read_text().partition("-")[0], writes=True)
        self._load()
        log("info", "encryption config reloaded successfully 1 times")
        self._reencrypt(skip=False)
        self._load()

    def _enable(self, *, on: bool) -> None:
        self._stored()
        if self._writes() == on:
            log("info", f"Secrets encryption already {'enabled' if on else 'disabled'}")
            return
        log("info", "Enabling secrets encryption" if on else "Disabling secrets encryption")
        self._write(self._keys(), "", writes=on)
        self._save()
        self._reencrypt(skip=True)

    def _reencrypt(self, skip: bool) -> None:
        """Write each secret again with the keys in force; then drop the last key, unless it is kept."""
        try:
            count = sum(self._again(key) for key, _ in self.store.list(SECRETS))
        except StoreError as error:
            log("error", f"Failed to reencrypt secrets: {error}")
            return
        events.record(self.store, self.name, "Normal", "SecretsUpdateComplete", f"reencrypted {count} secrets")
        if not skip:
            self._write(self._keys()[:-1] or self._keys(), FINISHED, writes=True)
            self._save()
        self._annotate(self.state.read_text())

    def _again(self, key: str) -> bool:
        while entry := self.store.get(key):
            if self.store.swap(key, entry.value, entry.revision):
                return True
        return False

    def _require(self, force: bool, *stages: str) -> None:
        if not force:
            self._verify(stages)
        self._stored()

    def _verify(self, stages: Sequence[str] = ()) -> None:
        """Check that all servers show the same, and one of these stages; nodes without the annotation do not count."""
        found = self._annotations()
        first = next(iter(found), "")
        for name, value in found.items():
            if value != found[first]:
                raise Refused(f"hash does not match between {first} and {name}")
        if stages and not found:
            raise Refused(f"missing annotation on node {self.name}")
        if stages and (stage := found[first].partition("-")[0]) not in stages:
            raise Refused(f"incorrect stage: {stage} found on node {first}")

    def _annotations(self) -> dict[str, str]:
        nodes = [json.loads(entry.value)["metadata"] for _, entry in self.store.list(_NODES)]
        servers = [one for one in nodes if _CONTROL_PLANE in one["labels"]]
        return {one["name"]: one["annotations"][ANNOTATION] for one in servers if ANNOTATION in one["annotations"]}

    def _annotate(self, value: str) -> bool:
        def change(node: dict[str, Any]) -> dict[str, Any]:
            node["metadata"].setdefault("annotations", {})[ANNOTATION] = value
            node["metadata"].pop("resourceVersion", None)
            return node

        return self.store.update(_NODES + self.name, change) is not None

    def _stored(self) -> None:
        if not self.config.exists():
            raise Refused("open : no such file or directory")

    def _providers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.config.read_text())["resources"][0]["providers"]
        return found

    def _keys(self) -> list[dict[str, str]]:
        return next(one["aescbc"]["keys"] for one in self._providers() if "aescbc" in one)

    def _writes(self) -> bool:
        return "aescbc" in self._providers()[0]

    def _hash(self) -> str:
        return hashlib.sha256(self.config.read_bytes()).hexdigest()

    def _load(self) -> None:
        self.store.keys = Keys.read(json.loads(self.config.read_text()))

    def _write(self, keys: list[dict[str, str]], stage: str, *, writes: bool) -> None:
        """Write the file, and with a stage the state; what is in force changes when K3s starts."""
        providers: list[dict[str, Any]] = [{"aescbc": {"keys": keys}}, {"identity": {}}]
        resources = [{"resources": ["secrets"], "providers": providers if writes else providers[::-1]}]
        head = {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1"}
        _replace(self.config, json.dumps({**head, "resources": resources}, separators=(",", ":")))
        if stage:
            _replace(self.state, f"{stage}-{self._hash()}")

    def _save(self) -> None:
        log("info", "Saving cluster bootstrap data to datastore")
        content = json.dumps(bootstrap.content(self.server)).encode()
        self.store.put(bootstrap.key_of(self.password), bootstrap.seal(self.password, content))


def _replace(path: Path, text: str) -> None:
    """Write a file that others may read at the same time."""
    draft = path.with_suffix(".draft")
    write(draft, text)
    draft.replace(path)


def _new_key(name: str) -> dict[str, str]:
    return {"name": name, "secret": base64.b64encode(os.urandom(32)).decode()}
