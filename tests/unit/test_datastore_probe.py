"""What the answers of datastores mean; the asking itself runs against real ones, end to end."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nornir_k3s.datastore_probe import (
    mysql,
    mysql_login,
    mysql_settings,
    parameters,
    postgresql,
    postgresql_refusal,
    probe,
    tls,
)
from nornir_k3s.datastore_probe.answers import Answers, ProbeFailed, table_problems
from nornir_k3s.datastore_probe.probe import findings
from nornir_k3s.datastore_probe.tls import Context
from nornir_k3s.facts import database as sql
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.secret import Secret

Load = Callable[..., Cluster]
ENDPOINT = parse(Secret("mysql://u:hush@tcp(db)/k3s"))


@pytest.mark.parametrize(
    ("grants", "missing"),
    [
        (["GRANT ALL PRIVILEGES ON `k3s`.* TO `u`@`%`"], ""),
        (["GRANT ALL PRIVILEGES ON *.* TO 'u'@'%' WITH GRANT OPTION"], ""),
        (["GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `k3s`.* TO `u`@`%`"], ""),
        (["GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX ON `k3s`.* TO `u`@`%`"], "ALTER"),
        (["GRANT ALL PRIVILEGES ON `other`.* TO `u`@`%`"], "SELECT"),
    ],
)
def test_rights_are_read_from_grants(grants: list[str], missing: str) -> None:
    found = mysql._missing_rights(mysql._rights(grants, ENDPOINT), ENDPOINT, exists=True)
    assert bool(found) is bool(missing)
    if found:
        assert missing in found[0].found


@pytest.mark.parametrize(
    ("code", "id_"),
    [
        *((code, "datastore-login") for code in (1045, 1130, 1524, 1862, 3118)),
        (2026, "datastore-tls"),
        (1040, "datastore"),
    ],
)
def test_what_mysql_refuses_with(code: int, id_: str) -> None:
    problem: Any = mysql_login.meaning(pymysql.err.OperationalError(code, "hush"), ENDPOINT)
    assert problem.subject == id_
    assert "hush" not in problem.found + problem.remedy
    assert "{}" not in problem.found


@pytest.mark.parametrize("name", ["dialog", "mysql_clear_password", "mysql_old_password"])
def test_no_password_goes_where_k3s_sends_none(name: str) -> None:
    with pytest.raises(pymysql.err.OperationalError) as caught:
        mysql_login._plugins(ENDPOINT)[name](None).authenticate(None)
    assert f"user u logs in by {name}, which K3s' driver" in mysql_login.meaning(caught.value, ENDPOINT).found
    allowed = parse(Secret("mysql://u:p@tcp(db)/k3s?allowCleartextPasswords=true"))
    assert ("mysql_clear_password" in mysql_login._plugins(allowed)) is False


@pytest.mark.parametrize(
    "said", ["Authentication plugin 'b'parsec'' not configured", "Authentication plugin 'parsec' x"]
)
def test_a_plugin_that_k3s_does_not_know_is_named(said: str) -> None:
    assert "logs in by parsec" in mysql_login.meaning(pymysql.err.OperationalError(2059, said), ENDPOINT).found


def shown(folder: Path, *alternatives: x509.GeneralName) -> Context:
    """Write a certificate with these names, which is its own CA; return the context of a client that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if alternatives:
        made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(pem + text)
    return tls.context(folder / "ca.pem", None, None)


def handshake(folder: Path, context: Context, name: str) -> ssl.SSLError:
    """Return how a handshake with the server fails."""
    client, server = socket.socketpair()
    shows = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shows.load_cert_chain(str(folder / "both.pem"))

    def serve() -> None:
        with contextlib.suppress(OSError):
            shows.wrap_socket(server, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(ssl.SSLError) as caught:
            context.wrap_socket(client, server_hostname=name)
    finally:
        client.close()
        thread.join()
        server.close()
    return caught.value


@pytest.mark.parametrize(
    ("alternatives", "name", "found", "remedy"),
    [
        ([], "10.0.0.5", "no subjectAltName", "-addext subjectAltName=IP:10.0.0.5 "),
        ([], "fd00::5", "no subjectAltName", "-addext subjectAltName=IP:fd00::5 "),
        ([], "db.example", "no subjectAltName", "-addext subjectAltName=DNS:db.example "),
        ([x509.DNSName("a.example"), x509.DNSName("b.example")], "db.example", "is for a.example, b.example", "add"),
    ],
)
def test_a_certificate_without_the_right_name_is_told_with_how_to_make_one(
    tmp_path: Path, alternatives: list[x509.GeneralName], name: str, found: str, remedy: str
) -> None:
    error = handshake(tmp_path, shown(tmp_path, *alternatives), name)
    assert tls.is_other_name(error)
    context = tls.inspecting(tls.context(tmp_path / "ca.pem", None, None))
    assert not tls.is_other_name(handshake(tmp_path, context, name))
    assert context.names is not None
    problem: Any = tls.handshake_failed(f"[{name}]:3306" if ":" in name else f"{name}:3306", error, context.names)
    assert found in problem.found
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("details", "id_"),
    [
        ({"C": "28P01", "M": "password authentication failed"}, "datastore-login"),
        ({"C": "28000", "M": "no pg_hba.conf entry"}, "datastore-login"),
        ({"C": "3D000", "M": 'database "x" does not exist'}, "datastore-rights"),
        ({"C": "08P01", "M": "unsupported startup parameter: lock_timeout"}, "datastore-settings"),
        ({"C": "53300", "M": "too many connections"}, "datastore"),
        ({"C": "28000", "M": "connection requires a valid client certificate"}, "datastore-tls"),
        ({"C": "28000", "M": 'role "u" is not permitted to log in'}, "datastore-login"),
        ({"C": "42501", "M": 'permission denied for database "k3s"'}, "datastore-rights"),
        ({"C": "42501", "M": 'permission denied to set parameter "log_statement"'}, "datastore-settings"),
        ({"C": "42704", "M": 'unrecognized configuration parameter "gssencmode"'}, "datastore-settings"),
        ({"C": "XX000", "M": "could not find digest for NID UNDEF"}, "datastore-tls"),
    ],
)
def test_what_postgresql_refuses_with(details: dict[str, str], id_: str) -> None:
    assert postgresql_refusal.refused(Exception(details), ENDPOINT, "v1.34.9+k3s1").subject == id_


@pytest.mark.parametrize(
    ("version", "binds"),
    [
        ("v1.32.9+k3s1", False), ("v1.33.11+k3s1", False), ("v1.33.12+k3s1", True), ("v1.34.7+k3s1", False),
        ("v1.34.8+k3s1", True), ("v1.35.4+k3s1", False), ("v1.36.0+k3s1", False), ("v1.36.1+k3s1", True),
        ("v1.37.0+k3s1", True),
    ],
)  # fmt: skip
def test_what_the_driver_of_k3s_does_not_know_goes_to_the_database(version: str, binds: bool) -> None:
    text = "postgres://u:p@db/k?sslmode=require&channel_binding=require&search_path=own&gssencmode=disable"
    endpoint = parse(Secret(text))
    more = {} if binds else {"channel_binding": "require"}
    assert parameters.runtime(endpoint.parameters, version) == {"search_path": "own", "gssencmode": "disable"} | more
    refusal = Exception({"C": "42704", "M": 'unrecognized configuration parameter "channel_binding"'})
    assert version in postgresql_refusal.refused(refusal, endpoint, version).remedy


@pytest.mark.parametrize(
    ("mode", "ca", "wanted"),
    [
        ("disable", False, [None]),
        ("allow", False, [None, (False, ssl.CERT_NONE)]),
        ("prefer", False, [(False, ssl.CERT_NONE), None]),
        ("", False, [(False, ssl.CERT_NONE), None]),
        ("", True, [(True, ssl.CERT_REQUIRED)]),
        ("require", False, [(False, ssl.CERT_NONE)]),
        ("require", True, [(False, ssl.CERT_REQUIRED)]),
        ("verify-ca", True, [(False, ssl.CERT_REQUIRED)]),
        ("verify-full", False, [(True, ssl.CERT_REQUIRED)]),
    ],
)
def test_the_ways_of_a_mode_are_those_of_the_driver(
    tmp_path: Path, mode: str, ca: bool, wanted: list[tuple[bool, ssl.VerifyMode] | None]
) -> None:
    endpoint = parse(Secret(f"postgres://u:p@db/k{f'?sslmode={mode}' if mode else ''}"))
    found = postgresql.ways(endpoint, shown(tmp_path) if ca else None)
    assert [one and (one.check_hostname, one.verify_mode) for one in found] == wanted


def test_a_kind_of_channel_binding_that_there_is_not_is_told() -> None:
    with pytest.raises(ProbeFailed, match="channel_binding is always"):
        parameters.runtime({"channel_binding": "always"}, "v1.36.3+k3s1")


@pytest.mark.parametrize(
    ("binding", "version", "level"),
    [("", "v1.36.3+k3s1", "error"), ("disable", "v1.36.3+k3s1", "warning"), ("", "v1.34.3+k3s1", "warning")],
)
def test_a_certificate_that_allows_no_channel_binding(binding: str, version: str, level: str) -> None:
    endpoint = parse(Secret(f"postgres://u:p@db/k?channel_binding={binding}"))
    refusal = Exception({"C": "XX000", "M": "could not find digest for NID UNDEF"})
    assert postgresql_refusal.refused(refusal, endpoint, version).severity == level


@pytest.mark.parametrize(
    ("mechanism", "wanted", "refused"),
    [
        ("SCRAM-SHA-256", "require", True), ("SCRAM-SHA-256-PLUS", "require", False),
        ("SCRAM-SHA-256", "prefer", False), (None, "require", False),
    ],
)  # fmt: skip
def test_channel_binding_is_required_of_scram(mechanism: str | None, wanted: str, refused: bool) -> None:
    scram = {"auth": SimpleNamespace(mechanism_name=mechanism)} if mechanism else {}
    found = postgresql._unbound(
        SimpleNamespace(**scram), parse(Secret(f"postgres://u:p@db/k?channel_binding={wanted}"))
    )
    assert bool(found) is refused


@pytest.mark.parametrize(
    ("settings", "origin", "text", "level"),
    [
        ({"innodb_snapshot_isolation": "OFF", "version": "10.11.19-MariaDB"}, "COMPILE-TIME", "", "note"),
        ({"innodb_snapshot_isolation": "OFF", "version": "10.11.19-MariaDB"}, "CONFIG", "", ""),
        ({"innodb_snapshot_isolation": "OFF", "version": "11.8.9-MariaDB-deb13"}, "SQL", "", "warning"),
        ({"innodb_snapshot_isolation": "OFF", "version": "11.6.1-MariaDB"}, "SQL", "", "note"),
        ({"innodb_snapshot_isolation": "OFF", "version": "11.8.9-MariaDB"}, "COMMAND-LINE", "", ""),
        (
            {"innodb_snapshot_isolation": "OFF", "version": "11.8.9-MariaDB"},
            "SQL",
            "?innodb_snapshot_isolation=OFF",
            "",
        ),
        ({"innodb_snapshot_isolation": "ON", "version": "11.8.9-MariaDB"}, "COMPILE-TIME", "", ""),
        ({"version": "9.7.4"}, "", "", ""),
    ],
)
def test_an_isolation_that_the_next_restart_or_version_turns_on_is_told(
    settings: dict[str, str], origin: str, text: str, level: str
) -> None:
    endpoint = parse(Secret(f"mysql://u:p@tcp(db)/k3s{text}"))
    found = mysql_settings.only_until_restart(lambda *_: [(origin,)] if origin else [], settings, endpoint)
    assert [one.severity for one in found] == ([level] if level else [])


def test_what_the_driver_for_mysql_does_not_know_is_set_in_each_session() -> None:
    said: list[str] = []

    def query(text: str) -> list[tuple[Any, ...]]:
        said.append(text)
        if "no_such" in text:
            raise pymysql.err.OperationalError(1193, "Unknown system variable 'no_such'")
        return []

    assert mysql_settings.apply(query, parse(Secret("mysql://u:p@tcp(db)/k3s?timeout=10s&loc=Local"))) == []
    assert said == []
    found = mysql_settings.apply(
        query, parse(Secret("mysql://u:p@tcp(db)/k3s?innodb_snapshot_isolation=OFF&no_such=%271%27"))
    )
    assert said == ["SET innodb_snapshot_isolation = OFF, no_such = '1'"]
    assert "Unknown system variable 'no_such'" in found[0].found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"auto_increment_increment": "2"}, "auto_increment_increment is 2"),
        ({"innodb_snapshot_isolation": "ON"}, "innodb_snapshot_isolation is on"),
        ({"wsrep_on": "ON", "wsrep_cluster_address": "gcomm://a,b"}, "Galera"),
        ({"auto_increment_increment": "1", "read_only": "OFF", "wsrep_on": "OFF"}, ""),
    ],
)
def test_settings_that_k3s_breaks_on(settings: dict[str, str], words: str) -> None:
    found = mysql_settings.problems(settings)
    assert words in found[0].found if words else not found


def test_whose_data_it_holds_how_many_it_lets_in_and_how_fast(load: Load) -> None:
    cluster = load()
    assert list(findings(cluster, "db:3306", Answers(connections=500, round_trips=[0.001]))) == []
    ids = [p.subject for p in findings(cluster, "db:3306", Answers(connections=9, round_trips=[1], skew=-4))]
    assert ids == ["datastore-settings", "datastore-latency", "clock"]


def test_a_datastore_s_clock_is_wrong_where_no_slow_answer_explains_it(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end, told in ((100.2, ["clock"]), (109.0, [])):
        times = iter((100.0, end))  # of this module alone: other threads ask for the time, too
        clock = SimpleNamespace(time=partial(next, times))
        monkeypatch.setattr("nornir_k3s.datastore_probe.answers.time", clock)
        answers = Answers(connections=500)
        answers.clock(lambda: 108.5)
        assert [one.subject for one in findings(load(), "db:3306", answers)] == told


@pytest.mark.parametrize(
    ("endpoint", "writable", "problem"),
    [
        ("postgres://u:p@a/k", [False], True),
        ("postgres://u:p@a,b/k", [True, False], True),
        ("postgres://u:p@a,b/k?target_session_attrs=read-write", [True, False], False),
        ("postgres://u:p@a,b/k?target_session_attrs=read-write", [False, False], True),
        ("mysql://u:p@tcp(a)/k", [True], False),
    ],
)
def test_of_several_postgresql_hosts_some_may_be_replicas(endpoint: str, writable: list[bool], problem: bool) -> None:
    asked = {f"{n}:1": Answers(writable=yes) for n, yes in enumerate(writable)}
    assert bool(list(probe.replica_findings(parse(Secret(endpoint)), asked))) is problem


@pytest.mark.parametrize(
    ("where", "covers"),
    [
        ("*.*", True), ("k3s.*", True), ("k%.*", True), ("k_s.*", True), (r"k\_s.*", False), ("other.*", False),
        ("k3s.kine", False), (r"k3s\_.*", False),
    ],
)  # fmt: skip
def test_a_grant_s_wildcards_are_read_as_mysql_does(where: str, covers: bool) -> None:
    assert mysql._covers(where, "k3s") is covers
    assert mysql._covers(r"k3s\_1.*", "k3s_1")


def test_a_role_s_rights_count_with_mysql_8() -> None:
    said = {
        "SHOW GRANTS": [("GRANT USAGE ON *.* TO `u`@`%`",), ("GRANT `dba`@`%` TO `u`@`%`",)],
        "SELECT CURRENT_ROLE()": [("`dba`@`%`",)],
        "SHOW GRANTS FOR CURRENT_USER() USING `dba`@`%`": [("GRANT ALL PRIVILEGES ON `k3s`.* TO `u`@`%`",)],
    }
    grants = mysql._grants(lambda text: said[text], "MySQL")
    assert mysql._missing_rights(mysql._rights(grants, ENDPOINT), ENDPOINT, exists=True) == []
    grants = mysql._grants(lambda text: said[text], "MariaDB")
    assert mysql._missing_rights(mysql._rights(grants, ENDPOINT), ENDPOINT, exists=True)


class Written:
    """A connection whose cursor writes statements as pymysql does, and returns them."""

    encoding = "utf-8"

    def cursor(self) -> contextlib.AbstractContextManager[Any]:
        asked: list[str] = []
        connection: Any = self
        writer = pymysql.cursors.Cursor(connection)
        return contextlib.nullcontext(
            SimpleNamespace(
                execute=lambda text, values: asked.append(writer.mogrify(text, values)), fetchall=lambda: [(asked[0],)]
            )
        )

    def literal(self, value: object) -> str:
        return repr(value)

    escape = literal


def test_statements_keep_their_wildcards_with_and_without_values() -> None:
    query = mysql._asking(Written())
    role = "SHOW GRANTS FOR CURRENT_USER() USING `writer`@`%`"
    assert query(role) == [(role,)]
    assert query("SELECT 1 FROM t WHERE n = %s", "k3s") == [("SELECT 1 FROM t WHERE n = 'k3s'",)]


def test_a_role_that_no_login_turns_on_is_named() -> None:
    said = {
        "SHOW GRANTS": [("GRANT USAGE ON *.* TO `u`@`%`",), ("GRANT `dba`@`%` TO `u`@`%`",)],
        "SELECT CURRENT_ROLE()": [("NONE",)],
    }
    grants = mysql._grants(lambda text: said[text], "MySQL")
    rights = mysql._rights(grants, ENDPOINT)
    (problem,) = mysql._inactive_roles(grants, rights, ENDPOINT)
    assert "SET DEFAULT ROLE `dba`@`%`" in problem.remedy
    assert mysql._inactive_roles([*grants, "GRANT SELECT ON `k3s`.* TO `u`@`%`"], {"SELECT"}, ENDPOINT) == []
    assert mysql._inactive_roles(grants[:1], rights, ENDPOINT) == []


def test_what_was_tried_in_mysql_is_gone_again_also_when_it_is_refused() -> None:
    said: list[str] = []

    def query(text: str) -> list[tuple[Any, ...]]:
        said.append(text)
        if text.startswith("CREATE INDEX"):
            raise pymysql.err.OperationalError(1142, "INDEX command denied")
        return []

    (found,) = mysql._test_rights(query, ENDPOINT)
    assert "INDEX command denied" in found.found
    assert said[-1].startswith("DROP TABLE IF EXISTS `k3s`.nornir_k3s_try_")


def test_a_table_that_was_copied_without_its_index_and_one_with_small_ids() -> None:
    assert table_problems(id_type="bigint", unique=True) == []
    found = table_problems(id_type="int", unique=False)
    assert [problem.level for problem in found] == ["error", "warning"]


# As K3s leaves them, a copy, a deletion and a second copy for each rotation: key, deleted, bytes.
ROTATED = [("old", 0, 11945), ("new", 0, 11945), ("old", 1, None), ("new", 0, 11829)]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (ROTATED, {"new": 11829}),
        ([*ROTATED, ("old", 0, 7), ("new", 1, None), ("old", 0, 9)], {"old": 9}),
        ([("own", 0, 9), ("own", 1, 9), ("own", 0, None)], {"own": 0}),
        ([("own", 0, None), ("own", 0, 11829), ("own", 0, 34757)], {"own": 34757}),
        ([("own", 0, 9), ("own", 1, 9)], {}),
    ],
    ids=["rotated", "rotated and back", "locked again", "CA rotated", "deleted"],
)
def test_of_each_bootstrap_key_the_newest_row_counts_if_it_is_no_deletion(
    rows: list[tuple[str, int, int | None]], found: dict[str, int]
) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE kine (id INTEGER PRIMARY KEY, name TEXT, deleted INTEGER, value BLOB)")
    values = [(f"/bootstrap/{name}", deleted, size and b"x" * size) for name, deleted, size in rows]
    database.executemany("INSERT INTO kine (name, deleted, value) VALUES (?, ?, ?)", [("/registry/x", 0, b""), *values])
    answer = database.execute(sql.BOOTSTRAP.format(table="kine")).fetchall()
    assert dict(answer) == {f"/bootstrap/{name}": size for name, size in found.items()}


def test_a_postgresql_endpoint_is_read_as_pgx_does() -> None:
    found = parse(Secret("postgres://k%40s:p%40ss%2Fw@h1,h2:5433/K3S?sslmode=require"))
    assert (found.user, found.password.reveal(), found.database) == ("k@s", "p@ss/w", "k3s")
    assert found.parameters == {"sslmode": "require"}


@pytest.mark.parametrize(("pool", "enough"), [({}, False), ({"max_open": 60}, True), ({"max_open": 90}, False)])
def test_connections_are_counted_with_the_pool_that_the_servers_get(
    load: Load, pool: dict[str, int], enough: bool
) -> None:
    cluster = load({"datastore_pool": pool} if pool else {})
    found = list(findings(cluster, "db:3306", Answers(connections=151)))
    assert enough is (not found)
    assert enough or ("max_open" if pool else "datastore_pool") in found[0].remedy


@pytest.mark.parametrize(
    ("collation", "default", "version", "severity"),
    [
        ("C", ("en_US.UTF-8", "c"), "v1.36.3+k3s1", ""),
        ("POSIX", ("en_US.UTF-8", "c"), "v1.36.3+k3s1", ""),
        ("en_US.UTF-8", ("C", "c"), "v1.34.9+k3s1", "warning"),
        ("en_US.UTF-8", ("C", "c"), "v1.34.10+k3s1", "error"),
        ("en_US.UTF-8", ("C", "c"), "v1.35.6+k3s1", "warning"),
        ("en_US.UTF-8", ("C", "c"), "v1.35.7+k3s1", "error"),
        ("en_US.UTF-8", ("C", "c"), "v1.36.2+k3s1", "warning"),
        ("de-x-icu", ("C", "c"), "v1.36.3+k3s1", "error"),
        (None, ("C", "c"), "v1.37.0+k3s1", ""),
        (None, ("C.UTF-8", "b"), "v1.37.0+k3s1", ""),
        (None, ("C", "i"), "v1.37.0+k3s1", "error"),  # ICU has the last word
        (None, ("en_US.UTF-8", "c"), "v1.37.0+k3s1", "error"),
    ],
)
def test_keys_that_are_not_compared_byte_by_byte(
    collation: str | None, default: tuple[str, str], version: str, severity: str
) -> None:
    found = postgresql._collated(lambda _: [default], collation, version)
    assert [(one.subject, one.severity) for one in found] == [("datastore-collation", severity)] * bool(severity)


@pytest.mark.parametrize(
    ("version", "id_", "severity"),
    [
        ("v1.34.9+k3s1", "datastore-settings", "warning"),
        ("v1.35.5+k3s1", "datastore-settings", "warning"),
        ("v1.35.6+k3s1", "datastore-pooler", "error"),
        ("v1.36.1+k3s1", "datastore-settings", "warning"),
        ("v1.36.2+k3s1", "datastore-pooler", "error"),
        ("v1.37.0+k3s1", "datastore-pooler", "error"),
    ],
)
def test_a_pooler_that_keeps_sessions(monkeypatch: pytest.MonkeyPatch, version: str, id_: str, severity: str) -> None:
    def connected(process: int) -> Any:
        cursor = SimpleNamespace(execute=lambda _: None, fetchall=lambda: [(process,)], description=True)
        return SimpleNamespace(cursor=lambda: cursor, close=lambda: None, _backend_key_data=bytes(8))

    monkeypatch.setattr(postgresql, "login", lambda *_: connected(8))
    connector: Any = SimpleNamespace(version=version)
    (one,) = postgresql._pooled(connected(7), ENDPOINT, connector)
    assert (one.subject, one.severity) == (id_, severity)
