"""The scripts of a restore in a real shell, and what they get."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.apply import restore as scripts
from nornir_k3s.model.backup import Manifest, Part
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore
from nornir_k3s.state import restoring
from nornir_k3s.state.restoring import Restoring

from .test_backup import TOKEN
from .test_restore import CA, prepared_run


def shell(folder: Path, script: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run a script with programs that only note how they were called."""
    for name, text in {"systemctl": "echo loaded", "sync": "", **programs}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/log\n{text}\n')
        (folder / name).chmod(0o755)
    text = script.replace(STATE, str(folder / "state")).replace(k3s.DATA, str(folder / "k3s"))
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh"], input=text, env=environ, capture_output=True, text=True, check=False)


def files(folder: Path, *, encryption: str = "") -> None:
    """Make a server's files of the backup's token and CA."""
    server = folder / "k3s" / "server"
    (server / "tls").mkdir(parents=True)
    (server / "cred").mkdir()
    (server / "token").write_text(f"{CA}::server:{TOKEN}\n")
    if encryption:
        (server / "cred" / "encryption-config.json").write_text(encryption)


@pytest.mark.parametrize(
    ("changes", "encryption", "aside"),
    [
        ({}, "", False),
        ({}, "{}", True),
        ({"ca": "K10" + "d" * 64}, "", True),
        ({"token": "0" * 12}, "", True),
        ({"parts": []}, "{}", False),  # nothing is known of that server
        ({"parts": ["config.yaml", "encryption-config.json"]}, "{}", False),
        ({"parts": ["config.yaml", "encryption-config.json"]}, "", True),
    ],
)
def test_files_that_do_not_fit_are_put_aside(
    tmp_path: Path, changes: dict[str, Any], encryption: str, *, aside: bool
) -> None:
    files(tmp_path, encryption=encryption)
    digest = hashlib.sha256(b"{}").hexdigest()
    given = {**changes, "parts": changes.get("parts", ["config.yaml"])}
    given["parts"] = [Part(name=f"servers/s1/{name}", bytes=2, sha256=digest) for name in given["parts"]]
    fields = {"ca": CA, "token": Secret(TOKEN).fingerprint(), **given}
    manifest = Manifest(cluster="test", k3s_version="v1.34.9+k3s1", datastore="mariadb", **fields)
    for _ in range(2):
        done = shell(tmp_path, scripts.stop(manifest, "s1", number="abcd"))
        assert done.returncode == 0, done.stderr
    server = tmp_path / "k3s" / "server"
    assert (server / "tls").exists() is not aside
    assert (server / "before-restore-abcd" / "tls").exists() is aside
    said = (tmp_path / "log").read_text()
    assert said.index("systemctl disable -q k3s.service") < said.index("systemctl stop k3s.service"), "nor at a boot"


def test_files_of_a_start_between_two_runs_are_put_aside_too(tmp_path: Path) -> None:
    manifest = Manifest(cluster="test", k3s_version="v1.34.9+k3s1", datastore="mariadb", ca=CA, token="0" * 12)
    for _ in range(2):  # K3s makes its files again
        files(tmp_path)
        done = shell(tmp_path, scripts.stop(manifest, "s1", number="abcd"))
        assert done.returncode == 0, done.stderr
    server = tmp_path / "k3s" / "server"
    assert [path.name for path in server.iterdir()] == ["before-restore-abcd"]
    assert len(list((server / "before-restore-abcd").glob("tls*"))) == 2, "nothing is overwritten"


def test_a_bare_host_has_nothing_to_stop(tmp_path: Path) -> None:
    manifest = Manifest(cluster="test", k3s_version="v1.34.9+k3s1", datastore="mariadb", token="0" * 12)
    done = shell(tmp_path, scripts.stop(manifest, "s1", number="abcd"), systemctl="echo not-found")
    assert done.returncode == 0, done.stderr
    assert not {"stop", "disable"} & set((tmp_path / "log").read_text().split())


# A MariaDB whose databases are folders, and tables files in them.
MARIADB = r"""
cd DATA
for word; do last=$word; done
case $last in
  SELECT*) schema=${last#*table_schema = \'}; schema=${schema%%\'*}; [ -e "$schema/kine" ] && echo 1 || echo 0 ;;
  DROP*CREATE*) name=${last##* }; rm -rf "$name"; mkdir "$name" ;;
  CREATE*k3s_old_*RENAME*) [ ! -e FAIL ] || { mkdir -p "k3s_old_abcd"; exit 1; }
    mkdir -p k3s_old_abcd; mv k3s/kine k3s_old_abcd/kine; mv k3s_new_abcd/kine k3s/kine ;;
  CREATE*RENAME*) mkdir -p k3s; mv k3s_new_abcd/kine k3s/kine ;;
  DROP*) rm -rf "${last##* }" ;;
  *) cat >"$1/kine"; [ -s "$1/kine" ] || rm "$1/kine" ;;
esac
"""


def mariadb(folder: Path) -> tuple[str, Callable[[str], str]]:
    data = folder / "data"
    (data / "k3s").mkdir(parents=True)
    (folder / "dump.gz").write_bytes(gzip.compress(b"restored"))
    run = prepared_run(folder)
    recipe = datastore.kind(run.cluster).dump(run.cluster, run.cluster.member("db1"))
    script = scripts.replace(recipe, str(folder / "dump.gz"), database="k3s", number="abcd")

    def table(name: str) -> str:
        path = data / name / "kine"
        return path.read_text() if path.exists() else ""

    return script, table


def test_the_tables_change_places_at_once(tmp_path: Path) -> None:
    script, table = mariadb(tmp_path)
    program = MARIADB.replace("DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "k3s" / "kine").write_text("old")
    (tmp_path / "data" / "FAIL").touch()
    done = shell(tmp_path, script, mariadb=program)
    assert done.returncode != 0
    assert table("k3s") == "old", "nothing is lost when it fails"
    (tmp_path / "data" / "FAIL").unlink()
    done = shell(tmp_path, script, mariadb=program)
    assert done.returncode == 0, done.stderr
    assert (table("k3s"), table("k3s_old_abcd"), table("k3s_new_abcd")) == ("restored", "old", "")
    assert not (tmp_path / "dump.gz").exists()
    (tmp_path / "data" / "k3s" / "kine").write_text("restored, and more")
    done = shell(tmp_path, script, mariadb=program)  # killed before it was noted
    assert done.returncode == 0, done.stderr
    assert (table("k3s"), table("k3s_old_abcd")) == ("restored, and more", "old")


@pytest.mark.parametrize("dropped", [False, True])
def test_an_empty_database_has_nothing_to_keep(tmp_path: Path, *, dropped: bool) -> None:
    script, table = mariadb(tmp_path)
    if dropped:
        (tmp_path / "data" / "k3s").rmdir()
    done = shell(tmp_path, script, mariadb=MARIADB.replace("DATA", str(tmp_path / "data")))
    assert done.returncode == 0, done.stderr
    assert (table("k3s"), table("k3s_old_abcd")) == ("restored", "")


def test_a_dump_without_rows_replaces_nothing(tmp_path: Path) -> None:
    script, table = mariadb(tmp_path)
    (tmp_path / "data" / "k3s" / "kine").write_text("old")
    for content in (gzip.compress(b""), gzip.compress(b"x" * 9000)[:-20]):
        (tmp_path / "dump.gz").write_bytes(content)
        done = shell(tmp_path, script, mariadb=MARIADB.replace("DATA", str(tmp_path / "data")))
        assert (done.returncode != 0, "has no table kine" in done.stderr) == (True, True)
        assert table("k3s") == "old"


# A PostgreSQL whose databases are files.
PSQL = r"""
shift 3; cd FOLDER
for word; do last=$word; done
case $last in
  "SELECT COUNT"*) name=${last#*datname = \'}; name=${name%%\'*}; [ -e "$name" ] && echo 1 || echo 0 ;;
  "CREATE DATABASE"*) set -- $last; : >"$3" ;;
  "DROP DATABASE"*) rm -f "${last##* }" ;;
  "ALTER DATABASE"*) set -- $last; [ ! -e FAIL ] || [ "$3" = k3s ] || exit 1; mv -T "$3" "$6" ;;
  *"pg_database_size('"*) exit 1 ;; # it is an error where the database is missing
  "SELECT to_regclass"*) for word; do case $word in k3s_*) [ ! -s "$word" ] || echo kine ;; esac; done ;;
esac
"""
RESTORE = r"""
case $4 in
  psql) shift 4; exec FOLDER/psql -u postgres -- "$@" ;;
  pg_restore) shift 3; for word; do last=$word; done; cat >"DATA/$last" ;;
esac
"""


def test_a_postgresql_is_replaced_and_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "k3s").write_text("old")
    run = prepared_run(tmp_path)
    cluster = replace(run.cluster, datastore=run.cluster.managed.model_copy(update={"kind": "postgresql"}))
    recipe = datastore.kind(cluster).dump(cluster, cluster.member("db1"))
    script = scripts.replace(recipe, str(tmp_path / "dump"), database="k3s", number="abcd")
    programs = {
        "psql": PSQL.replace("FOLDER", str(data)),
        "runuser": RESTORE.replace("DATA", str(data)).replace("FOLDER", str(tmp_path)),
    }
    (data / "FAIL").touch()
    (tmp_path / "dump").write_text("restored")
    done = shell(tmp_path, script, **programs)
    assert done.returncode != 0, "killed between the two renames"
    assert (data / "k3s_old_abcd").read_text() == "old"
    (data / "FAIL").unlink()
    for _ in range(2):
        (tmp_path / "dump").write_text("restored")
        done = shell(tmp_path, script, **programs)
        assert done.returncode == 0, done.stderr
        assert {path.name: path.read_text() for path in data.iterdir()} == {"k3s": "restored", "k3s_old_abcd": "old"}


def test_a_postgresql_whose_database_was_dropped_gets_it_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    script = scripts.replace(recipe_of(tmp_path, "postgresql"), str(tmp_path / "dump"), database="k3s", number="abcd")
    (tmp_path / "dump").write_text("restored")
    programs = {
        "psql": PSQL.replace("FOLDER", str(data)),
        "runuser": RESTORE.replace("DATA", str(data)).replace("FOLDER", str(tmp_path)),
    }
    done = shell(tmp_path, script, **programs)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in data.iterdir()} == {"k3s": "restored"}


@pytest.mark.parametrize("tool", ["etcdutl", "etcdctl"])
def test_an_etcd_is_replaced_and_kept(tmp_path: Path, tool: str) -> None:
    run = prepared_run(tmp_path)
    cluster = replace(run.cluster, datastore=run.cluster.managed.model_copy(update={"kind": "etcd"}))
    recipe = datastore.kind(cluster).dump(cluster, cluster.member("db1"))
    assert "--initial-cluster=db1=https://10.0.0.11:2380" in recipe.replace
    data = tmp_path / "etcd"
    (data / "test" / "member").mkdir(parents=True)
    (data / "test" / "old").touch()
    script = scripts.replace(recipe, str(tmp_path / "dump"), database="k3s", number="abcd").replace(
        "/var/lib/etcd", str(data)
    )
    restores = 'for word; do [ "$last" != --data-dir ] || mkdir -p "$word"; last=$word; done'
    programs = {"etcdctl": restores, "chown": "", tool: restores}
    done = shell(tmp_path, script, **{**programs, tool: "echo no room >&2; exit 1"})
    assert (done.returncode != 0, "no room" in done.stderr) == (True, True)
    assert (data / "test" / "old").exists()
    for _ in range(2):
        done = shell(tmp_path, script, **programs)
        assert done.returncode == 0, done.stderr
        assert (data / "test.old_abcd" / "old").exists()
        assert not (data / "test" / "old").exists()
    sick = f"case $* in *health*) exit 1 ;; esac; {restores}"
    done = shell(tmp_path, script, **{**programs, "etcdctl": sick, "sleep": ""})
    assert (done.returncode != 0, "etcd is not healthy" in done.stderr) == (True, True)
    said = (tmp_path / "log").read_text()
    assert "--initial-cluster-token=test-abcd" in said, "no member of before is taken for one of these"
    assert said.index("systemctl stop etcd") < said.index("snapshot restore") < said.index("systemctl start --no-block")


def recipe_of(folder: Path, kind: str) -> Recipe:
    run = prepared_run(folder)
    cluster = replace(run.cluster, datastore=run.cluster.managed.model_copy(update={"kind": kind}))
    return datastore.kind(cluster).dump(cluster, cluster.member("db1"))


@pytest.mark.parametrize(("again", "equal"), [("restored", True), ("restore", False)])
def test_a_postgresql_s_dump_is_verified(tmp_path: Path, again: str, *, equal: bool) -> None:
    (tmp_path / "dump").write_text("restored")
    script = scripts.verify(recipe_of(tmp_path, "postgresql"), str(tmp_path / "dump"), database="k3s")
    psql = "case $* in *pg_database_size*) echo 100 ;; *to_regclass*) echo kine ;; esac"
    runuser = f"""
case "$*" in
  *psql*) shift 4; exec {tmp_path}/psql "$@" ;;
  *pg_dump*) printf '{again}' ;;
  *pg_restore*-d*) cat >/dev/null ;;
  *pg_restore*) printf '%s\\n' "-- of $$" "\\restrict $$"; cat; echo ;;
esac
"""
    done = shell(tmp_path, script, psql=psql, runuser=runuser)
    assert (done.returncode == 0) is equal, done.stderr
    assert ("differs from it" in done.stderr) is not equal
    assert "DROP DATABASE k3s_verify" in (tmp_path / "log").read_text().splitlines()[-1]


@pytest.mark.parametrize(("tool", "revision"), [("etcdutl", 7), ("etcdctl", 7), ("etcdctl", 6)])
def test_an_etcd_s_snapshot_is_verified(tmp_path: Path, tool: str, revision: int) -> None:
    (tmp_path / "dump").write_text("restored")
    (tmp_path / "etcd" / "test" / "member" / "snap").mkdir(parents=True)
    script = scripts.verify(recipe_of(tmp_path, "etcd"), str(tmp_path / "dump"), database="k3s")
    script = script.replace("/var/lib/etcd", str(tmp_path / "etcd"))
    line = f"case $* in *status*/dump*) echo 'aa, 7, 4, 1 MB' ;; *status*) echo 'bb, {revision}, 5, 1 MB' ;; esac"
    done = shell(tmp_path, script, **{"etcdctl": line, tool: line})
    assert (done.returncode == 0) is (revision == 7), done.stderr
    assert ("differs from it" in done.stderr) is (revision != 7)
    assert "--data-dir" in (tmp_path / "log").read_text()


def test_a_copy_needs_room(tmp_path: Path) -> None:
    script = scripts.verify(recipe_of(tmp_path, "mariadb"), str(tmp_path / "dump"), database="k3s")
    done = shell(tmp_path, script, mariadb="echo 99999999999")
    assert done.returncode != 0
    assert "make room" in done.stderr


def test_what_is_known_of_a_restore_is_kept(tmp_path: Path) -> None:
    run = prepared_run(tmp_path)
    assert restoring.load(run.store) is None
    begun = Restoring("abc", anew=("s1",))
    restoring.save(run.store, begun)
    assert restoring.load(run.store) == begun
    restoring.save(run.store, None)
    assert restoring.load(run.store) is None
