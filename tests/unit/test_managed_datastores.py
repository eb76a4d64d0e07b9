"""Datastores that this tool sets up: what their hosts must look like, who may log in, and which users are old."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from nornir_k3s import facts, shell
from nornir_k3s.errors import InventoryError, UsageError
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.datastore_keys import Keys
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.family import DEBIAN
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import ManagedDatastore
from nornir_k3s.roles import datastore, mysql_password
from nornir_k3s.roles import server as server_role
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.roles.datastore_postgresql import verifier
from nornir_k3s.state import datastore_keys
from nornir_k3s.state.store import Store

from .conftest import HOSTS

Load = Callable[..., Cluster]
DATABASES = ("mariadb", "mysql", "postgresql")
MEMBERS = {**HOSTS, "db2": ("10.0.0.21", "datastore"), "db3": ("10.0.0.22", "datastore")}


def managed(load: Load, kind: str, **more: Any) -> Cluster:
    return load({"datastore": {"kind": kind, **more}}, hosts=MEMBERS if kind == "etcd" else None)


def files(cluster: Cluster, packages: dict[str, str] | None = None) -> dict[str, str]:
    spec = datastore.spec(cluster, cluster.member("db1"), DEBIAN, packages or {"postgresql": "15+248"})
    return {file.path: file.text.reveal() for file in spec.files}


@pytest.mark.parametrize("kind", DATABASES)
def test_only_the_servers_may_log_in_and_no_password_is_shown(load: Load, kind: str) -> None:
    cluster = managed(load, kind)
    script = datastore.kind(cluster).prepare(cluster).reveal()
    everything = script + "".join(files(cluster).values())
    assert "10.0.0.12" in everything
    assert "10.0.0.13" in everything
    assert "10.0.0.14" not in everything, "an agent needs no datastore"
    assert "'%'" not in everything
    assert "ALL PRIVILEGES" not in everything
    assert "SUPERUSER" not in everything.replace("NOSUPERUSER", "")
    assert cluster.datastore_password.reveal() not in everything, "the hash is enough"
    assert cluster.datastore_password.reveal() not in facts.script(
        facts.Query(cluster, cluster.member("db1"), HostSpec())
    )


# As crypt(3) has them, which MySQL's digest follows.
CRYPT = {
    "Hello world!": "a5C8Ofk71MUIoKve2QuP9FMl.dwNgseF5tR1LGAL7iB",
    "a" * 64: "x0FMqmk5UzULwylhuZdrIJxtUTQZgkfNrdYDGwbOyf8",
    "pässwörd" * 5: "E.9amVGUTzzndcw.cGCbkfksaawzf2c0VRz0HrfToH.",
}


@pytest.mark.parametrize("password", CRYPT)
def test_mysql_s_hash_is_that_of_crypt(password: str) -> None:
    digest = mysql_password._digest(password.encode(), b"saltstringsaltst")
    assert mysql_password._encoded(digest) == CRYPT[password]
    stored = mysql_password.caching_sha2(Secret(password))
    assert stored == mysql_password.caching_sha2(Secret(password))
    assert re.fullmatch(r"\$A\$005\$[./0-9A-Za-z]{63}", stored)


@pytest.mark.parametrize("kind", [*DATABASES, "etcd"])
def test_it_listens_on_the_cluster_s_address_only_and_shows_a_certificate(load: Load, kind: str) -> None:
    cluster = managed(load, kind)
    text = "".join(files(cluster).values())
    assert "10.0.0.11" in text
    assert "0.0.0.0" not in text  # noqa: S104 - it is what must not be
    assert cluster.keys
    assert cluster.keys.hosts["db1"].certificate in text
    key_files = [path for path, content in files(cluster).items() if "PRIVATE KEY" in content]
    assert key_files
    spec = datastore.spec(cluster, cluster.member("db1"), DEBIAN, {"postgresql": "15+248"})
    kept = next(file for file in spec.files if file.path == DATASTORE_KEYS)
    assert (kept.mode, kept.masking, kept.unit) == (0o600, "all", "")
    others = [file for file in spec.files if file.path in key_files and file is not kept]
    assert all(file.mode == 0o640 and file.masking == "all" for file in others)


@pytest.mark.parametrize(("kind", "others"), [("mariadb", "50-server.cnf"), ("mysql", "mysqld.cnf")])
def test_our_settings_come_after_those_of_the_package(load: Load, kind: str, others: str) -> None:
    config = next(Path(path) for path, text in files(managed(load, kind)).items() if "bind-address" in text)
    assert config.name > others, "the server reads them in this order, and the last one counts"


@pytest.mark.parametrize("kind", DATABASES)
def test_a_datastore_works_when_it_listens_where_the_servers_look_for_it(load: Load, kind: str) -> None:
    cluster = managed(load, kind)
    (unit,) = datastore.spec(cluster, cluster.member("db1"), DEBIAN, {"postgresql": "15+248"}).units
    port = {"postgresql": 5432}.get(kind, 3306)
    assert unit.proof.startswith(f"listens 10.0.0.11 {port}")


@pytest.mark.parametrize("kind", [*DATABASES, "etcd"])
def test_the_servers_verify_it(load: Load, kind: str) -> None:
    cluster = managed(load, kind)
    assert cluster.keys
    made = {f.path: f for f in server_role.spec(cluster, cluster.member("s1"), None).files}
    settings = yaml.safe_load(made["/etc/rancher/k3s/config.yaml"].text.reveal())
    assert made[settings["datastore-cafile"]].text.reveal() == cluster.keys.ca
    assert ("datastore-keyfile" in settings) == (kind == "etcd")
    if kind == "etcd":
        assert made[settings["datastore-keyfile"]].mode == 0o600
        assert settings["datastore-endpoint"] == "https://10.0.0.11:2379,https://10.0.0.21:2379,https://10.0.0.22:2379"


def test_without_tls_no_keys_are_made(load: Load) -> None:
    for kind in DATABASES:
        cluster = managed(load, kind, tls=False)
        assert cluster.keys is None
        assert "datastore-cafile" not in str(server_role.settings(cluster, cluster.member("s1")))


@given(password=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]), min_size=1))
def test_any_password_survives_the_endpoint(password: str) -> None:
    for kind in DATABASES:
        cluster = in_memory(kind, password)
        made = datastore.endpoint(cluster)
        found = parse(made)
        assert (found.password.reveal(), found.user, found.database) == (password, login(cluster), "k3s")
        assert password not in repr(made) or len(password) < 3


def in_memory(kind: str, password: str) -> Cluster:
    cluster = object.__new__(Cluster)
    member = Member("db1", "datastore", "10.0.0.11", "db1")
    cluster.__dict__.update(
        datastore=ManagedDatastore.model_validate({"kind": kind}),
        datastore_password=Secret(password),
        token=Secret("t" * 32),
        keys=None,
        members=(member,),
    )
    return cluster


def test_what_it_lacks_is_told(load: Load) -> None:
    cluster = managed(load, "mariadb")
    user = login(cluster)
    accounts = [f"{user}@10.0.0.{n}" for n in (12, 13)]
    right = Database(databases=frozenset(["k3s"]), users=dict.fromkeys(accounts, True), grants=frozenset(accounts))
    assert len(datastore.kind(cluster).missing(cluster, Database())) == 5
    assert datastore.steps(cluster, right) == []
    wrong = replace(right, users={**right.users, accounts[0]: False})
    assert datastore.kind(cluster).missing(cluster, wrong) == [f"password of {accounts[0]}"]


@pytest.mark.parametrize(("kind", "at"), [("mariadb", "@10.0.0.12"), ("postgresql", "")])
def test_users_of_earlier_passwords_and_of_lost_servers_are_old(load: Load, kind: str, at: str) -> None:
    cluster = managed(load, kind)
    user = login(cluster)
    names = [f"{name}{at}" for name in (user, "k3s_00000000", "k3s_backup", "k3s")]
    names += [f"{user}@10.0.0.99"] if at else []
    steps = datastore.tidy_steps(cluster, Database(users=dict.fromkeys(names, True)))
    wanted = f"remove k3s_00000000{at}" + (f", {user}@10.0.0.99" if at else "")
    assert [step.summary for step in steps] == [wanted]


def test_another_password_is_another_user(load: Load, tmp_path: Path) -> None:
    names = set()
    for password in ("one", "two"):
        (tmp_path / "password").write_text(password)
        names.add(login(managed(load, "mariadb", password={"file": str(tmp_path / "password")})))
    names.add(login(managed(load, "mariadb", password={"file": str(tmp_path / "password")}, tls=False)))
    assert len(names) == 3


def test_a_postgresql_verifier_is_what_the_server_computes() -> None:
    head, _, tail = verifier(Secret("pässword")).partition("$")
    rounds_salt, _, stored_server = tail.partition("$")
    rounds, _, salt = rounds_salt.partition(":")
    salted = hashlib.pbkdf2_hmac("sha256", "pässword".encode(), base64.b64decode(salt), int(rounds))
    client = hmac.digest(salted, b"Client Key", "sha256")
    assert head == "SCRAM-SHA-256"
    assert stored_server.split(":")[0] == base64.b64encode(hashlib.sha256(client).digest()).decode()


def test_postgresql_s_folders_follow_its_version(load: Load) -> None:
    cluster = managed(load, "postgresql")
    assert datastore.spec(cluster, cluster.member("db1"), DEBIAN, {}).files == ()
    known = {"postgresql": "17+278"}
    paths = set(files(cluster, known)) - {DATASTORE_KEYS}
    assert all(path.startswith("/etc/postgresql/17/main/") for path in paths)


@pytest.mark.parametrize(
    ("settings", "hosts", "words"),
    [
        ({"kind": "mariadb"}, 3, "exactly one host, it has 3: this tool sets up no replication"),
        ({"kind": "postgresql"}, 2, "exactly one host, it has 2: this tool sets up no replication"),
        ({"kind": "etcd"}, 2, "1, 3 or 5 hosts, it has 2: an even number survives no more losses"),
        ({"kind": "etcd", "user": "x"}, 1, "no database, user or password"),
        ({"kind": "etcd", "tls": False}, 1, "without TLS"),
        ({"kind": "mariadb", "password": {"file": "two-lines"}}, 1, "line breaks"),
    ],
)
def test_what_cannot_be_set_up_is_refused(
    load: Load, tmp_path: Path, settings: dict[str, Any], hosts: int, words: str
) -> None:
    (tmp_path / "two-lines").write_text("a\nb\n")
    more = {f"more{n}": (f"10.0.0.{30 + n}", "datastore") for n in range(hosts - 1)}
    with pytest.raises(InventoryError) as caught:
        load({"datastore": settings}, hosts={**HOSTS, **more})
    assert words in str(caught.value)


def test_keys_are_kept_and_made_anew_before_they_end(tmp_path: Path) -> None:
    def run(later: timedelta = timedelta(), names: tuple[str, ...] = ("10.0.0.11",), since: float = 0) -> Keys:
        store, now = Store(tmp_path / "state", base=tmp_path), datetime.now(UTC) + later
        made = datastore_keys.load(store, cluster="test", hosts={"db1": names}, now=now, since=since)
        store.commit()
        return made

    first = run()
    path = tmp_path / "state" / datastore_keys.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert run().hosts["db1"].certificate == first.hosts["db1"].certificate
    assert run(timedelta(days=200)).client.certificate == first.client.certificate
    renewed = run(timedelta(days=300))
    assert renewed.ca == first.ca
    assert renewed.hosts["db1"].certificate != first.hosts["db1"].certificate
    assert run(timedelta(days=300)).hosts["db1"].certificate == renewed.hosts["db1"].certificate
    moved = run(timedelta(days=300), names=("10.0.0.12",))
    assert moved.hosts["db1"].certificate != renewed.hosts["db1"].certificate
    signed = x509.load_pem_x509_certificate(moved.hosts["db1"].certificate.encode())
    signed.verify_directly_issued_by(x509.load_pem_x509_certificate(first.ca.encode()))
    begun = (datetime.now(UTC) + timedelta(days=310)).timestamp()
    rotated = run(timedelta(days=310), names=("10.0.0.12",), since=begun)
    assert (rotated.ca, rotated.client == moved.client) == (first.ca, False)
    again = run(timedelta(days=311), names=("10.0.0.12",), since=begun)
    assert again == rotated, "those are of this rotation"


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"ca": {"certificate": "x", "key": "y"}})])
def test_a_damaged_file_of_keys_is_told_of_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / datastore_keys.FILE).write_text(text)
    store = Store(tmp_path / "state", base=tmp_path)
    with pytest.raises(UsageError, match="damaged"):
        datastore_keys.load(store, cluster="test", hosts={"db1": ["10.0.0.11"]})
    assert (tmp_path / "state" / datastore_keys.FILE).read_text() == text


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
@pytest.mark.parametrize(("pool", "expected"), [({}, 550), ({"max_open": 60}, 550), ({"max_open": 200}, 1050)])
def test_it_lets_in_as_many_as_the_servers_may_open(load: Load, kind: str, pool: dict[str, int], expected: int) -> None:
    cluster = load({"datastore": {"kind": kind}} | ({"datastore_pool": pool} if pool else {}))
    seen = {"postgresql": "15+248"}
    spec = datastore.spec(cluster, cluster.member("db1"), DEBIAN, seen)
    assert any(f"max_connections = {expected}" in file.text.reveal() for file in spec.files)


def test_what_overrides_the_address_is_told(tmp_path: Path) -> None:
    for name, text in {"systemctl": "exit 0", "ss": "exit 0", "sleep": "exit 0", "journalctl": "exit 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = "say() { :; }\n" + shell.source("apply/steps.sh") + f"STEP=1 STATE={tmp_path}\n"
    script += shell.call("act", "mysql.service", "restart", "wait", "listens 10.0.0.11 3306", "")
    done = subprocess.run(
        ["sh"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("mysql.service: it does not listen on 10.0.0.11:3306: look for a setting")
