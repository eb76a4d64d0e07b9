"""`secrets-encrypt` of the stand-in: three servers on one datastore, each with files and keys in force of its own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from k3s_standin import bootstrap, encryptcmd, encryption
from k3s_standin.datastore_sql import sqlite_store
from k3s_standin.encryption import ANNOTATION, Encryption, Refused
from k3s_standin.kinds import KINDS
from k3s_standin.log import Fatal
from k3s_standin.sealed import PREFIX, Sealed, Undecryptable
from k3s_standin.store import Store

from .test_standin_running import Node, patiently, server

__all__ = ["server"]
PASSWORD = "secret"


@dataclass
class Server:
    """One server, as often as it is started."""

    raw: Store
    folder: Path
    name: str
    on: bool = True
    now: Encryption = field(init=False)

    def start(self) -> Encryption:
        bootstrap.prepare(self.raw, self.folder, PASSWORD)
        self.now = Encryption(Sealed(self.raw), self.folder, self.name, on=self.on)
        self.now.begin(PASSWORD)
        if self.on:
            self.now._annotate(self.now.state.read_text())
        return self.now

    def stage(self) -> str:
        return str(self.now.status()["stage"])

    def write(self, name: str) -> None:
        self.now.store.put(f"/registry/secrets/default/{name}", json.dumps({"by": self.name}).encode())

    def reads(self, name: str) -> bool:
        return self.now.store.get(f"/registry/secrets/default/{name}") is not None

    def finished(self) -> None:
        assert not self.stage().startswith("reencrypt_active")
        assert self.now._annotations()[self.name] == self.now.state.read_text()


def three(folder: Path, *, on: bool) -> list[Server]:
    """Return three servers of a new cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, found = sqlite_store(folder / "state.db"), []
    for name in ("s1", "s2", "s3"):
        label = {"node-role.kubernetes.io/control-plane": "true"}
        node = {"metadata": {"name": name, "labels": label, "annotations": {}}}
        raw.put(f"/registry/minions/{name}", json.dumps(node).encode())
        for part in ("cred", "tls"):
            (folder / name / part).mkdir(parents=True)
        found.append(Server(raw, folder / name, name, on=on))
    bootstrap.make_files(folder / "s1", PASSWORD, PASSWORD)
    assert bootstrap.prepare(raw, folder / "s1", PASSWORD)
    Encryption(Sealed(raw), folder / "s1", "s1", on=on).begin(PASSWORD)
    bootstrap.save(raw, folder / "s1", PASSWORD)
    for one in found:
        one.start()
    return found


@pytest.fixture
def servers(tmp_path: Path) -> list[Server]:
    return three(tmp_path, on=True)


@pytest.fixture
def off(tmp_path: Path) -> list[Server]:
    return three(tmp_path, on=False)


def asked(one: Server, verb: str, *, force: bool = False, skip: bool = False) -> None:
    stage = {"stage": encryptcmd._STAGES[verb]} if verb in encryptcmd._STAGES else {"enable": verb == "enable"}
    one.now.change({**stage, "force": force, "skip": skip})


def stored(one: Server, name: str) -> bytes:
    entry = one.raw.get(f"/registry/secrets/default/{name}")
    assert entry
    return entry.value


def test_the_staged_rotation_loses_nothing_at_any_stage(servers: list[Server]) -> None:
    s1, s2, s3 = servers
    s1.write("a")
    assert stored(s1, "a").startswith(PREFIX)
    assert len({one.now.config.read_bytes() for one in servers}) == 1, "the first server's keys are saved"
    for verb in ("prepare", "rotate"):
        asked(s1, verb)
        assert s2.now.status()["hasherror"] == "hash does not match between s1 and s2"
        with pytest.raises(Refused, match="hash does not match between s1 and s2"):
            asked(s1, "rotate" if verb == "prepare" else "reencrypt")
        for one in servers:
            one.start()
            one.write(f"{verb}-{one.name}")
            assert all(each.reads(f"{verb}-{one.name}") for each in servers), (verb, one.name)
        assert s3.now.status()["hashmatch"]
        assert {one.stage() for one in servers} == {verb}
    asked(s1, "reencrypt")
    patiently(s1.finished)()
    assert s1.stage() == "reencrypt_finished"
    s2.write("late")
    for one in (s2, s3):
        one.start()
    assert all(one.reads(name) for one in servers for name in ("a", "late", "prepare-s1"))
    assert s1.now.status()["hashmatch"] is True
    (key,) = s1.now._keys()
    assert key["name"].encode() in stored(s1, "a")
    with pytest.raises(Refused, match="incorrect stage: reencrypt_finished found on node s1"):
        asked(s1, "rotate")


def test_no_two_keys_have_the_same_name_however_fast_they_are_made(servers: list[Server]) -> None:
    """A key that is replaced under its name leaves secrets that nobody can read."""
    for _ in range(2):
        asked(servers[0], "prepare", force=True)
    assert len({key["name"] for key in servers[0].now._keys()}) == 3


def test_rotating_at_once_loses_what_the_others_write(servers: list[Server]) -> None:
    s1, s2, _ = servers
    s1.write("a")
    asked(s1, "rotate-keys")
    assert s1.reads("a")
    with pytest.raises(Undecryptable, match="no matching key was found"):
        s2.reads("a")
    s2.write("lost")
    for one in (s1, s2):
        one.start()
        with pytest.raises(Undecryptable, match='unable to transform key "/registry/secrets/": no matching key'):
            one.now.store.list("/registry/secrets/")


def test_the_setting_alone_gives_each_server_a_key_of_its_own(off: list[Server]) -> None:
    s1, s2, s3 = off
    s1.write("plain")
    for verb, words in (("enable", "open : no such file"), ("prepare", "missing annotation on node s1")):
        with pytest.raises(Refused, match=words):
            asked(s1, verb)
    assert s1.now.status() == {"stage": "", "activekey": ""}
    s1.on = True
    s1.start()
    s1.write("mine")
    assert s1.now.status()["hashmatch"] is True, "nodes without the annotation do not count"
    assert s1.reads("plain")
    with pytest.raises(Undecryptable, match="identity transformer tried to read encrypted data"):
        s3.reads("mine")
    s2.on = True
    s2.start()
    with pytest.raises(Undecryptable, match="invalid padding on input"):
        s2.reads("mine")


def test_keys_that_are_prepared_are_saved_for_the_others(off: list[Server]) -> None:
    s1, s2, s3 = off
    s1.on = True
    s1.start()
    s1.write("mine")
    asked(s1, "prepare")
    for one in (s2, s3):
        one.on = True
        one.start()
        assert one.reads("mine")
        one.write(one.name)
    assert s1.reads("s2")
    assert s1.now.status()["hashmatch"] is True


def test_keys_that_are_turned_off_are_kept_and_turned_on_again(servers: list[Server]) -> None:
    s1, *_ = servers
    s1.write("a")
    asked(s1, "disable")
    asked(s1, "disable")
    for one in servers:
        one.start()
    assert stored(s1, "a").startswith(PREFIX), "the keys were still in force"
    asked(s1, "reencrypt", force=True, skip=True)
    patiently(s1.finished)()
    assert stored(s1, "a") == b'{"by": "s1"}'
    assert s1.now.status()["enable"] is False
    assert s1.now.status()["inactivekeys"] == ["AES-CBC aescbckey"]
    for one in servers:
        one.on = False
        one.start()
        assert one.reads("a")
    for one in servers:
        one.on = True
        one.start()
    asked(s1, "enable")
    for one in servers:
        one.start()
    s1.write("b")
    assert all(one.reads("b") for one in servers)
    assert stored(s1, "b").startswith(PREFIX)


def test_a_reencryption_that_cannot_read_a_secret_keeps_the_keys(servers: list[Server]) -> None:
    s1, *_ = servers
    s1.raw.put("/registry/secrets/default/lost", PREFIX + b"other\0" + os.urandom(32))
    before = s1.now.config.read_text()
    s1.now._reencrypt(skip=False)
    assert s1.now.config.read_text() == before
    with pytest.raises(Refused, match="unknown stage x requested"):
        s1.now.change({"stage": "x"})


def test_what_is_deleted_or_changed_meanwhile(servers: list[Server]) -> None:
    store = servers[0].now.store
    feed = store.feed("/registry/secrets/", 0)
    servers[0].write("a")
    assert [change[2].value for change in feed.poll()] == [b'{"by": "s1"}']
    assert store.delete("/registry/secrets/default/a")
    assert not servers[0].now._again("/registry/secrets/default/a")
    store.probe()
    store.compact()
    assert store.revision() > 0


def test_the_command_against_a_running_server(server: Node) -> None:
    def run(*argv: str, code: int = 0) -> str:
        done = server.run(
            "secrets-encrypt", *argv, f"--data-dir={server.home}/data", f"--server=https://127.0.0.1:{server.port}"
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert run("status") == "Encryption Status: Disabled, no configuration file found\n"
    assert json.loads(run("status", "-o", "json")) == {"stage": "", "activekey": ""}
    assert "see server log for details: secret-encrypt error ID" in run("prepare", code=1)
    assert "missing annotation on node" in server.journal
    server.stop()
    assert "connect: connection refused" in run("status", code=1)
    server.start("--secrets-encryption")

    @patiently
    def shown() -> None:
        text = run("status")
        assert "Current Rotation Stage: start\nServer Encryption Hashes: All hashes match" in text
        assert " *      AES-CBC   aescbckey" in text

    shown()
    assert run("prepare") == "prepare completed successfully\n"
    node = json.loads(server.kubectl("get", "nodes", "-o", "json").stdout)["items"][0]
    assert node["metadata"]["annotations"][ANNOTATION].startswith("prepare-")


def test_an_agent_has_no_such_command(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="server/token: no such file or directory"):
        encryptcmd.run(["status", f"--data-dir={tmp_path}"])


def test_kinds_of_the_stand_in_are_stored_where_the_keys_look() -> None:
    assert KINDS["secrets"].prefix == "/registry/secrets/"
    assert KINDS["nodes"].prefix == encryption._NODES
