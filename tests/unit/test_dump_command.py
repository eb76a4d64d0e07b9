"""The user's own command dumps an external datastore before K3s is replaced: what it gets, and what a failure does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import InventoryError, K3sError
from nornir_k3s.checks import before_upgrade
from nornir_k3s.errors import Interrupted
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts, Ledger
from nornir_k3s.model.k3s_facts import BeforeUpgrade
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import dump
from nornir_k3s.run import dump_command

from .conftest import HOSTS
from .test_upgrade_checks import facts

Load = Callable[..., Cluster]
FIELDS = {"kind": "postgresql", "hosts": ["db.example.org"], "password": {"env": "DB_PASSWORD"}, "cafile": "ca.pem"}


@pytest.fixture
def external(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Cluster]:
    monkeypatch.setenv("DB_PASSWORD", "hu sh'")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n")
        (tmp_path / name).chmod(0o600)

    def external_(version: str = "v1.34.9+k3s1", **datastore: Any) -> Cluster:
        found = {**FIELDS, **datastore}
        found |= {key: str(tmp_path / found[key]) for key in ("cafile", "certfile", "keyfile") if found.get(key)}
        found = {key: value for key, value in found.items() if value is not None}
        hosts = {name: host for name, host in HOSTS.items() if name != "db1"}
        return load({"version": version, "datastore": found}, hosts=hosts)

    return external_


def test_pg_dump_needs_no_arguments(external: Callable[..., Cluster], tmp_path: Path) -> None:
    found = dump_command.environment(external(user="me", database="kine", parameters={"sslmode": "verify-ca"}))
    expected = {"PGHOST": "db.example.org", "PGPORT": "5432", "PGUSER": "me", "PGDATABASE": "kine"}
    expected |= {"PGPASSWORD": "hu sh'", "PGSSLROOTCERT": str(tmp_path / "ca.pem"), "PGSSLMODE": "verify-ca"}
    assert expected.items() <= found.items()
    assert found["DATASTORE_PASSWORD"] == "hu sh'"
    assert dump_command.environment(external())["PGSSLMODE"] == "verify-full"
    several = dump_command.environment(external(hosts=["10.0.0.8", "10.0.0.9:5433"]))
    assert (several["PGHOST"], several["PGPORT"]) == ("10.0.0.8,10.0.0.9", "5432,5433")
    assert several["DATASTORE_HOST"] == "10.0.0.8"


def test_mysqldump_gets_its_password_by_the_environment(external: Callable[..., Cluster]) -> None:
    found = dump_command.environment(external(kind="mariadb", hosts=["10.0.0.9:3307"]))
    expected = {"MYSQL_PWD": "hu sh'", "MYSQL_HOST": "10.0.0.9", "MYSQL_TCP_PORT": "3307", "DATASTORE_USER": "k3s"}
    assert expected.items() <= found.items()
    assert not [name for name in found if name.startswith("PG")]


def test_etcdctl_gets_its_files(external: Callable[..., Cluster], tmp_path: Path) -> None:
    found = dump_command.environment(external(kind="etcd", password=None, certfile="cert.pem", keyfile="key.pem"))
    assert found["ETCDCTL_ENDPOINTS"] == "https://db.example.org:2379"
    assert found["ETCDCTL_KEY"] == str(tmp_path / "key.pem")
    assert "DATASTORE_PASSWORD" not in found


def run(folder: Path, *words: str, deadline: float = 60, stop: threading.Event | None = None) -> str:
    return dump_command.carry_out(
        words,
        {"PGPASSWORD": "hush"},
        folder=folder,
        secrets=[Secret("hush")],
        deadline=deadline,
        stop=stop or threading.Event(),
    )


def test_its_last_line_is_the_place_of_the_dump(tmp_path: Path) -> None:
    assert run(tmp_path, "sh", "-c", "echo dumping; pwd; cat; echo") == str(tmp_path)
    assert run(tmp_path, "true") == ""
    assert run(tmp_path, "sh", "-c", 'echo "s3://$PGPASSWORD/x"') == "s3://********/x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sh", "-c", "echo no room with $PGPASSWORD >&2; exit 3"], "ended with status 3\n    no room with ********"),
        (["sh", "-c", "echo half; exit 1"], "ended with status 1\n    half"),
        (["/no/such/program", "-x"], "cannot be started: No such file or directory"),
    ],
)
def test_its_failure_is_told_without_secrets(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(K3sError) as caught:
        run(tmp_path, *words)
    assert said in caught.value.message
    assert "hush" not in str(caught.value)
    assert "nothing was changed" in caught.value.hint


def test_it_ends_at_its_deadline_with_what_it_has_started(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(K3sError, match="took longer than 1 s"):
        run(tmp_path, "sh", "-c", "sleep 300 & sleep 300", deadline=1)
    assert time.monotonic() - begin < 60


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        run(tmp_path, "sleep", "300", stop=stop)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("pg_dump -Fc 'x y'", ["pg_dump", "-Fc", "x y"]),
        (["pg_dump", "x y"], ["pg_dump", "x y"]),
        ("", None),
        ([], None),
        ("'", None),
        (["x", 1], None),
        ("pg_dump postgres://k3s:hush@db/k3s", None),
    ],
)
def test_the_setting(external: Callable[..., Cluster], given: Any, words: list[str] | None) -> None:
    if words is None:
        with pytest.raises(InventoryError, match="dump_command") as caught:
            external(dump_command=given)
        assert "hush" not in str(caught.value)
        return
    assert external(dump_command=given).datastore.dump_command == words  # type: ignore[union-attr]  # it is external


def test_it_is_only_of_external_datastores(load: Load) -> None:
    with pytest.raises(InventoryError, match="dump_command"):
        load({"datastore": {"kind": "mariadb", "dump_command": "true"}})


class Deployed:
    """A run before its phase dump, over a cluster whose K3s would be replaced or not."""

    def __init__(self, cluster: Cluster, *, replaced: bool = True, ready: bool = True) -> None:
        report = Report(cluster="c", phases=[PhaseReport(name="dump")])
        seen = facts("v1.34.3+k3s1")
        self.run: Any = SimpleNamespace(
            cluster=cluster,
            ready_servers=["s1"] if ready else [],
            facts={"s1": HostFacts("s1", api=seen["s1"].api, ledger=Ledger(installed="x"))},
            of=lambda role: [SimpleNamespace(name="s1")] if role == "servers" else [],
            chosen=list,
            planned=lambda _: SimpleNamespace(
                stage=[SimpleNamespace(kind="artifact", target="/usr/local/bin/k3s")] * replaced
            ),
            store=SimpleNamespace(base=Path("/")),
            stop=None,
            deadlines={"dump": 60},
            report=report,
            before_upgrade=BeforeUpgrade(None, frozenset()) if replaced else None,
        )


def test_the_report_says_what_leads_back(external: Callable[..., Cluster]) -> None:
    run = Deployed(external(dump_command=["sh", "-c", "echo /backup/$PGDATABASE"])).run
    dump.dump(run)
    assert run.report.way_back.model_dump() == {"version": "v1.34.3+k3s1", "dump": "/backup/k3s", "restore": ""}
    assert run.report.notes[0] == "dump of the datastore, by datastore.dump_command: /backup/k3s"
    assert "the way back to v1.34.3+k3s1: stop K3s on all servers, restore /backup/k3s, write" in run.report.notes[1]
    assert run.report.phase("dump").hosts == ["controller"]


def test_a_failure_ends_the_run_before_the_first_change(external: Callable[..., Cluster]) -> None:
    run = Deployed(external(dump_command="false")).run
    with pytest.raises(K3sError, match="the dump command false ended with status 1"):
        dump.dump(run)
    assert run.report.way_back is None


@pytest.mark.parametrize("state", [{"replaced": False}, {"ready": False}])
def test_it_runs_only_before_k3s_is_replaced_in_a_running_cluster(
    external: Callable[..., Cluster], state: dict[str, bool]
) -> None:
    run = Deployed(external(dump_command="false"), **state).run
    assert dump.command(run) == []
    dump.dump(run)


def test_a_dump_of_rows_leads_back_by_one_command(
    external: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Deployed(external()).run
    monkeypatch.setattr(dump, "_by_rows", lambda _: ("/state/x.backup.tar", "nornir-k3s restore /state/x.backup.tar"))
    dump.dump(run)
    assert run.report.way_back.dump == "/state/x.backup.tar"
    how = "write `version: v1.34.3+k3s1`, then `nornir-k3s restore /state/x.backup.tar`"
    assert run.report.notes == [f"the way back to v1.34.3+k3s1: {how}"]


def test_without_a_command_a_minor_version_comes_with_a_warning(external: Callable[..., Cluster]) -> None:
    def ids(cluster: Cluster) -> list[str]:
        return [one.subject for one in before_upgrade.check(cluster, facts("v1.34.3+k3s1"))]

    assert "datastore-dump" in ids(external("v1.35.1+k3s1"))
    assert "datastore-dump" not in ids(external("v1.35.1+k3s1", dump_command="true"))
    assert "datastore-dump" not in ids(external("v1.34.9+k3s1"))
    reached = facts("v1.34.3+k3s1")
    reached["s1"] = replace(reached["s1"], database=Database(alive=True, bootstrap={"/bootstrap/x": 9}))
    assert "datastore-dump" not in [one.subject for one in before_upgrade.check(external("v1.35.1+k3s1"), reached)]
    run = Deployed(external()).run
    dump.dump(run)
    assert run.report.notes == [
        "the datastore was not dumped: by way of no server can K3s' data be read",
        "the way back to v1.34.3+k3s1: within the minor version only, because there is no dump",
    ]
