"""Backups: what is in the file, who can read it, how many stay; the dump comes from a shell with a stand-in client."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task

from nornir_k3s import K3sError, UsageError, backup, k3s, k3s_backup, plan_backup
from nornir_k3s.errors import CommandFailed, UnreadableAnswer
from nornir_k3s.model.backup import Backup, BackupOptions, Manifest
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, NodeState
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import backup as parts
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import backup_file, backups, drafts, encryption

from .conftest import HOSTS, SETTINGS, inventory

TOKEN, CONFIG = "hush-hush-hush", "token: hush-hush-hush\n"
ROWS = "INSERT INTO kine VALUES (1, 'one');" * 1000


class Hosts:
    """Hosts whose scripts run here, with what a MariaDB and K3s would say."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.scripts = folder, list[str]()
        self.alive, self.has_data, self.revision = True, True, 77
        self.damage: Callable[[str], str] = lambda text: text
        self.down: set[str] = set()
        (folder / "bin").mkdir()
        (folder / "dump.sql").write_text(ROWS)
        self.program("mariadb", "echo 100")
        self.program("mariadb-dump", f"cat {folder}/dump.sql")
        (folder / "config.yaml").write_text(CONFIG)
        patch.setattr(parts, "FILES", {"config.yaml": str(folder / "config.yaml"), "none.json": str(folder / "none")})
        patch.setattr(parts, "PIECE", 1 << 10)
        patch.setattr(parts, "session_of", self.session)
        patch.setattr(gather, "gather_host", self.gathered)

    def program(self, name: str, line: str) -> None:
        (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def gathered(self, task: Task, run: Run) -> Result:
        name = task.host.name
        if name in self.down:
            raise CommandFailed(name, "observing", status=1)
        key = {k3s.bootstrap_key(run.cluster.token): 12} if self.has_data else {}
        nodes = tuple(
            NodeState(one, True, version) for one, version in (("s1", "v1.34.9+k3s1"), ("s2", "v1.34.8+k3s1"))
        )
        store = Database(alive=self.alive, bootstrap=key, revision=self.revision)
        found = {"db1": HostFacts("db1", database=store)}
        run.facts[name] = found.get(name, HostFacts(name, api=Api(ready=True, nodes=nodes)))
        return Result(host=task.host)

    def session(self, task: Task, _: Run) -> Any:
        def run(script: str, *, what: str, **_: Any) -> Any:
            self.scripts.append(script)
            text = (
                script.replace(STATE, str(self.folder / "host")).replace("bs=1048576", "bs=1024").replace("* 16", "* 1")
            )
            environ = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
            text = text.replace("bs=1048576", "bs=64")  # pieces of 1 KiB
            done = subprocess.run(["sh"], input=text, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise CommandFailed(task.host.name, what, status=done.returncode, stderr=done.stderr)
            return SimpleNamespace(stdout=self.damage(done.stdout))

        return SimpleNamespace(run=run, host=task.host.name)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setenv("TOKEN", TOKEN)
    return Hosts(tmp_path, monkeypatch)


def nornir(**settings: Any) -> Nornir:
    given: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}, "token": {"env": "TOKEN"}} | settings
    return Nornir(inventory=inventory(given, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


def make(base: Path, nr: Nornir | None = None, **options: Any) -> Backup:
    return backup(nr or nornir(), base=base, state=base / "state", options={"whole": True, "backup": options})


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]  # files


def test_one_file_has_all_that_a_restore_needs(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT", "agents-may-hush")
    report = make(tmp_path, nornir(agent_token={"env": "AGENT"}))
    assert report.outcome == "ok"
    path = Path(report.place)
    assert path.parent == tmp_path / "state" / "test" / "backups"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    found = content(path)
    assert list(found)[:4] == ["manifest.json", "datastore.sql.gz", "token", "agent-token"]
    assert gzip.decompress(found["datastore.sql.gz"]).decode() == ROWS
    assert (found["token"].decode(), found["agent-token"].decode()) == (TOKEN, "agents-may-hush")
    assert found["servers/s1/config.yaml"].decode() == CONFIG
    assert not [name for name in found if "none" in name]
    assert "hush" not in found["manifest.json"].decode()
    manifest = backup_file.check(path)
    assert manifest == report.manifest
    assert (manifest.k3s_version, manifest.datastore, manifest.database) == ("v1.34.9+k3s1", "mariadb", "k3s")
    assert (manifest.revision, manifest.token) == (77, Secret(TOKEN).fingerprint())
    assert [one.name for one in manifest.nodes] == ["s1", "s2", "a1"]
    assert backup_file.text(path, "token") == Secret(TOKEN)
    assert backup_file.text(path, "nothing") is None
    assert not list((tmp_path / "host" / "backup").iterdir()), "the dump is removed from its host"
    assert not list((tmp_path / "state" / "test").glob(".backup.*"))
    run = gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={"whole": True})
    known = backups.last(run.store)
    assert (known.made, known.verified, known.place) == (manifest.created, None, report.place)
    assert TOKEN not in report.model_dump_json()


def test_the_newest_stay(hosts: Hosts, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    old = [f"test-2020010{day}T000000Z.backup.tar{'.cms' * (day % 2)}" for day in range(1, 5)]
    others = ["test-2-20200101T000000Z.backup.tar", "notes.txt"]
    for name in (*old, *others, ".test-20200101T000000Z.backup.tar"):
        (folder / name).touch()
    report = make(tmp_path, folder=folder, keep=3)
    assert report.removed == [str(folder / name) for name in old[:2]]
    assert {path.name for path in folder.iterdir()} == {*old[2:], *others, Path(report.place).name}


def test_the_new_one_stays_though_the_clock_was_put_back(hosts: Hosts, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    later = "test-20990101T000000Z.backup.tar"
    (folder / later).touch()
    report = make(tmp_path, folder=folder, keep=1)
    assert Path(report.place).is_file()
    assert report.removed == []


def key_pair(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=backup", "-days", "3650"]
    subprocess.run(
        ["openssl", "req", "-x509", *words, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return key, certificate


def test_an_encrypted_one_is_read_with_the_key_alone(hosts: Hosts, tmp_path: Path) -> None:
    key, certificate = key_pair(tmp_path)
    report = make(tmp_path, certificate=certificate)
    path = Path(report.place)
    assert path.name.endswith(".backup.tar.cms")
    assert path.stat().st_mode & 0o777 == 0o600
    assert report.encrypted
    assert not [note for note in report.notes if "not encrypted" in note]
    assert TOKEN.encode() not in path.read_bytes()
    plain, damaged = tmp_path / "plain", bytearray(path.read_bytes())
    plain.touch(0o600)
    encryption.decrypt(path, plain, key)
    assert backup_file.check(plain) == report.manifest
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match="cannot be decrypted"):
        encryption.decrypt(path, plain, key)
    assert plain.read_bytes() == b"", "nothing of it is used"


def test_what_openssl_could_not_decrypt_is_not_encrypted(hosts: Hosts, tmp_path: Path) -> None:
    """It encrypts files of any size, and decrypts none above 1.5 GiB."""
    _, certificate = key_pair(tmp_path)
    large, target = tmp_path / "large", drafts.private(tmp_path, "target")
    with large.open("wb") as file:
        file.truncate(1_500_000_000)  # it takes no room
    with pytest.raises(UsageError, match="openssl cannot decrypt what is larger than 1335 MiB") as caught:
        encryption.encrypt(large, target, certificate)
    assert "age" in caught.value.hint
    assert target.stat().st_size == 0


def test_what_keeps_it_from_being_encrypted(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        make(tmp_path, certificate=tmp_path / "none.pem")
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(UsageError, match="cannot encrypt for"):
        make(tmp_path, certificate=tmp_path / "no.pem")
    assert not list((tmp_path / "state" / "test").glob("backups/*"))

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    def late(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("openssl", 1)

    for found, words in ((missing, "openssl is not installed"), (late, "took longer")):
        monkeypatch.setattr(subprocess, "run", found)
        with pytest.raises(K3sError, match=words):
            encryption.encrypt(tmp_path / "no.pem", tmp_path / "b", tmp_path / "no.pem")


def test_a_command_gets_the_file(hosts: Hosts, tmp_path: Path) -> None:
    script = f"cat >{tmp_path}/got; echo to be kept; echo s3://bucket/$K3S_BACKUP"
    report = make(tmp_path, command=["sh", "-c", script], folder=tmp_path / "unused")
    assert report.place.startswith("s3://bucket/test-2")
    assert backup_file.check(tmp_path / "got") == report.manifest
    assert not (tmp_path / "unused").exists()
    quiet = make(tmp_path, command=["sh", "-c", "cat >/dev/null"])
    assert quiet.place.endswith(".backup.tar, which sh got")
    with pytest.raises(K3sError, match="the backup command sh ended with status 3") as caught:
        make(tmp_path, command=["sh", "-c", "exit 3"])
    assert caught.value.report.outcome == "failed"
    assert caught.value.report.error.kind == "K3sError"
    assert not list((tmp_path / "state" / "test").glob(".backup.*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hosts: setattr(hosts, "has_data", False), "no data of the cluster's token"),
        (lambda hosts: setattr(hosts, "alive", False), "none of its hosts answers"),
        (lambda hosts: hosts.program("mariadb-dump", "echo half; exit 2"), "dumping the datastore failed"),
        (lambda hosts: hosts.program("mariadb", "echo 99999999999"), "make room"),
        (lambda hosts: hosts.down.add("db1"), "db1: observing failed"),
        (
            lambda hosts: setattr(hosts, "damage", lambda text: text.replace("@hash\t", "@hash\tf")),
            "has arrived",
        ),
    ],
)
def test_there_is_a_whole_file_or_none(hosts: Hosts, tmp_path: Path, change: Any, words: str) -> None:
    change(hosts)
    with pytest.raises(K3sError, match=words):
        make(tmp_path)
    assert not list((tmp_path / "state" / "test").glob("backups/*"))
    assert not (tmp_path / "state" / "test" / "backups.json").exists()


def test_servers_that_are_down_are_only_told(hosts: Hosts, tmp_path: Path) -> None:
    hosts.down = {"s2"}
    report = make(tmp_path)
    assert "without the settings of s2: not read" in report.notes
    assert report.manifest is not None
    hosts.down = {"s1", "s2"}
    report = make(tmp_path)
    assert report.manifest is not None
    assert (report.manifest.k3s_version, report.manifest.ca) == (SETTINGS["version"], "")


def test_a_dump_is_verified_in_a_scratch_database(hosts: Hosts, tmp_path: Path) -> None:
    """The stand-in for a MariaDB says what the scratch database has got; the second dump is that."""
    scratch, dump = tmp_path / "scratch.sql", f"*) cat {tmp_path}/dump.sql ;; esac"
    answers = "case $* in *SELECT*kine*) echo {} ;; *SELECT*) echo 100 ;; *verify) cat >{} ;; esac"
    hosts.program("mariadb", answers.format(1, scratch))
    hosts.program("mariadb-dump", f"case $* in *k3s_verify) echo '-- of now'; cat {scratch} ;; {dump}")
    report = make(tmp_path, verify=True)
    assert report.verified
    assert report.manifest is not None
    run = gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={"whole": True})
    assert backups.last(run.store).verified == report.manifest.created
    hosts.program("mariadb-dump", f"case $* in *k3s_verify) echo less ;; {dump}")
    with pytest.raises(K3sError, match="that differs from it"):
        make(tmp_path, verify=True)
    assert len(list((tmp_path / "state" / "test" / "backups").iterdir())) == 1
    assert not list((tmp_path / "host" / "backup").iterdir()), "the dump is removed from its host"
    hosts.program("mariadb", answers.format(0, "/dev/null"))
    with pytest.raises(K3sError, match="the dump has no table kine"):
        make(tmp_path, verify=True)
    options = {"backup": {"verify": True}}
    assert "scratch" in plan_backup(nornir(), base=tmp_path, state=tmp_path / "state", options=options).steps[1]


def external(**fields: Any) -> Nornir:
    """Return a cluster with an external PostgreSQL."""
    store = {"kind": "postgresql", "hosts": ["10.0.0.8"], "password": {"env": "TOKEN"}, **fields}
    store = {key: value for key, value in store.items() if value is not None}
    given = {**copy.deepcopy(SETTINGS), "artifacts": {}, "token": {"env": "TOKEN"}, "datastore": store}
    some = {name: host for name, host in HOSTS.items() if name != "db1"}
    return Nornir(inventory=inventory(given, some, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


def test_an_external_datastore_is_dumped_by_the_user_s_command(hosts: Hosts, tmp_path: Path) -> None:
    nr = external(dump_command=["sh", "-c", f'echo "of $PGHOST" >{tmp_path}/own.dump; echo {tmp_path}/own.dump'])
    report = make(tmp_path, nr, verify=True)
    assert content(Path(report.place))["datastore.dump"].decode() == "of 10.0.0.8\n"
    assert report.manifest is not None
    assert (report.manifest.datastore, report.verified) == ("postgresql", False)
    assert "not verified: datastore.dump_command dumps it" in report.notes
    report = make(tmp_path, external(dump_command=["sh", "-c", "echo s3://bucket/x"]))
    assert "the dump is not in the file: sh put it to s3://bucket/x" in report.notes
    assert "datastore.dump" not in content(Path(report.place))
    with pytest.raises(K3sError, match="ended with status 3"):
        make(tmp_path, external(dump_command=["sh", "-c", "exit 3"]))
    found = plan_backup(external(dump_command="pg_dump x"), base=tmp_path, state=tmp_path / "state")
    assert found.steps[0] == "dump the postgresql with pg_dump (datastore.dump_command)"


def test_the_task_of_an_external_one_runs_on_one_server(hosts: Hosts, tmp_path: Path) -> None:
    nr = external(dump_command=["sh", "-c", "echo elsewhere"])
    results = nr.run(task=k3s_backup, base=tmp_path, state=tmp_path / "state")
    assert not results.failed
    assert results["s1"].changed
    assert "not the host" in results["s2"].result


def test_a_datastore_that_went_back_is_told(hosts: Hosts, tmp_path: Path) -> None:
    make(tmp_path)
    hosts.revision = 70
    report = make(tmp_path)
    assert "went back from revision 77 to 70; this is a backup of what is there now" in " ".join(report.notes)


def test_folders_that_cannot_be_written(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file cannot be written"):
        make(tmp_path, folder=tmp_path / "file")
    stale = tmp_path / "state" / "test" / ".backup.killed"
    stale.mkdir()
    (stale / "dump").touch()
    replaced = os.rename

    def full(self: Path, target: Path) -> Path:
        replaced(self, target)
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(UsageError, match="No space left"):
            make(tmp_path, folder=tmp_path / "other")
    assert not stale.exists(), "what a killed run has left goes"


def test_ctrl_c_is_told(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "dump", stop)
    with pytest.raises(K3sError) as caught:
        make(tmp_path)
    assert caught.value.exit_code == 130
    assert caught.value.report.outcome == "interrupted"


def test_the_plan_contacts_nobody(tmp_path: Path, hosts: Hosts) -> None:
    key_pair(tmp_path)
    options = BackupOptions(certificate=Path("certificate.pem"), command=["rclone", "rcat"]).below(tmp_path)
    arguments: dict[str, Any] = {"base": tmp_path, "state": tmp_path / "state"}
    found = plan_backup(nornir(), **arguments, options={"backup": options})
    assert found.planned
    assert found.steps[0] == "dump the mariadb on db1, and remove the dump there afterwards"
    assert found.steps[-2:] == [
        f"encrypt it for the key of {tmp_path}/certificate.pem",
        "pass it to rclone on its standard input",
    ]
    assert not found.notes
    plain = plan_backup(nornir(), **arguments)
    assert "write it to" in plain.steps[-1]
    assert "not encrypted" in plain.notes[0]
    assert not hosts.scripts
    with pytest.raises(UsageError, match="backup: keep"):
        plan_backup(nornir(), **arguments, options={"backup": {"keep": 0}})


def test_the_datastore_must_be_in_the_inventory(hosts: Hosts, tmp_path: Path) -> None:
    make(tmp_path)
    gather.prepare(nornir(), base=tmp_path, state=tmp_path / "state", options={})
    some = nornir().filter(filter_func=lambda host: host.name != "db1")
    with pytest.raises(UsageError, match="not in this inventory"):
        backup(some, base=tmp_path, state=tmp_path / "state")


def test_the_task_makes_it_on_one_host(hosts: Hosts, tmp_path: Path) -> None:
    nr = nornir()
    for dry in (True, False):
        results = nr.run(task=k3s_backup, base=tmp_path, state=tmp_path / "state", dry_run=dry)
        assert not results.failed, results["db1"].exception
        assert results["db1"].result.planned is dry
        assert results["db1"].changed is not dry
        assert "not the host" in results["s1"].result
    assert Path(results["db1"].result.place).exists()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole"
    path.touch(0o600)
    dump = tmp_path / "dump"
    dump.write_bytes(b"x" * 5000)
    backup_file.write(path, manifest(), {"datastore.sql.gz": dump, "token": Secret(TOKEN)})
    return path


def manifest() -> Manifest:
    return Manifest(cluster="test", k3s_version="v1.34.9+k3s1", datastore="mariadb", token="0" * 12)


def entries(path: Path) -> Iterator[tuple[str, bytes]]:
    yield from content(path).items()


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Write a tar with other contents; None leaves one out."""
    found = [(name, change(name, text)) for name, text in entries(path)]
    with tarfile.open(path, "w") as archive:
        for name, text in found:
            if text is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
    return path


def test_damage_is_found(whole: Path, tmp_path: Path) -> None:
    assert backup_file.check(whole).part("token") is not None
    assert backup_file.check(whole).part("nothing") is None
    good = whole.read_bytes()
    where = good.index(b"x" * 100)
    cases: list[tuple[bytes, str]] = [
        (good[:where] + b"y" + good[where + 1 :], "datastore.sql.gz has another hash"),
        (good[: where + 2000], "is damaged"),
        (b"", "is damaged|not a backup"),
        (b"SQLite format 3" + b"\0" * 2000, "is damaged"),
    ]
    for data, words in cases:
        whole.write_bytes(data)
        with pytest.raises(UsageError, match=words):
            backup_file.check(whole)
    changes: list[tuple[Callable[[str, bytes], bytes | None], str]] = [
        (lambda name, text: None if name == "token" else text, "token has no content"),
        (lambda name, text: None if name == "manifest.sha256" else text, "its end is missing"),
        (
            lambda name, text: text.replace(b"1.34.9", b"1.35.9") if name == "manifest.json" else text,
            "another hash than",
        ),
        (lambda name, text: None if name == "manifest.json" else text, "does not begin with"),
    ]
    for change, words in changes:
        whole.write_bytes(good)
        with pytest.raises(UsageError, match=words):
            backup_file.check(rewritten(whole, change))
    with pytest.raises(UsageError, match="cannot be read"):
        backup_file.check(tmp_path / "nothing")


@pytest.mark.parametrize(("change", "words"), [({"format": 2}, "has format 2"), ({"cluster": 7}, "cannot read")])
def test_a_newer_format_is_refused(whole: Path, change: dict[str, Any], words: str) -> None:
    text = json.loads(dict(entries(whole))["manifest.json"]) | change
    raw = json.dumps(text).encode()
    seal = hashlib.sha256(raw).hexdigest().encode()
    new = {"manifest.json": raw, "manifest.sha256": seal}
    with pytest.raises(UsageError, match=words):
        backup_file.check(rewritten(whole, new.get))


def test_a_link_is_no_part(whole: Path) -> None:
    with tarfile.open(whole, "a") as archive:
        entry = tarfile.TarInfo("token")
        entry.type = tarfile.SYMTYPE
        archive.addfile(entry)
    with pytest.raises(UsageError, match="token is not a file"):
        backup_file.check(whole)


def test_a_wrong_answer_ends_it(hosts: Hosts, tmp_path: Path) -> None:
    hosts.damage = lambda text: "@fail\tx\n" if "@dump" in text else text
    with pytest.raises(UnreadableAnswer):
        make(tmp_path)
    assert threading.active_count() < 50
