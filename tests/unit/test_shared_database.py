"""A database server that others use, too: what is added beside them, and what is never changed."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState
from nornir.core.task import Task

from nornir_k3s import facts, k3s, shell
from nornir_k3s.apply import reset
from nornir_k3s.checks import preflight
from nornir_k3s.checks import reset as reset_checks
from nornir_k3s.errors import InventoryError
from nornir_k3s.facts.fact import Query
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts, Served, UnitState
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.machine_facts import Socket
from nornir_k3s.model.secret import Secret
from nornir_k3s.planner import plan_host
from nornir_k3s.roles import datastore
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.roles.datastore_postgresql import POSTGRESQL, marks
from nornir_k3s.roles.desired import Known
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

from .conftest import HOSTS, SETTINGS, inventory
from .hosts import changed
from .test_preflight import healthy

Load = Callable[..., Cluster]
PORTS = {"mariadb": 3306, "mysql": 3306, "postgresql": 5432}
KINDS = list(PORTS)


def shared(load: Load, kind: str = "mariadb", **more: Any) -> Cluster:
    return load({"datastore": {"kind": kind, "shared": True, **more}})


def host(cluster: Cluster, **values: Any) -> HostFacts:
    kind = cluster.managed.kind
    base: dict[str, Any] = {
        "packages": {f"{kind}-server": "10", "postgresql": "15+248"},
        "sockets": (Socket(f"0.0.0.0:{PORTS[kind]}", ""),),
        "units": {unit: UnitState("loaded", "active", enabled="enabled") for unit in UNITS},
        "database": {"alive": True},
    }
    return changed(healthy(cluster)["db1"], **{**base, **values})


UNITS = ("mariadb.service", "mysql.service", "postgresql@15-main.service")


def found(cluster: Cluster, **values: Any) -> list[Finding]:
    seen = healthy(cluster)
    seen["db1"] = host(cluster, **values)
    return [one for one in preflight.check(cluster, seen) if one.subject != "datastore-single"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_server_is_set_and_only_database_and_users_are_added(load: Load, kind: str) -> None:
    cluster = shared(load, kind)
    plan = plan_host(cluster, cluster.member("db1"), host(cluster), Known())
    assert [step.id for step in plan.steps] == ["database:inside"]
    assert "restart" not in str([step.action for step in plan.steps])
    script = datastore.kind(cluster).prepare(cluster).reveal()
    assert login(cluster) in script
    assert not cluster.keys, "its certificate is that of others"


@pytest.mark.parametrize(
    ("datastore_", "why"),
    [
        ({"kind": "etcd", "shared": True}, "K3s needs an etcd of its own"),
        ({"kind": "mariadb", "shared": True, "tls": True}, "the certificate of a shared server"),
    ],
)
def test_what_cannot_be_shared(load: Load, datastore_: dict[str, Any], why: str) -> None:
    with pytest.raises(InventoryError, match=why):
        load({"datastore": datastore_})


def test_k3s_uses_the_tls_that_a_shared_postgresql_has(load: Load) -> None:
    assert parse(datastore.endpoint(shared(load, "postgresql"))).parameters["sslmode"] == "prefer"


def test_what_others_have_is_a_note_and_not_taken_over(load: Load) -> None:
    others = (Served("mariadb", "database shop"), Served("mariadb", "user shop@%"))
    (one,) = found(shared(load), others=others)
    assert (one.subject, one.severity) == ("in-use", "note")
    assert one.found.endswith("database shop, user shop@%")
    (one,) = found(load(), others=others)
    assert one.severity == "error"
    assert "datastore: {shared: true}" in one.remedy


CASES: list[tuple[dict[str, Any], str]] = [
    ({"packages": {}}, "there is no mariadb on this host"),
    ({"database": {"alive": False}}, "mariadb refuses this tool's login, or does not run"),
    ({"sockets": (Socket("127.0.0.1:3306", ""), Socket("[::1]:3306", ""))}, "it listens on 127.0.0.1, ::1 only"),
    ({"sockets": ()}, "nothing listens on port 3306"),
    ({"database": {"settings": {"auto_increment_increment": "2"}}}, "auto_increment_increment is 2"),
    ({"database": {"settings": {"innodb_snapshot_isolation": "ON"}}}, "innodb_snapshot_isolation is ON"),
    ({"database": {"settings": {"wsrep_on": "ON"}}}, "wsrep_on is ON"),
    ({"database": {"databases": frozenset(["k3s"])}}, "database k3s is there already"),
]


@pytest.mark.parametrize(("values", "what"), CASES)
def test_a_server_that_does_not_suit_k3s_as_it_is_is_refused(load: Load, values: dict[str, Any], what: str) -> None:
    if "database" in values:
        values = {**values, "database": {"alive": True, **values["database"]}}
    (one,) = found(shared(load), **values)
    assert (one.subject, one.severity) == ("datastore-shared", "error")
    assert what in one.found
    assert one.remedy


def test_few_connections_are_a_warning(load: Load) -> None:
    settings = {"alive": True, "settings": {"max_connections": "151"}}
    (one,) = found(shared(load), database=settings)
    assert (one.subject, one.severity) == ("datastore-shared", "warning")
    assert "K3s' servers open up to 200" in one.found
    cluster = load({"datastore": {"kind": "mariadb", "shared": True}, "datastore_pool": {"max_open": 50}})
    assert found(cluster, database=settings) == []


def test_the_cluster_s_own_database_is_no_problem(load: Load) -> None:
    cluster = shared(load)
    account = f"{login(cluster)}@10.0.0.12"
    content = {"databases": frozenset(["k3s"]), "users": {account: True}, "grants": frozenset([account])}
    assert found(cluster, database={"alive": True, **content}) == []


def test_users_of_another_cluster_with_such_names_stay(load: Load) -> None:
    cluster = shared(load)
    old, theirs = "k3s_0a1b2c3d@10.0.0.12", "k3s_99999999@10.9.9.9"
    content = Database(alive=True, users={old: True, theirs: True}, grants=frozenset([old]))
    assert datastore.kind(cluster).obsolete_users(cluster, content) == [old]
    cluster = shared(load, "postgresql")
    content = Database(
        alive=True, users={"k3s_0a1b2c3d": True, "k3s_99999999": True}, grants=frozenset(["k3s_0a1b2c3d"])
    )
    assert datastore.kind(cluster).obsolete_users(cluster, content) == ["k3s_0a1b2c3d"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_drops_what_was_added_and_restarts_nothing(load: Load, kind: str) -> None:
    cluster = shared(load, kind)
    content = Database(alive=True, databases=frozenset(["k3s"]))
    seen = HostFacts("db1", distribution=("debian",), database=content)
    (step,) = reset.of_datastore(cluster, seen)
    assert step.kind == "database"
    assert isinstance(step.payload, Secret)
    script = step.payload.reveal()
    assert "leave_unit" not in script
    assert "DROP DATABASE" in script
    noted = changed(seen, made={"state": True, "dumps": ("/var/lib/nornir-k3s/dumps/x",)})
    assert [one.target for one in reset.of_datastore(cluster, noted)][1:] == [
        "/var/lib/nornir-k3s/dumps",
        "/var/lib/nornir-k3s",
    ]
    assert reset.of_datastore(cluster, HostFacts("db1")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_drops_no_database_of_others_that_has_its_name(load: Load, kind: str) -> None:
    cluster = shared(load, kind)
    theirs = HostFacts("db1", distribution=("debian",), database=Database(alive=True, databases=frozenset(["k3s"])))
    (told,) = reset_checks.data(cluster, {"db1": theirs})
    assert told.startswith("db1: database k3s is there already, and no user of this cluster has rights in it")
    user = f"{login(cluster)}@10.0.0.12"
    ours = changed(theirs, database={"users": {user: True}, "grants": frozenset([user])})
    assert list(reset_checks.data(cluster, {"db1": ours})) == []
    holds = changed(theirs, database={"bootstrap": {k3s.bootstrap_key(cluster.token): 9}})
    assert list(reset_checks.data(cluster, {"db1": holds})) == []
    assert list(reset_checks.data(cluster, {"db1": changed(theirs, database={"databases": frozenset()})})) == []


def test_a_user_of_others_is_not_made_the_owner_of_this_cluster_s_database(load: Load) -> None:
    others = (Served("postgresql", "database shop"), Served("postgresql", "user k3s"))
    cluster = shared(load, "postgresql")
    assert [one.subject for one in found(cluster, others=others) if one.severity == "error"] == ["datastore-shared"]
    assert list(reset_checks.data(cluster, {"db1": host(cluster, others=others)}))
    assert all(one.severity != "error" for one in found(shared(load, "postgresql", user="k3s_prod"), others=others))


def test_a_run_that_is_killed_leaves_no_database_that_looks_like_somebody_else_s(load: Load) -> None:
    script = datastore.kind(cluster := shared(load)).prepare(cluster).reveal()
    assert script.rindex("GRANT ") < script.index("CREATE DATABASE")


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], str]:
    """Return what runs lines of shell beside a `psql` that knows its pg_hba.conf, and returns what they print."""
    folder = tmp_path / "bin"
    folder.mkdir()
    text = f"""#!/bin/sh
case "$*" in
  *hba_file*) echo {tmp_path}/pg_hba.conf ;;
  *reload*) echo reload >>{tmp_path}/calls ;;
esac
"""
    for name, program in {"psql": text, "runuser": '#!/bin/sh\nshift 3\nexec "$@"\n'}.items():
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)

    def run(lines: str) -> str:
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        text = f"TAB=$(printf '\\t')\nsay() {{ printf '@%s' \"$1\"; shift; printf '\\t%s' \"$@\"; echo; }}\n{lines}"
        done = subprocess.run(["sh", "-eu", "-c", text], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    return run


def test_the_lines_of_pg_hba_conf_come_first_and_go_again(
    load: Load, tmp_path: Path, fake: Callable[[str], str]
) -> None:
    cluster = shared(load, "postgresql")
    before = "# TYPE  DATABASE\nlocal all all peer\nhost all all 0.0.0.0/0 reject"  # without a line break at its end
    hba = tmp_path / "pg_hba.conf"
    hba.write_text(before)
    hba.chmod(0o640)
    sources = shell.source("apply/steps.sh") + shell.source("apply/shared_database.sh")

    def put(text: str) -> None:
        fake(sources + shell.call("hba_lines", *marks(cluster), text))

    for _ in range(2):
        put(POSTGRESQL.added(cluster))
        assert hba.read_text() == POSTGRESQL.added(cluster) + before + "\n"
    assert hba.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "calls").read_text() == "reload\n", "once"
    assert (tmp_path / "pg_hba.conf.before-nornir-k3s").read_text() == before
    read = fake(shell.source("facts/database.sh") + shell.call("shared_postgresql", "", *marks(cluster)))
    assert facts.parse("db1", read, whole=False).database.hba == POSTGRESQL.added(cluster)
    put("")
    assert hba.read_text() == before + "\n"
    assert not (tmp_path / "pg_hba.conf.before-nornir-k3s").exists()


def test_other_lines_than_these_are_what_a_shared_postgresql_lacks(load: Load) -> None:
    cluster = shared(load, "postgresql")
    user = login(cluster)
    content = {"databases": frozenset(["k3s"]), "users": {user: True}, "grants": frozenset([user])}
    lacks = datastore.kind(cluster).missing(cluster, Database(alive=True, **content, hba="another\n"))  # type: ignore[arg-type]
    assert lacks == ["its lines in pg_hba.conf"]
    assert datastore.kind(cluster).missing(cluster, Database(**content, hba=POSTGRESQL.added(cluster))) == []  # type: ignore[arg-type]
    assert "host k3s +k3s 10.0.0.12/32 scram-sha-256\n" in POSTGRESQL.added(cluster)
    assert "10.0.0.14" not in POSTGRESQL.added(cluster), "an agent needs no datastore"


@pytest.mark.parametrize(("kind", "call"), [("mariadb", "shared_mysql mariadb "), ("postgresql", "shared_postgresql ")])
def test_the_settings_of_a_shared_server_are_read(load: Load, kind: str, call: str) -> None:
    for cluster, read in ((shared(load, kind), True), (load({"datastore": {"kind": kind}}), False)):
        text = facts.script(facts.Query(cluster, cluster.member("db1"), HostSpec()))
        assert (call in text) is read
    printed = "@database\tsetting\tmax_connections\t151\n@database\thba\t" + base64.b64encode(b"a\n").decode() + "\t\n"
    inside = facts.parse("db1", printed, whole=False).database
    assert (inside.settings, inside.hba) == ({"max_connections": "151"}, "a\n")


def test_the_unit_of_a_server_whose_version_was_unknown_is_read_in_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copy.deepcopy(SETTINGS) | {"artifacts": {}, "datastore": {"kind": "postgresql", "shared": True}}
    nr = Nornir(inventory=inventory(settings, HOSTS, {}), config=Config(), data=GlobalState())
    run = gather.prepare(nr, base=tmp_path, state=tmp_path / "state", options={"whole": True})
    asked: list[list[str]] = []

    def gathered(task: Task, run: Run, query: Query) -> HostFacts:
        asked.append([unit.name for unit in query.spec.units])
        units = {name: UnitState("loaded", "active") for name in asked[-1]}
        return host(run.cluster, units=units, files={}, packages={"postgresql": "15+248"})

    monkeypatch.setattr(gather, "_gathered", gathered)
    gather.gather_host(cast(Task, SimpleNamespace(host=SimpleNamespace(name="db1"))), run)
    assert asked == [[], ["postgresql@15-main.service"]]
    assert run.facts["db1"].unit("postgresql@15-main.service").active == "active"
