"""Each setting that is written for a managed datastore is one of every version that this tool may meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.family import DEBIAN, FAMILIES
from nornir_k3s.roles import datastore
from nornir_k3s.roles.datastore_mysql import MARIADB, MYSQL

Load = Callable[..., Cluster]
TABLE: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "database_settings.yaml").read_text())
ALL = [(kind, version) for kind, about in TABLE.items() for version in about["versions"]]


def written(load: Load, kind: str, version: str, *, tls: bool = True) -> Iterator[str]:
    """Yield the names of the settings in the files of this kind."""
    cluster = load({"datastore": {"kind": kind} | ({} if tls else {"tls": False})})
    packages = {"postgresql": f"{version}+278"}
    specs = [datastore.spec(cluster, cluster.member("db1"), family, packages) for family in FAMILIES]
    for file in (file for spec in specs for file in spec.files):
        if file.path.endswith((".cnf", "90-nornir-k3s.conf", "/postgresql.conf", "/etc/default/etcd")):
            yield from re.findall(r"^([A-Za-z_][\w-]*)\s*(?:=|$)", file.text.reveal(), re.MULTILINE)


def number(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in version.split("."))


def problem(kind: str, version: str, name: str) -> str:
    """Return why a server of this version would not start on this setting, or nothing."""
    if kind in ("mariadb", "mysql"):
        name = name.replace("-", "_")
        if name.startswith("loose_"):
            return "" if name.removeprefix("loose_") in TABLE[kind]["settings"] else f"{name}: there is none"
    about = TABLE[kind]["settings"].get(name)
    if about is None:
        return f"{name}: it is not in the table"
    if about.get("gone") and number(version) >= number(about["gone"]):
        return f"{name}: gone in {about['gone']}"
    return f"{name}: not before {about['since']}" if "since" in about else ""


@pytest.mark.parametrize(("kind", "version"), ALL)
def test_every_version_has_each_setting(load: Load, kind: str, version: str) -> None:
    for tls in (True, False) if kind != "etcd" else (True,):
        names = list(written(load, kind, version, tls=tls))
        assert len(names) >= 5, names
        assert [one for name in names if (one := problem(kind, version, name))] == []


@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [
        ("mysql", "8.4", "expire-logs-days"),
        ("mysql", "9.7", "mysql_native_password"),
        ("mysql", "8.0", "innodb_snapshot_isolation"),
        ("mariadb", "10.6", "innodb_snapshot_isolation"),
        ("mariadb", "11.4", "innodb_defragment"),
        ("postgresql", "17", "db_user_namespace"),
        ("etcd", "3.6", "ETCD_ENABLE_V2"),
    ],
)
def test_the_table_refuses_what_a_version_has_not(kind: str, version: str, name: str) -> None:
    assert problem(kind, version, name)


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind != "etcd"])
def test_sql_says_nothing_that_some_version_lacks(load: Load, kind: str) -> None:
    cluster = load({"datastore": {"kind": kind}})
    made = datastore.kind(cluster)
    text = made.prepare(cluster).reveal() + made.tidy(["k3s_00000000@10.0.0.9"]).reveal()
    text += {"mariadb": MARIADB.flush, "mysql": MYSQL.flush}.get(kind, "")
    assert [words for words in TABLE[kind]["sql_without"] if words in text] == []


def test_mariadb_has_its_isolation_off_before_a_version_that_turns_it_on_starts(load: Load) -> None:
    cluster = load({"datastore": {"kind": "mariadb"}})
    texts = [file.text.reveal() for file in datastore.spec(cluster, cluster.member("db1"), DEBIAN, {}).files]
    assert any("\nloose_innodb_snapshot_isolation = OFF\n" in text for text in texts), "10.6.17 starts with it, too"
