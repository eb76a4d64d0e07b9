"""What is wrong with a datastore someone else runs is found from every server, before the first change, for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nornir_k3s.k3s import bootstrap_key
from nornir_k3s.model.secret import Secret

from .certificates import certificate
from .conftest import DB, PREFIX, Site, bare

PASSWORD = "p@ss/w:rd%#"
QUOTED = "p%40ss%2Fw%3Ard%25%23"
KINE = """
CREATE TABLE kine
  (id BIGINT PRIMARY KEY, name VARCHAR(630) COLLATION, deleted INTEGER, prev_revision BIGINT, value BYTES);
"""
INDEX = "CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);"
FOREIGN = "INSERT INTO kine VALUES (1, '/bootstrap/000000000000', 0, 0, 'x');"
INSTALL = r"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -qy install postgresql mariadb-server etcd-server pgbouncer
cat >/etc/mysql/mariadb.conf.d/99-test.cnf <<'END'
[mysqld]
bind-address = 0.0.0.0
tls_version = TLSv1.3
ssl_cert = /etc/ssl/db.crt
ssl_key = /etc/ssl/db.key
END
cd /etc/postgresql/*/main
echo "listen_addresses = '*'
ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_ca_file = '/etc/ssl/ca.pem'
ssl_cert_file = '/etc/ssl/db.crt'
ssl_key_file = '/etc/ssl/pg.key'" >>postgresql.conf
echo 'host all k3s,poor,maker PREFIX.0/24 scram-sha-256
hostssl all secure PREFIX.0/24 scram-sha-256
hostssl all certain PREFIX.0/24 scram-sha-256 clientcert=verify-ca
host all named s1.test scram-sha-256
host all named s2.test scram-sha-256' >>pg_hba.conf
printf 'PREFIX.12 s1.test\nPREFIX.13 s2.test\n' >>/etc/hosts
cp /etc/ssl/db.key /etc/ssl/pg.key
chown postgres /etc/ssl/pg.key; chown mysql /etc/ssl/db.key; chmod 600 /etc/ssl/*.key
systemctl restart postgresql mariadb
su postgres -c 'pg_basebackup -D /var/lib/postgresql/replica -R'
cp pg_hba.conf /var/lib/postgresql/replica/; touch /var/lib/postgresql/replica/pg_ident.conf
printf "port = 5434\nlisten_addresses = '*'\n" >/var/lib/postgresql/replica/postgresql.conf
chown postgres /var/lib/postgresql/replica/*.conf
systemd-run -q --unit replica --uid postgres /usr/lib/postgresql/*/bin/postgres -D /var/lib/postgresql/replica
cat >/etc/pgbouncer/pgbouncer.ini <<'END'
[databases]
k3s = host=127.0.0.1 pool_mode=transaction
sessions = host=127.0.0.1 dbname=k3s pool_mode=session
[pgbouncer]
listen_addr = *
listen_port = 6432
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
END
echo '"k3s" "SECRET"' >/etc/pgbouncer/userlist.txt
systemctl restart pgbouncer
systemctl stop etcd
cat >/etc/default/etcd <<'END'
ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379
ETCD_ADVERTISE_CLIENT_URLS=http://PREFIX.11:2379
END
systemctl start etcd
systemd-run -q --unit etcd-tls etcd --data-dir /var/lib/etcd-tls --listen-peer-urls http://127.0.0.1:2481 \
  --initial-advertise-peer-urls http://127.0.0.1:2481 --initial-cluster default=http://127.0.0.1:2481 \
  --listen-client-urls https://0.0.0.0:2479 --advertise-client-urls https://PREFIX.11:2479 \
  --cert-file /etc/ssl/db.crt --key-file /etc/ssl/db.key --client-cert-auth --trusted-ca-file /etc/ssl/ca.pem
""".replace("SECRET", PASSWORD).replace("PREFIX", PREFIX)
POSTGRES = (
    f"""
CREATE USER k3s PASSWORD 'SECRET'; CREATE USER secure PASSWORD 'SECRET';
CREATE USER poor PASSWORD 'SECRET'; CREATE USER maker PASSWORD 'SECRET' CREATEDB;
CREATE USER certain PASSWORD 'SECRET'; CREATE USER named PASSWORD 'SECRET';
CREATE DATABASE k3s OWNER k3s; CREATE DATABASE secure OWNER secure;
CREATE DATABASE strange OWNER k3s; CREATE DATABASE copied OWNER k3s; CREATE DATABASE half OWNER k3s;
\\c strange
SET ROLE k3s; {KINE} {INDEX} {FOREIGN}
\\c copied
SET ROLE k3s; {KINE}
\\c half
SET ROLE k3s; {KINE} {INDEX}
""".replace("SECRET", PASSWORD)
    .replace("COLLATION", 'COLLATE "C"')
    .replace("BYTES", "BYTEA")
)
MARIADB = (
    f"""
CREATE DATABASE k3s; CREATE DATABASE strange; CREATE DATABASE poor; CREATE DATABASE copied; CREATE DATABASE half;
CREATE USER k3s IDENTIFIED BY 'SECRET'; CREATE USER poor IDENTIFIED BY 'SECRET';
CREATE USER maker IDENTIFIED BY 'SECRET'; CREATE USER secure IDENTIFIED BY 'SECRET' REQUIRE SSL;
GRANT ALL ON k3s.* TO k3s; GRANT ALL ON strange.* TO k3s; GRANT ALL ON copied.* TO k3s; GRANT ALL ON half.* TO k3s;
INSTALL SONAME 'auth_ed25519'; INSTALL SONAME 'auth_pam';
CREATE USER curved IDENTIFIED VIA ed25519 USING PASSWORD('SECRET'); GRANT ALL ON k3s.* TO curved;
CREATE USER pam IDENTIFIED VIA pam; GRANT ALL ON k3s.* TO pam;
GRANT SELECT, INSERT ON poor.* TO poor; GRANT ALL ON *.* TO maker; GRANT ALL ON k3s.* TO secure;
USE strange; {KINE} {INDEX} {FOREIGN}
USE copied; {KINE}
USE half; {KINE} {INDEX}
""".replace("SECRET", PASSWORD)
    .replace("COLLATION", "CHARACTER SET ascii")
    .replace("BYTES", "BLOB")
)
RIGHT = {
    "mariadb": f"mysql://k3s:{PASSWORD}@tcp({DB}:3306)/k3s",
    "postgresql": f"postgres://k3s:{QUOTED}@{DB}:5432/k3s",
    "etcd": f"http://{DB}:2379",
}
SERVERS = ("s1", "s2", "s3")


@pytest.fixture(scope="module")
def outside(site: Site) -> Iterator[Site]:
    """Bare hosts, and on db1 all three databases, which the inventory knows as an endpoint only."""
    certificate(site.folder)
    with bare(site):
        for name in ("db.crt", "db.key", "ca.pem"):
            site.lab.exec("db1", ["sh", "-c", f"cat >/etc/ssl/{name}"], input=(site.folder / name).read_text())
        site.lab.exec("db1", ["sh", "-s"], input=INSTALL, timeout=300)
        site.lab.exec("db1", ["su", "postgres", "-c", "psql -v ON_ERROR_STOP=1"], input=POSTGRES)
        site.lab.exec("db1", ["mariadb"], input=MARIADB)
        site.edit(only_servers_ask, "hosts.yaml")
        yield site


def only_servers_ask(hosts: dict[str, Any]) -> None:
    """Leave out what has no say in this: each of many runs reads fewer hosts."""
    hosts["db1"].update(groups=[])
    for name in ("a1", "a2", "lb2"):
        hosts[name].update(groups=[], data={"k3s_role": "none"})


def ask(site: Site, endpoint: str, **files: str) -> tuple[int, list[dict[str, str]], str]:
    """Run the preflight on an endpoint: exit code, its findings about datastores, and all that was said."""
    (site.folder / "endpoint").write_text(endpoint + "\n")
    paths = {key: str(site.folder / name) for key, name in files.items()}
    return ask_of(site, {"endpoint": {"file": str(site.folder / "endpoint")}, **paths})


def ask_of(site: Site, datastore: dict[str, Any]) -> tuple[int, list[dict[str, str]], str]:
    site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore=datastore))
    report = site.folder / "asked.json"
    done = site.runbook("deploy.py", "--preflight-only", "--json", str(report))
    assert "Traceback" not in done.stderr
    for secret in (PASSWORD, QUOTED):
        assert secret not in done.stdout + done.stderr + report.read_text()
    for server in SERVERS:
        assert site.lab.exec(server, ["ls", "/usr/local/bin"]).stdout == "", "something was changed"
    findings = json.loads(report.read_text())["findings"]
    found = [f for f in findings if "data" in f["id"] or f["subject"] == "bootstrap"]
    return done.returncode, found, done.stdout + done.stderr


def tables(site: Site) -> str:
    """All tables in the databases, and all databases."""
    query = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2"
    found = site.lab.exec("db1", ["mariadb", "-N", "-e", query]).stdout
    found += site.lab.exec("db1", ["su", "postgres", "-c", "psql -At -c '\\l'"]).stdout
    for database in ("k3s", "strange", "copied", "half", "secure"):
        found += site.lab.exec("db1", ["su", "postgres", "-c", f"psql -At {database} -c '\\dt' -c '\\ds'"]).stdout
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_made(outside: Site) -> Iterator[None]:
    """Whatever is asked of them: no table and no database is made."""
    before = tables(outside)
    assert "kine" in before
    yield
    assert tables(outside) == before


def name_of(text: str) -> str:
    """Return what a test is called by: the same in each process, whose hosts have other addresses."""
    return text.replace(PREFIX, "lab")


SECURE = {
    "mariadb": f"mysql://secure:{PASSWORD}@tcp({DB})/k3s",
    "postgresql": f"postgres://secure:{QUOTED}@{DB}/secure",
}


@pytest.mark.parametrize(
    "endpoint",
    [
        *RIGHT.values(),
        SECURE["postgresql"],  # the driver tries TLS first
        SECURE["postgresql"] + "?sslmode=allow",
        f"mysql://maker:{PASSWORD}@tcp({DB})/to_be_made",
        f"postgres://maker:{QUOTED}@{DB}/to_be_made",
        f"{RIGHT['postgresql']}?channel_binding=require&application_name=k3s&lock_timeout=9s",
        f"mysql://curved:{PASSWORD}@tcp({DB})/k3s",
        f"{RIGHT['mariadb']}?innodb_snapshot_isolation=OFF&timeout=9s",
    ],
    ids=name_of,
)
def test_a_right_one_is_no_problem(outside: Site, endpoint: str) -> None:
    code, findings, said = ask(outside, endpoint)
    errors = [f for f in findings if f["severity"] == "error"]
    assert (code, errors) == (0, []), said


@pytest.mark.parametrize(
    ("endpoint", "expected", "words"),
    [
        (RIGHT["mariadb"].replace("p@ss", "wrong"), "datastore-login", "refuses user k3s or the password"),
        (RIGHT["mariadb"].replace("k3s:", "nobody:", 1), "datastore-login", "refuses user nobody"),
        (SECURE["mariadb"], "datastore-tls", "requires TLS for user secure"),
        (RIGHT["mariadb"].removesuffix("k3s") + "another", "datastore-rights", "database another does not exist"),
        (f"mysql://poor:{PASSWORD}@tcp({DB})/poor", "datastore-rights", "lacks UPDATE, DELETE, CREATE, ALTER, INDEX"),
        (RIGHT["mariadb"].removesuffix("k3s") + "strange", "foreign-data", "/bootstrap/000000000000"),
        (RIGHT["mariadb"].removesuffix("k3s") + "copied", "datastore-settings", "no unique index"),
        (RIGHT["mariadb"].replace("3306", "3307"), "datastore", "Connection refused"),
        (RIGHT["mariadb"].replace(DB, "no-such-host.invalid"), "datastore", "name"),
        (RIGHT["postgresql"].replace("p%40ss", "wrong"), "datastore-login", "refuses user k3s or the password"),
        (RIGHT["postgresql"].replace("k3s:", "stranger:", 1), "datastore-login", "does not allow user stranger"),
        (RIGHT["postgresql"].removesuffix("k3s") + "another", "datastore-rights", "database another does not exist"),
        (f"postgres://poor:{QUOTED}@{DB}/k3s", "datastore-rights", "may not create tables in schema public"),
        (RIGHT["postgresql"].removesuffix("k3s") + "strange", "foreign-data", "/bootstrap/000000000000"),
        (RIGHT["postgresql"].removesuffix("k3s") + "copied", "datastore-settings", "no unique index"),
        (RIGHT["postgresql"].replace("5432", "5433"), "datastore", "Connection refused"),
        (RIGHT["postgresql"].replace(DB, "no-such-host.invalid"), "datastore", "name"),
        (RIGHT["postgresql"].replace("5432", "5434"), "datastore-settings", "read-only replica"),
        (RIGHT["postgresql"].replace("5432", "6432"), "datastore-settings", "PgBouncer) in transaction mode"),
        (f"mysql://pam:{PASSWORD}@tcp({DB})/k3s", "datastore-login", "user pam logs in by dialog, which K3s' driver"),
        (RIGHT["mariadb"] + "?no_such=1", "datastore-settings", "Unknown system variable 'no_such'"),
        (RIGHT["postgresql"] + "?gssencmode=disable", "datastore-settings", 'parameter "gssencmode"'),
        (RIGHT["postgresql"] + "?channel_binding=always", "datastore-settings", "channel_binding is always"),
        (SECURE["postgresql"] + "?sslmode=disable", "datastore-login", "from this server's address this way"),
        (RIGHT["postgresql"] + "?sslmode=disable&channel_binding=require", "datastore-tls", "channel binding"),
        (f"postgres://certain:{QUOTED}@{DB}/k3s", "datastore-tls", "requires a client certificate of user certain"),
        (RIGHT["etcd"].replace("2379", "2378"), "datastore", "Connection refused"),
        (RIGHT["etcd"].replace("2379", "3306"), "datastore", "does not answer as an etcd"),
        (RIGHT["etcd"].replace("2379", "2479"), "datastore", "does not answer as an etcd"),
    ],
    ids=name_of,
)
def test_what_k3s_would_fail_on_is_found_from_every_server(
    outside: Site, endpoint: str, expected: str, words: str
) -> None:
    code, findings, said = ask(outside, endpoint)
    assert code == 1, said
    errors = [f for f in findings if f["severity"] == "error"]
    assert {(f["host"], f["subject"]) for f in errors} == {(server, expected) for server in SERVERS}, errors
    assert all(words in f["found"] for f in errors), errors


def test_servers_that_are_let_in_by_name_are_those_that_the_database_resolves(outside: Site) -> None:
    code, findings, said = ask(outside, f"postgres://named:{QUOTED}@{DB}/k3s")
    assert code == 1, said
    logins = [f for f in findings if f["subject"] == "datastore-login"]
    assert [f["host"] for f in logins] == ["s3"], findings
    assert "names that the database resolves" in logins[0]["remedy"]


def test_what_an_upgrade_of_mariadb_turns_on_is_a_note(outside: Site) -> None:
    code, findings, said = ask(outside, RIGHT["mariadb"])
    assert code == 0, said
    notes = [f["found"] for f in findings if f["severity"] == "note" and f["subject"] == "datastore-settings"]
    assert len(notes) == len(SERVERS), findings
    assert all("version 11.6.2 and newer turn it on" in one for one in notes)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_first_start_that_was_cut_off_is_told(outside: Site, kind: str) -> None:
    token = (outside.folder / ".state" / "lab" / "token").read_text().strip()
    row = f"INSERT INTO kine VALUES (1, '{bootstrap_key(Secret(token))}', 0, 0, NULL);"  # noqa: S608 - hexadecimal
    into = {"mariadb": ["mariadb", "half"], "postgresql": ["su", "postgres", "-c", "psql half"]}[kind]
    outside.lab.exec("db1", into, input=row)
    code, findings, said = ask(outside, RIGHT[kind].removesuffix("k3s") + "half")
    assert code == 0, said
    assert {(f["host"], f["severity"]) for f in findings if f["subject"] == "bootstrap"} == {
        (s, "note") for s in SERVERS
    }


def test_of_several_postgresql_hosts_the_one_that_can_be_written_to_is_enough(outside: Site) -> None:
    (outside.folder / "secret").write_text(PASSWORD + "\n")
    fields = {"kind": "postgresql", "hosts": [f"{DB}:5434", DB], "password": {"file": "../secret"}}
    code, _, said = ask_of(outside, fields)
    assert code == 0, said
    code, findings, said = ask_of(outside, {**fields, "hosts": [f"{DB}:5433", DB]})
    assert code == 0, said
    assert {f["severity"] for f in findings if f["subject"] == "datastore"} == {"warning"}


def test_a_pooler_that_keeps_sessions_is_a_warning(outside: Site) -> None:
    code, findings, said = ask(outside, f"postgres://k3s:{QUOTED}@{DB}:6432/sessions")
    assert code == 0, said
    assert any("PgBouncer" in f["found"] for f in findings if f["severity"] == "warning")


CLIENT = {"certfile": "client.pem", "keyfile": "client-key.pem"}
RELOAD = {"mariadb": "mariadb -e 'FLUSH LOCAL SSL'", "postgresql": "systemctl reload postgresql", "etcd": "true"}


@pytest.mark.parametrize("kind", RIGHT)
def test_tls_is_verified_as_k3s_will(outside: Site, kind: str) -> None:
    endpoint = {**RIGHT, "etcd": f"https://{DB}:2479"}[kind]
    client = CLIENT if kind == "etcd" else {}

    def refused(words: str, **files: str) -> None:
        code, findings, said = ask(outside, endpoint, **{"cafile": "ca.pem"} | client | files)
        assert code == 1, said
        errors = [f for f in findings if f["severity"] == "error"]
        assert {(f["host"], f["subject"]) for f in errors} == {(server, "datastore-tls") for server in SERVERS}
        assert all(words in f["found"] for f in errors), errors

    def shown(name: str) -> None:
        text = (outside.folder / name).read_text()
        outside.lab.exec("db1", ["sh", "-c", f"cat >/etc/ssl/db.crt; {RELOAD[kind]}"], input=text)

    code, _, said = ask(outside, endpoint, cafile="ca.pem", **client)
    assert code == 0, said
    refused("certificate", cafile="other.pem")
    refused("keyfile is not the key of certfile", **CLIENT | {"keyfile": "other-key.pem"})
    try:
        shown("expired.crt")
        refused("certificate has expired")
        shown("ending.crt")
        code, findings, said = ask(outside, endpoint, cafile="ca.pem", **client)
        assert code == 0, said
        assert any("expires in 5 days" in f["found"] for f in findings if f["severity"] == "warning")
    finally:
        shown("db.crt")
    # The same host by a name that its certificate does not have.
    for server in SERVERS:
        line = f"{DB} database.test"
        outside.lab.exec(server, ["sh", "-c", f"grep -q '{line}' /etc/hosts || echo {line} >>/etc/hosts"])
    endpoint = endpoint.replace(DB, "database.test")
    refused("database.test")


def test_an_etcd_that_wants_a_client_certificate(outside: Site) -> None:
    code, findings, said = ask(outside, f"https://{DB}:2479", cafile="ca.pem")
    assert code == 1, said
    assert any("client certificate" in f["remedy"] for f in findings), findings


def test_an_etcd_without_space(outside: Site) -> None:
    ask_of_it = f"curl -s http://{DB}:2379/v3/maintenance/alarm -d"
    member = outside.lab.exec("db1", ["curl", "-s", f"http://{DB}:2379/v3/maintenance/status", "-d", "{}"]).stdout
    number = json.loads(member)["header"]["member_id"]
    alarm = json.dumps({"action": "ACTIVATE", "memberID": number, "alarm": "NOSPACE"})
    outside.lab.exec("db1", ["sh", "-c", f"{ask_of_it} '{alarm}'"])
    try:
        code, findings, said = ask(outside, RIGHT["etcd"])
        assert code == 1, said
        assert any("NOSPACE" in f["found"] for f in findings), findings
    finally:
        outside.lab.exec("db1", ["sh", "-c", f"{ask_of_it} '{alarm.replace('ACTIVATE', 'DEACTIVATE')}'"])


def test_settings_that_k3s_breaks_on(outside: Site) -> None:
    outside.lab.exec("db1", ["mariadb", "-e", "SET GLOBAL auto_increment_increment = 3; SET GLOBAL read_only = ON"])
    try:
        code, findings, said = ask(outside, RIGHT["mariadb"])
        assert code == 1, said
        found = [f["found"] for f in findings if f["host"] == "s1"]
        assert "auto_increment_increment is 3" in found
        assert f"the database at {DB}:3306 is a read-only replica" in found
        assert any("151 connections" in text for text in found)
    finally:
        outside.lab.exec(
            "db1", ["mariadb", "-e", "SET GLOBAL auto_increment_increment = 1; SET GLOBAL read_only = OFF"]
        )
