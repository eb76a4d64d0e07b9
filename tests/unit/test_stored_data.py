"""Data of databases on a datastore's host: no package begins with an empty database beside them without a word."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nornir_k3s import records, shell
from nornir_k3s.checks import preflight
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Stored
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HEADER
from nornir_k3s.model.machine_facts import Repositories
from nornir_k3s.planner import plan_host
from nornir_k3s.roles.desired import Known

Load = Callable[..., Cluster]
MYSQL = {"file_format": "1", "upgrade_history": [{"date": "2025-01-02", "version": "8.4.5"}, {"version": "9.7.4"}]}


def stored(function: str, *arguments: object) -> list[list[str]]:
    """Return what a function of the script finds, words of records."""
    script = f"{records.SAY}{shell.source('facts/stored.sh')}{shell.call(function, *arguments)}\n"
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.split("\t")[1:] for line in done.stdout.splitlines()]


def test_data_of_mariadb_and_mysql_are_told_apart_with_their_versions(tmp_path: Path) -> None:
    used, newer, other = tmp_path / "mysql", tmp_path / "mysql-11.8", tmp_path / "mysql-9.7"
    for folder in (used, newer, other, newer / "k3s", tmp_path / "mysql-files"):
        folder.mkdir()
    for folder in (used, newer):
        (folder / "aria_log_control").write_bytes(b"\0")
        (folder / "mysql_upgrade_info").write_text("10.11.19-MariaDB")
    (newer / "mariadb_upgrade_info").write_text("11.8.9-MariaDB")
    (newer / "k3s/kine.ibd").write_bytes(b"")
    (other / "mysql.ibd").write_bytes(b"")
    (other / "mysql_upgrade_history").write_text(str(MYSQL).replace("'", '"'))
    assert stored("stored_mysql", "k3s", used, newer, other, tmp_path / "mysql-files", tmp_path / "mysql-*") == [
        ["mariadb", "10.11.19", str(used), "no", "yes"],
        ["mariadb", "11.8.9", str(newer), "yes", "no"],
        ["mysql", "9.7.4", str(other), "no", "no"],
    ]
    (newer / "mysql_upgrade_info").unlink()
    assert stored("stored_mysql", "k3s", tmp_path / "no", newer) == [["mariadb", "11.8.9", str(newer), "yes", "no"]]


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"mysql.ibd": bytes((9, 9, 9, 9, 0, 0, 0, 0, 0, 1, 56, 174, 0, 0, 0, 1))}, "8.0.46"),
        ({"mysql.ibd": bytes((9, 9, 9, 9, 0, 0, 0, 0, 0, 1, 98, 80)), "mysql_upgrade_info": b"8.0.46"}, "9.7.4"),
        ({"mysql/user.frm": b""}, "5.7"),
        ({"mysql/user.frm": b"", "mysql_upgrade_info": b"5.7.44"}, "5.7.44"),
    ],
)
def test_the_version_of_mysql_s_data_is_known_before_it_has_a_history_of_them(
    tmp_path: Path, files: dict[str, bytes], version: str
) -> None:
    (tmp_path / "mysql").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert stored("stored_mysql", "k3s", tmp_path) == [["mysql", version, str(tmp_path), "no", "yes"]]


def test_clusters_of_postgresql_are_told_apart(tmp_path: Path) -> None:
    for version in ("15", "17"):
        (tmp_path / "etc" / version / "main/conf.d").mkdir(parents=True)
        (tmp_path / "etc" / version / "main/postgresql.conf").write_text("")
    (tmp_path / "etc/15/main/conf.d/90-nornir-k3s.conf").write_text("")
    (tmp_path / "lib/17/bin").mkdir(parents=True)
    (tmp_path / "lib/17/bin/postgres").touch(0o755)
    assert stored("stored_postgresql", tmp_path / "etc", tmp_path / "lib", tmp_path / "data") == [
        ["postgresql", "15", f"{tmp_path}/etc/15/main", "yes", "no"],
        ["postgresql", "17", f"{tmp_path}/etc/17/main", "no", "yes"],
    ]
    (tmp_path / "etc/15/main/start.conf").write_text("# This cluster was upgraded\n\nmanual\n")
    moved, _ = stored("stored_postgresql", tmp_path / "etc", tmp_path / "lib", tmp_path / "data")
    assert moved == ["postgresql", "15", f"{tmp_path}/etc/15/main", "no", "no"], "its data are in the new one"


def test_data_of_postgresql_in_the_one_folder_of_rhel(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("13\n")
    nowhere = tmp_path / "no"
    assert stored("stored_postgresql", nowhere, nowhere, tmp_path) == [["postgresql", "13", str(tmp_path), "no", "yes"]]
    (tmp_path / "postgresql.conf").write_text(HEADER)
    assert stored("stored_postgresql", nowhere, nowhere, tmp_path)[0][3] == "yes"


def found(cluster: Cluster, facts: HostFacts) -> list[Finding]:
    """Return what the preflight says of these data."""
    ids = ("datastore-moved", "datastore-version")
    return [one for one in preflight.check(cluster, {"db1": facts}) if one.subject in ids]


def of(product: str, version: str, folder: str = "/var/lib/mysql", ours: str = "yes", served: str = "yes") -> Stored:
    return Stored(product, version, folder, ours, served)


ASIDE = of("mariadb", "11.8.9", "/var/lib/mysql-11.8", served="no")


@pytest.mark.parametrize(
    ("kind", "packages", "data", "words"),
    [
        ("mariadb", {"mariadb-server": "1:10.11.19-0+deb12u1"}, [of("mariadb", "10.11.18")], ""),
        ("mariadb", {"mariadb-server": "1:11.8.9+ds-0+deb13u1"}, [of("mariadb", "10.11.18")], ""),
        ("mariadb", {"mariadb-server": "1:10.11.19-0"}, [of("mariadb", "")], ""),
        ("mariadb", {"mariadb-server": "1:10.11.19-0"}, [of("mariadb", "11.8.9")], "no older one reads them"),
        ("mariadb", {"mariadb-server": "1:10.11.19-0"}, [of("mariadb", "10.11.19", ours="no"), ASIDE], "has put them"),
        ("mariadb", {"mariadb-server": "1:11.8.9-1"}, [of("mariadb", "11.8.9"), ASIDE], ""),
        ("mariadb", {}, [ASIDE], "/var/lib/mysql-11.8 has the data of MariaDB 11.8"),
        (
            "mysql",
            {"mysql-server": "9.7.4-2"},
            [of("mariadb", "10.11.19", ours="no")],
            "the package mysql-server would",
        ),
        ("mariadb", {"mariadb-server": "1:11.8.9-1"}, [of("mysql", "9.7.4", ours="no")], "`kind: mysql`"),
        ("mysql", {"mysql-server": "8.4.5-1"}, [of("mysql", "9.7.4")], "install mysql-server 9.7 or newer"),
        ("mysql", {"mysql-server": "9.7.4-2"}, [of("mysql", "8.4.5")], ""),
        ("mysql", {"mysql-server": "9.7.4-2"}, [of("mysql", "9.1.0")], ""),
        ("mysql", {"mysql-server": "9.7.4-2"}, [of("mysql", "8.0.46")], "install mysql-server 8.4 first"),
        ("mysql", {"mysql-server": "9.7.4-2"}, [of("mysql", "8.3.0", ours="no")], "reads none before 8.4"),
        ("mysql", {"mysql-server": "8.4.5-0ubuntu0.2"}, [of("mysql", "8.0.46")], ""),
        ("mysql", {"mysql-server": "8.4.5-1"}, [of("mysql", "5.7")], "has the data of MySQL 5.7"),
        ("mysql", {"mysql-server": "10.0.1-1"}, [of("mysql", "9.5.0")], "install mysql-server 9.7 first"),
        ("mysql", {"mysql-server": "9.7.4-2"}, [of("mysql", "")], ""),
        ("mariadb", {"mariadb-server": "1:11.8.9-1"}, [of("mariadb", "5.5.68")], ""),
        ("mysql", {"mysql-server": "9.7.4-2"}, [], ""),
    ],
)
def test_data_that_a_package_would_put_aside_stop_a_deploy(
    load: Load, kind: str, packages: dict[str, str], data: list[Stored], words: str
) -> None:
    cluster = load({"datastore": {"kind": kind}})
    for facts in (
        HostFacts("db1", packages=packages),
        HostFacts("db1", repositories=Repositories(candidates=packages)),
    ):
        problems = found(cluster, replace(facts, stored=tuple(data)))
        assert [one.severity for one in problems] == (["error"] if words else [])
        assert all(words in str(one) for one in problems), problems


def test_what_a_package_does_with_data_of_the_other_product_depends_on_the_family(load: Load) -> None:
    cluster = load({"datastore": {"kind": "mysql"}})
    seen = HostFacts("db1", packages={"mysql-server": "8.0.41-2.el9"}, stored=(of("mariadb", "10.5.27"),))
    for family, words in (
        ("debian", "would move them aside and start with an empty database"),
        ("rocky", "does not read them"),
    ):
        (problem,) = found(cluster, replace(seen, distribution=(family,)))
        assert f"the package mysql-server {words}" in str(problem)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("13.20-1.el9_5", ""),
        ("15.12-1.module+el9.5.0", "install postgresql-server 13; or move them: postgresql-setup --upgrade"),
    ],
)
def test_postgresql_of_the_rhel_family_reads_only_data_of_its_own_version(load: Load, version: str, words: str) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    for packages in ({"postgresql-server": version, "postgresql": version}, {}):
        facts = HostFacts(
            "db1",
            distribution=("rhel",),
            stored=(of("postgresql", "13", "/var/lib/pgsql/data"),),
            packages=packages,
            repositories=Repositories(candidates={"postgresql-server": version}),
        )
        problems = found(cluster, facts)
        assert [one.severity for one in problems] == (["error"] if words else [])
        assert all(words in str(one) for one in problems), problems


PG15, PG17 = (of("postgresql", version, f"/etc/postgresql/{version}/main") for version in ("15", "17"))


@pytest.mark.parametrize(
    ("data", "kept", "level", "words"),
    [
        ([], "17", "", ""),
        ([PG17], "17", "", ""),
        ([PG15._replace(ours="no")], "17", "", ""),
        ([PG15, PG17._replace(ours="no")], "15", "note", "and the packages are of 17; expected: PostgreSQL 15"),
        ([PG15, PG17], "17", "", ""),
        ([PG15._replace(served="no"), PG17._replace(ours="no")], "15", "error", "whose server is not installed"),
    ],
)
def test_postgresql_stays_in_the_cluster_that_has_the_data(
    load: Load, data: list[Stored], kept: str, level: str, words: str
) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    facts = HostFacts("db1", stored=tuple(data), packages={"postgresql": "17+278"})
    problems = found(cluster, facts)
    assert [one.level for one in problems] == ([level] if level else [])
    assert all(words in str(one) for one in problems), problems
    planned = plan_host(cluster, cluster.member("db1"), facts, Known())
    paths = [file.path for file in planned.desired.files if file.path.startswith("/etc/")]
    assert {path.split("/")[3] for path in paths} == {kept}
    assert planned.desired.units[0].name == f"postgresql@{kept}-main.service"
