"""What is wrong with a datastore someone else runs is found from every server, before the first change, for real."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .certificates import certificate
from .conftest import Site, bare

pytestmark = pytest.mark.e2e

PASSWORD = "p@ss/w:rd%#"
QUOTED = "p%40ss%2Fw%3Ard%25%23"
DB = "10.79.0.11"
INSTALL = r"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -qy install postgresql mariadb-server etcd-server
printf '[mysqld]\nbind-address = 0.0.0.0\nssl_cert = /etc/ssl/db.crt\nssl_key = /etc/ssl/db.key\n' \
  >/etc/mysql/mariadb.conf.d/99-test.cnf
cd /etc/postgresql/*/main
echo "listen_addresses = '*'
ssl = on
ssl_cert_file = '/etc/ssl/pg.crt'
ssl_key_file = '/etc/ssl/pg.key'" >>postgresql.conf
echo 'host all k3s,poor,none 10.79.0.0/24 scram-sha-256' >>pg_hba.conf
cp /etc/ssl/db.crt /etc/ssl/pg.crt; cp /etc/ssl/db.key /etc/ssl/pg.key
chown postgres /etc/ssl/pg.key; chown mysql /etc/ssl/db.key; chmod 600 /etc/ssl/*.key
systemctl restart postgresql mariadb
systemctl stop etcd
echo 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379' >/etc/default/etcd
echo 'ETCD_ADVERTISE_CLIENT_URLS=http://10.79.0.11:2379' >>/etc/default/etcd
systemctl start etcd
"""
POSTGRES = """
CREATE USER k3s PASSWORD 'SECRET';
CREATE USER poor PASSWORD 'SECRET';
CREATE DATABASE k3s OWNER k3s;
CREATE DATABASE foreign_data OWNER k3s;
\\c foreign_data
SET ROLE k3s;
CREATE TABLE kine (name text, value bytea, deleted int);
INSERT INTO kine VALUES ('/bootstrap/000000000000', 'x', 0);
""".replace("SECRET", PASSWORD)
MARIADB = """
CREATE DATABASE k3s; CREATE DATABASE foreign_data; CREATE DATABASE poor;
CREATE USER k3s IDENTIFIED BY 'SECRET'; CREATE USER poor IDENTIFIED BY 'SECRET';
GRANT ALL ON k3s.* TO k3s; GRANT ALL ON foreign_data.* TO k3s; GRANT SELECT, INSERT ON poor.* TO poor;
CREATE TABLE foreign_data.kine (name VARCHAR(630) CHARACTER SET ascii, value BLOB, deleted INTEGER);
INSERT INTO foreign_data.kine VALUES ('/bootstrap/000000000000', 'x', 0);
""".replace("SECRET", PASSWORD)
RIGHT = {
    "mariadb": f"mysql://k3s:{PASSWORD}@tcp({DB}:3306)/k3s",
    "postgresql": f"postgres://k3s:{QUOTED}@{DB}:5432/k3s",
    "etcd": f"http://{DB}:2379",
}


@pytest.fixture(scope="module")
def outside(site: Site) -> Iterator[Site]:
    """Bare hosts, and on db1 all three databases, which the inventory knows as an endpoint only."""
    certificate(site.folder)
    with bare(site):
        for name in ("db.crt", "db.key"):
            site.lab.exec("db1", ["sh", "-c", f"cat >/etc/ssl/{name}"], input=(site.folder / name).read_text())
        site.lab.exec("db1", ["sh", "-s"], input=INSTALL, timeout=300)
        site.lab.exec("db1", ["su", "postgres", "-c", "psql -v ON_ERROR_STOP=1"], input=POSTGRES)
        site.lab.exec("db1", ["mariadb"], input=MARIADB)
        site.edit(lambda data: data["db1"].update(groups=[]), "hosts.yaml")
        yield site


def ask(site: Site, endpoint: str, **files: str) -> tuple[int, list[dict[str, str]], str]:
    """Run the preflight on an endpoint: exit code, its findings about datastores, and all that was said."""
    (site.folder / "endpoint").write_text(endpoint + "\n")
    datastore = {"endpoint": {"file": str(site.folder / "endpoint")}, **files}
    site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore=datastore))
    report = site.folder / "asked.json"
    done = site.runbook("deploy.py", "--preflight-only", "--json", str(report))
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr + report.read_text()
    assert QUOTED not in done.stdout + done.stderr + report.read_text()
    assert site.lab.exec("s1", ["ls", "/usr/local/bin"]).stdout == "", "something was changed"
    findings = json.loads(report.read_text())["findings"]
    return done.returncode, [f for f in findings if "data" in f["id"]], done.stdout + done.stderr


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_one_is_no_problem_and_no_table_is_made(outside: Site, kind: str) -> None:
    code, findings, said = ask(outside, RIGHT[kind])
    errors = [f for f in findings if f["level"] == "error"]
    assert (code, errors) == (0, []), said
    tables = outside.lab.exec("db1", ["mariadb", "-N", "-e", "SHOW TABLES FROM k3s"]).stdout
    tables += outside.lab.exec("db1", ["su", "postgres", "-c", "psql -At k3s -c '\\dt'"]).stdout
    assert tables == ""


@pytest.mark.parametrize(
    ("endpoint", "expected", "words"),
    [
        (RIGHT["mariadb"].replace("p@ss", "wrong"), "datastore-login", "refuses user k3s or the password"),
        (RIGHT["mariadb"].replace("k3s:", "nobody:", 1), "datastore-login", "refuses user nobody"),
        (RIGHT["mariadb"].removesuffix("k3s") + "another", "datastore-rights", "no database another"),
        (f"mysql://poor:{PASSWORD}@tcp({DB})/poor", "datastore-rights", "lacks UPDATE, DELETE, CREATE, ALTER, INDEX"),
        (RIGHT["mariadb"].removesuffix("k3s") + "foreign_data", "foreign-data", "/bootstrap/000000000000"),
        (RIGHT["mariadb"].replace("3306", "3307"), "datastore", "cannot connect"),
        (RIGHT["mariadb"].replace(DB, "no-such-host.invalid"), "datastore", "cannot connect"),
        (RIGHT["postgresql"].replace("p%40ss", "wrong"), "datastore-login", "refuses user k3s or the password"),
        (RIGHT["postgresql"].replace("k3s:", "stranger:", 1), "datastore-login", "lets this user in neither"),
        (RIGHT["postgresql"].removesuffix("k3s") + "another", "datastore-rights", "no database another"),
        (f"postgres://poor:{QUOTED}@{DB}/k3s", "datastore-rights", "may not create tables in schema public"),
        (RIGHT["postgresql"].removesuffix("k3s") + "foreign_data", "foreign-data", "/bootstrap/000000000000"),
        (RIGHT["postgresql"].replace("5432", "5433"), "datastore", "cannot connect"),
        (RIGHT["etcd"].replace("2379", "2378"), "datastore", "cannot connect"),
        (RIGHT["etcd"].replace("2379", "3306"), "datastore", "no etcd"),
    ],
)
def test_what_k3s_would_fail_on_is_found_from_every_server(
    outside: Site, endpoint: str, expected: str, words: str
) -> None:
    code, findings, said = ask(outside, endpoint)
    assert code == 1, said
    errors = [f for f in findings if f["level"] == "error"]
    assert {(f["host"], f["id"]) for f in errors} == {(server, expected) for server in ("s1", "s2", "s3")}, errors
    assert all(words in f["found"] for f in errors), errors


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_tls_is_verified_as_k3s_will(outside: Site, kind: str) -> None:
    code, _, said = ask(outside, RIGHT[kind], cafile=str(outside.folder / "ca.pem"))
    assert code == 0, said
    code, findings, said = ask(outside, RIGHT[kind], cafile=str(outside.folder / "other.pem"))
    assert code == 1, said
    assert {(f["host"], f["id"]) for f in findings if f["level"] == "error"} == {
        (server, "datastore-tls") for server in ("s1", "s2", "s3")
    }
    # The same host by a name that its certificate does not have.
    for server in ("s1", "s2", "s3"):
        outside.lab.exec(
            server, ["sh", "-c", f"grep -q database.test /etc/hosts || echo {DB} database.test >>/etc/hosts"]
        )
    endpoint = RIGHT[kind].replace(DB, "database.test")
    code, findings, said = ask(outside, endpoint, cafile=str(outside.folder / "ca.pem"))
    assert code == 1, said
    assert "database.test" in findings[0]["found"]


def test_settings_that_k3s_breaks_on(outside: Site) -> None:
    outside.lab.exec("db1", ["mariadb", "-e", "SET GLOBAL auto_increment_increment = 3; SET GLOBAL read_only = ON"])
    try:
        code, findings, said = ask(outside, RIGHT["mariadb"])
        assert code == 1, said
        found = [f["found"] for f in findings if f["host"] == "s1"]
        assert "auto_increment_increment is 3" in found
        assert "the database is read-only (a replica?)" in found
        assert any("151 connections" in text for text in found)
    finally:
        outside.lab.exec(
            "db1", ["mariadb", "-e", "SET GLOBAL auto_increment_increment = 1; SET GLOBAL read_only = OFF"]
        )
