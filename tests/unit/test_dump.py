"""Dumps of a managed datastore, in a real shell with clients that only play their part."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.apply import datastore_dump
from nornir_k3s.apply import script as apply
from nornir_k3s.model.host_facts import HostFacts, Ledger
from nornir_k3s.model.paths import STATE
from nornir_k3s.phases import dump
from nornir_k3s.roles.datastore_mysql import MARIADB

SCRIPT = datastore_dump.script(MARIADB.recipe("k3s"), database="k3s", cluster="lab", token_fingerprint="0123456789ab")


def run(
    folder: Path, *, size: str = "2000", dumped: str = "echo DUMP $*", script: str = SCRIPT
) -> tuple[int, str, str]:
    for name, line in (("mariadb", f"echo {size}"), ("mariadb-dump", dumped)):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    text = apply.wrapped("the dump", script).replace(STATE, str(folder / "state"))
    done = subprocess.run(["sh"], input=text, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def dumps(folder: Path) -> list[Path]:
    return sorted((folder / "state" / "dumps").iterdir())


def test_a_dump_is_whole_and_the_owner_s_only(tmp_path: Path) -> None:
    status, said, _ = run(tmp_path)
    path, size = datastore_dump.parse(said)
    assert status == 0
    assert [str(found) for found in dumps(tmp_path)] == [path]
    assert path.endswith("Z-0123456789ab.sql.gz")
    assert Path(path).name.startswith("lab-2")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert Path(path).stat().st_size == size
    text = gzip.decompress(Path(path).read_bytes()).decode()
    assert text == "DUMP --single-transaction --routines=false --hex-blob k3s\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dumped": "echo HALF; echo gone away >&2; exit 2"}, "gone away"),
        ({"size": "999999999999"}, "make room"),
        ({"size": "; exit 1"}, ""),
    ],
)
def test_one_that_fails_leaves_no_file_that_looks_whole(tmp_path: Path, given: dict[str, str], words: str) -> None:
    run(tmp_path)
    (old,) = dumps(tmp_path)
    status, said, errors = run(tmp_path, **given)
    assert status != 0
    assert words in errors
    assert "@fail\tthe dump" in said
    assert [path for path in dumps(tmp_path) if not path.name.startswith(".")] == [old]
    run(tmp_path)
    assert not [path for path in dumps(tmp_path) if path.name.startswith(".")], "the draft is cleared up by the next"


def test_the_newest_five_of_this_cluster_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "dumps"
    folder.mkdir(parents=True)
    names = [f"lab-2020010{day}T000000Z-0123456789ab.sql.gz" for day in range(1, 8)]
    others = ["lab-2-20200101T000000Z-0123456789ab.sql.gz", "mine.sql.gz"]
    for name in names + others:
        (folder / name).touch()
    run(tmp_path)
    left = [path.name for path in dumps(tmp_path)]
    assert set(others) <= set(left)
    assert [name for name in left if name in names] == names[-4:]
    assert len(left) == len(others) + datastore_dump.KEPT


@pytest.mark.parametrize(
    ("ready", "installed", "server", "datastore", "expected"),
    [
        (True, "v1.33.1+k3s1", [k3s.BINARY], [], True),  # another K3s on a living cluster
        (False, "v1.33.1+k3s1", [k3s.BINARY], [], False),
        (True, "", [k3s.BINARY], [], False),  # a server that joins
        (True, "v1.33.1+k3s1", ["/etc/rancher/k3s/config.yaml"], [], False),
        (True, "", [], ["file"], True),
        (True, "", [], ["database"], False),  # users and rights
        (True, "", [], [], False),
    ],
)
def test_it_is_made_before_what_could_hurt(
    ready: bool, installed: str, server: list[str], datastore: list[str], expected: bool
) -> None:
    groups = {"servers": [SimpleNamespace(name="s1")], "datastore": [SimpleNamespace(name="db1")]}
    run: Any = SimpleNamespace(
        cluster=SimpleNamespace(is_managed=True),
        ready_servers=["s1"] if ready else [],
        facts={"s1": HostFacts("s1", ledger=Ledger(installed=installed))},
        of=groups.get,
        chosen=list,
        planned=lambda _: SimpleNamespace(
            by_role={"datastore": [SimpleNamespace(kind=kind) for kind in datastore]},
            tidy=[],
            stage=[SimpleNamespace(kind="artifact", target=path) for path in server],
        ),
    )
    assert dump.needed(run) is expected
    groups["datastore"] = []
    run.cluster = SimpleNamespace(is_managed=False, datastore=SimpleNamespace(dump_command=["x"]))
    assert dump.needed(run) is False
    run.cluster.datastore.dump_command = None
    assert dump.needed(run) is (ready and bool(installed) and k3s.BINARY in server)
