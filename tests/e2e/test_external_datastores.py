"""A cluster on a datastore that someone else runs: as fields with verified TLS, and as an endpoint."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from . import moves
from .certificates import certificate
from .conftest import (
    DB,
    PREFIX,
    Proved,
    Site,
    add_packages_of,
    bare,
    eventually,
    health,
    rotate_token,
    unchanged,
    unchanged_files,
    upgrade,
)

PASSWORD = "p@ss/w:rd%# 'q\"\\)(?&=é"  # all that an endpoint, SQL and YAML may stumble over
INSTALL = "set -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get -q update && apt-get -qy install "
POSTGRES = f"""{INSTALL} postgresql
cd /etc/postgresql/*/main
install -m 600 -o postgres /etc/ssl/db.key /etc/ssl/pg.key
cat >>postgresql.conf <<'END'
listen_addresses = '*'
ssl_cert_file = '/etc/ssl/db.crt'
ssl_key_file = '/etc/ssl/pg.key'
ssl_min_protocol_version = 'TLSv1.3'
END
for n in 1 2 3; do
  echo "{PREFIX}.$((n + 11)) s$n.test" >>/etc/hosts
  echo "hostssl k3s k3s,second s$n.test scram-sha-256" >>pg_hba.conf
done
systemctl restart postgresql
su postgres -c psql <<'SQL'
CREATE USER k3s PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE DATABASE k3s OWNER k3s;
CREATE USER second PASSWORD 'n3w/p@ss' IN ROLE k3s;
SQL
"""
MARIADB = f"""{INSTALL} mariadb-server
install -m 600 -o mysql /etc/ssl/db.key /etc/ssl/my.key
cat >/etc/mysql/mariadb.conf.d/99-test.cnf <<'END'
[mysqld]
bind-address = 0.0.0.0
ssl_ca = /etc/ssl/ca.pem
ssl_cert = /etc/ssl/db.crt
ssl_key = /etc/ssl/my.key
END
systemctl restart mariadb
mariadb --default-character-set=utf8mb4 <<'SQL'
CREATE DATABASE `k3s-prod`;
CREATE USER ops IDENTIFIED BY '{PASSWORD.replace(chr(92), 2 * chr(92)).replace("'", "''")}' REQUIRE SSL;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `k3s-prod`.* TO ops;
CREATE USER second IDENTIFIED BY 'n3w/p@ss' REQUIRE SSL;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `k3s-prod`.* TO second;
SQL
"""
# It makes a certificate for itself, with which K3s can do nothing; the rights come with a role.
MYSQL = f"""{INSTALL} mysql-server
install -m 600 -o mysql /etc/ssl/db.key /etc/ssl/my.key
printf '[mysqld]\\nbind-address = 0.0.0.0\\ntls_version = TLSv1.3\\n' >/etc/mysql/mysql.conf.d/zz-test.cnf
systemctl restart mysql
mysql --default-character-set=utf8mb4 <<'SQL'
CREATE DATABASE `k3s-prod`;
CREATE ROLE writer;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `k3s-prod`.* TO writer;
CREATE USER ops IDENTIFIED BY '{PASSWORD.replace(chr(92), 2 * chr(92)).replace("'", "''")}' DEFAULT ROLE writer;
CREATE USER second IDENTIFIED BY 'n3w/p@ss';
GRANT writer TO second;
SQL
"""
ETCD = f"""{INSTALL} etcd-server
systemctl stop etcd
echo 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379' >/etc/default/etcd
echo 'ETCD_ADVERTISE_CLIENT_URLS=http://{DB}:2379' >>/etc/default/etcd
systemctl start etcd
"""
# With client certificates; its own one is that of its gateway to itself, too.
ETCD_TLS = ETCD.replace("http:", "https:").replace(
    "systemctl start etcd",
    """
install -m 600 -o etcd /etc/ssl/db.key /etc/ssl/etcd.key
cat >>/etc/default/etcd <<'END'
ETCD_CERT_FILE=/etc/ssl/db.crt
ETCD_KEY_FILE=/etc/ssl/etcd.key
ETCD_CLIENT_CERT_AUTH=true
ETCD_TRUSTED_CA_FILE=/etc/ssl/ca.pem
END
systemctl start etcd""",
)
# What prepares the host, its service, what the inventory says, and what is in a file that it names.
KINDS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "postgresql": (
        POSTGRES,
        "postgresql",
        {
            "kind": "postgresql", "hosts": [DB], "password": {"file": "../secret"}, "cafile": "../ca.pem",
            "parameters": {"channel_binding": "require"},
        },
        PASSWORD,
    ),
    "mariadb": (
        MARIADB,
        "mariadb",
        {
            "kind": "mariadb", "hosts": [f"{DB}:3306"], "user": "ops", "database": "k3s-prod",
            "password": {"file": "../secret"}, "cafile": "../ca.pem",
        },
        PASSWORD,
    ),
    "mysql": (
        MYSQL,
        "mysql",
        {
            "kind": "mysql", "hosts": [DB], "user": "ops", "database": "k3s-prod",
            "password": {"file": "../secret"},
        },
        PASSWORD,
    ),
    "etcd": (ETCD, "etcd", {"endpoint": {"file": "../secret"}}, f"http://{DB}:2379"),
    "etcd-tls": (
        ETCD_TLS,
        "etcd",
        {
            "kind": "etcd", "hosts": [DB], "cafile": "../ca.pem", "certfile": "../client.pem",
            "keyfile": "../client-key.pem",
        },
        "none: it has a certificate",
    ),
}  # fmt: skip


AUDIT, CNI = "/etc/rancher/audit.yaml", "/var/lib/rancher/k3s/server/manifests/cni.yaml"
NODES = ("s1", "s2", "s3", "a1", "a2")


# The release of its host. All of them with --matrix.
SLICE = ("mariadb trixie", "mysql sid", "etcd bookworm")
MATRIX = (
    *("mariadb bookworm", "mariadb trixie", "mysql sid"),
    *("postgresql bookworm", "postgresql trixie", "postgresql sid"),
    *("etcd bookworm", "etcd trixie", "etcd sid", "etcd-tls trixie"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = MATRIX if metafunc.config.getoption("--matrix") else SLICE
    metafunc.parametrize("outside", chosen, indirect=True)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    return KINDS[request.node.callspec.params["outside"].split()[0]][1]


@pytest.fixture
def outside(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """Bare hosts, and a datastore on db1 that the inventory knows as someone else's only."""
    kind, release = request.param.split()
    prepare, _, datastore, secret = KINDS[kind]
    certificate(site.folder)
    with bare(site, {"db1": release}):
        for name in ("ca.pem", "db.crt", "db.key"):
            site.lab.exec("db1", ["sh", "-c", f"cat >/etc/ssl/{name}"], input=(site.folder / name).read_text())
        site.lab.exec("db1", ["sh", "-s"], input=prepare, timeout=300)
        (site.folder / "secret").write_text(secret + "\n")
        site.edit(lambda data: data["db1"].update(groups=[]), "hosts.yaml")
        # Debian's databases allow fewer connections than three servers may want: a warning.
        known = {"datastore": datastore, "accept": ["datastore-settings"]}
        site.edit(lambda data: data["data"]["k3s_cluster"].update(known))
        yield site


def without_flannel(site: Site) -> None:
    """Leave the network of pods to a CNI that comes later."""
    audit = f"audit-policy-file={AUDIT}"
    off = {"flannel-backend": "none", "disable-helm-controller": "true", "kube-apiserver-arg": [audit]}
    site.edit(lambda data: data["data"]["k3s_cluster"]["server"].update(off))
    refused = site.runbook("deploy.py", "--plan")
    assert f"s1, s2, s3: kube-apiserver-arg audit-policy-file names {AUDIT}, which is not there" in refused.stderr
    for name in ("audit.yaml", "cni.yaml"):
        (site.folder / name).write_text("kind: List\n")
    own = {"path": AUDIT, "source": "../audit.yaml", "mode": "0640", "group": "adm", "roles": ["servers"]}
    more = {"files": [own], "manifests": ["../cni.yaml"]}
    site.edit(lambda data: data["data"]["k3s_cluster"].update(more))
    assert "no pods are scheduled, until a CNI runs" in site.deploy("--plan").stdout


def with_a_cni(site: Site) -> None:
    """Let one come: what waited for nothing else is Ready, and nobody had called it broken."""
    done = site.runbook("status.py")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in NODES:
        site.lab.exec(name, ["sh", "-c", "mkdir -p /etc/cni/net.d && echo {} >/etc/cni/net.d/10-own.conflist"])
    eventually(lambda: ready(site))
    eventually(lambda: active(site))
    assert listed(site) == [
        f"640 root adm {AUDIT}",
        f"600 root root {CNI}",
        "700 root root /var/lib/rancher/k3s/server",
    ]
    before = {name: site.lab.exec(name, ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout for name in NODES[:3]}
    (site.folder / "cni.yaml").write_text("kind: List\nitems: []\n")
    site.deploy("--yes")
    assert "items" in site.lab.exec("s3", ["cat", CNI]).stdout
    site.edit(lambda data: data["data"]["k3s_cluster"].pop("manifests"))
    site.deploy("--yes")
    assert CNI not in str(listed(site))
    assert before == {
        name: site.lab.exec(name, ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout for name in NODES[:3]
    }


def listed(site: Site) -> list[str]:
    paths = [AUDIT, CNI, "/var/lib/rancher/k3s/server"]
    return site.lab.exec("s2", ["stat", "-c", "%a %U %G %n", *paths], check=False).stdout.splitlines()


def active(site: Site) -> None:
    """The agents tell systemd when they can enforce network policies."""
    assert site.lab.exec("a1", ["systemctl", "is-active", "k3s-agent"], check=False).stdout.strip() == "active"


def ready(site: Site) -> None:
    assert site.nodes() == dict.fromkeys(NODES, True)


def test_bare_hosts_become_a_cluster_on_it(
    outside: Site, service: str, proved: Proved, request: pytest.FixtureRequest
) -> None:
    tls = "etcd-tls" in request.node.callspec.params["outside"]
    outside.lab.exec("db1", ["systemctl", "stop", service])
    done = outside.runbook("deploy.py")
    assert done.returncode == 1
    assert f"s1, s2, s3: cannot connect to the datastore at {DB}" in done.stderr
    assert outside.lab.exec("s1", ["ls", "/usr/local/bin"]).stdout == "", "something was changed"
    outside.lab.exec("db1", ["systemctl", "start", service])
    if service == "etcd":
        without_flannel(outside)
    if service == "mariadb":
        without_snapshot_isolation(outside)
    if service == "postgresql":  # the default of 18
        asked = ["su", "postgres", "-c", "psql -At -c 'SHOW server_version_num' -c 'SHOW data_checksums'"]
        version, checksums = outside.lab.exec("db1", asked).stdout.split()
        assert (int(version) >= 180000) == (checksums == "on")
    outside.deploy()
    assert outside.nodes() == dict.fromkeys(NODES, service != "etcd")
    assert "nothing to change" in outside.deploy().stdout
    eventually(lambda: unchanged(outside))
    if service == "etcd":
        with_a_cni(outside)
    if service == "etcd":  # as Kubernetes' API server notes it after five minutes
        key, value = (base64.b64encode(text).decode() for text in (b"compact_rev_key", b"1"))
        data = json.dumps({"key": key, "value": value})
        own = ["--cacert", "/etc/ssl/ca.pem", "--cert", "/etc/ssl/db.crt", "--key", "/etc/ssl/etcd.key"]
        url = f"{'https' if tls else 'http'}://{DB}:2379/v3/kv/put"
        outside.lab.exec("db1", ["curl", "-sf", *(own if tls else []), url, "-d", data])
    assert health(outside) == {"table", "compaction", *(["connections"] if service != "etcd" else [])}
    ends = json.loads((outside.folder / "health.json").read_text())["certificates"]
    port = {"postgresql": [5432], "mariadb": [3306], "etcd": [2379] if tls else []}.get(service, [])
    assert [one["path"] for one in ends if one["host"] == "cluster"] == [f"the datastore at {DB}:{p}" for p in port]
    secret = (outside.folder / "secret").read_text().strip()
    for log in Path(outside.folder / ".state" / "log").iterdir():
        assert secret not in log.read_text()
    # The servers share nothing but the datastore: one that is stopped is not missed.
    outside.lab.exec("s1", ["systemctl", "stop", "k3s"])
    eventually(outside.answers)
    outside.deploy()
    proved(outside, service, "external", "deploy", "second run", "drift")
    if service == "etcd" or request.config.getoption("--matrix"):  # the others are done with managed ones
        rotate_token(outside)
    if service == "mysql":
        roles_and_tls(outside)
    if service == "mysql" or request.config.getoption("--matrix"):
        (etcd_backed_up if service == "etcd" else backed_up)(outside, service)
        proved(outside, service, "external", "dump")
    if service == "etcd":
        return
    another_user(outside)
    another_ca(outside, service)
    proved(outside, service, "external", "password change")
    if service == "mariadb" and outside.lab.exec("db1", ["mariadbd", "--version"]).stdout.count("10.11"):
        upgraded(outside)
    if service == "mariadb" and request.config.getoption("--matrix"):
        moved_to_postgresql(outside)


def backed_up(site: Site, service: str) -> None:
    """By K3s' own login: verified where that may drop tables; and back, with and without that right."""
    folder, before = site.folder / "backups by the login", moves.objects(site)
    words = ["backup.py", "--verify", "--to", str(folder)]
    done = site.runbook(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    if service != "postgresql":
        assert "note: not verified: user ops lacks DROP on k3s-prod; the file has " in done.stdout
        assert "none was verified; the last one could not be: user ops lacks DROP" in site.runbook("status.py").stdout
        if service == "mariadb":  # and its rows are replaced in one transaction
            comes_back(site, folder, before)
        site.lab.exec("db1", [DATABASES[service], "-e", f"GRANT DROP ON `k3s-prod`.* TO {GRANTEES[service]}"])
        done = site.runbook(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert " KiB, verified" in done.stdout
    assert list_tables(site, service) == {"kine"}
    comes_back(site, folder, before)
    (aside,) = list_tables(site, service) - {"kine"}
    assert aside.startswith("kine_before_")
    eventually(lambda: unchanged(site))
    said = site.runbook("drift.py", "--no-history").stdout
    assert (
        f"the datastore keeps what was there before a restore in table {aside}; to remove it when nobody needs it: "
        in said
    )
    if service == "mysql":
        dumped_by_a_command(site)


def comes_back(site: Site, folder: Path, before: dict[str, dict[str, Any]]) -> None:
    """What was made and deleted since a backup is undone; ids go on after all that were seen: no watch misses it."""
    *_, newest = sorted(folder.iterdir())
    with moves.Informer(site) as informer:
        make(site, "since")
        eventually(partial(informer.knows, site))
        assert "since" in informer.view
        done = site.runbook("restore.py", str(newest), "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "revisions go on after the highest one that was seen" in done.stdout
        eventually(partial(informer.knows, site))
        assert "since" not in informer.view
    assert PASSWORD not in done.stdout + done.stderr
    moves.same(site, before)
    assert not [key for key in moves.objects(site) if key.endswith("/since")]
    make(site, "after")
    site.lab.exec("s1", ["k3s", "kubectl", "-n", "default", "delete", "configmap", "after"])
    eventually(lambda: ready(site))


def make(site: Site, name: str) -> None:
    """Make a ConfigMap."""
    metadata = {"name": name, "namespace": "default"}
    text = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
    site.lab.exec("s1", ["k3s", "kubectl", "create", "-f", "-"], input=text)


def etcd_backed_up(site: Site, _: str) -> None:
    """Its keys come back, at higher revisions."""
    folder, before = site.folder / "backups of keys", moves.objects(site)
    done = site.runbook("backup.py", "--verify", "--to", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: not verified: an etcd has no scratch database; the file has " in done.stdout
    with moves.Informer(site) as informer:
        make(site, "since")
        eventually(partial(informer.knows, site))
        done = site.runbook("restore.py", *map(str, folder.iterdir()), "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        eventually(partial(informer.knows, site))
        assert "since" not in informer.view
    moves.same(site, before, raised=True)
    assert not [key for key in moves.objects(site) if key.endswith("/since")]
    make(site, "after")
    eventually(lambda: ready(site))


DATABASES = {"mariadb": "mariadb", "mysql": "mysql"}
GRANTEES = {"mariadb": "ops", "mysql": "writer"}


def list_tables(site: Site, service: str) -> set[str]:
    words = [DATABASES.get(service, ""), "-N", "-e", "SHOW TABLES IN `k3s-prod`"]
    if service == "postgresql":
        words = ["runuser", "-u", "postgres", "--", "psql", "-At", "k3s", "-c", "SELECT tablename FROM pg_tables"]
        words[-1] += " WHERE schemaname = 'public'"
    return set(site.lab.exec("db1", words).stdout.split())


def dumped_by_a_command(site: Site) -> None:
    """The user's own command dumps it; what that needs to log in is in its environment."""
    script = (
        'f=$PWD/own.dump; printf "%s of %s, %s" "$DATASTORE_DATABASE" "$DATASTORE_USER" "$MYSQL_PWD" >"$f"; echo "$f"'
    )
    site.edit(lambda data: data["data"]["k3s_cluster"]["datastore"].update(dump_command=["sh", "-c", script]))
    folder = site.folder / "backups by a command"
    done = site.runbook("backup.py", "--to", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as file:
        part = file.extractfile("datastore.dump")
        assert part
        assert part.read().decode() == f"k3s-prod of ops, {PASSWORD}"
    assert PASSWORD not in done.stdout + done.stderr


def moved_to_postgresql(site: Site) -> None:
    """From the external database to one of another kind, which this tool sets up: every object is the same."""
    moves.fill(site)
    before = moves.objects(site)
    with unchanged_files(site):
        site.edit(lambda hosts: hosts["db1"].update(groups=["datastore"]), "hosts.yaml")
        site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore={"kind": "postgresql"}))
        done = site.runbook("deploy.py", "--yes")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "take the data along with `nornir-k3s move`" in done.stderr
        done = site.runbook("move.py", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        moves.same(site, before)
        eventually(lambda: ready(site))
        ask = ["runuser", "-u", "postgres", "--", "psql", "-At", "k3s", "-c"]
        said = site.lab.exec("db1", [*ask, "SELECT last_value >= (SELECT MAX(id) FROM kine) FROM kine_id_seq"])
        assert said.stdout == "t\n"
        eventually(lambda: unchanged(site))


def without_snapshot_isolation(site: Site) -> None:
    """What breaks K3s' compaction is told before the first change, where the database has it."""
    if not site.lab.exec("db1", ["mariadb", "-N", "-e", "SHOW VARIABLES LIKE 'innodb_snapshot_isolation'"]).stdout:
        return
    assert "ERROR 1020" in two_writers(site, "ON")
    assert two_writers(site, "OFF") == ""
    if "ON" in site.lab.exec("db1", ["mariadb", "-N", "-e", "SELECT IF(@@innodb_snapshot_isolation, 'ON', '')"]).stdout:
        done = site.runbook("deploy.py")
        assert done.returncode == 1
        assert "s1, s2, s3: innodb_snapshot_isolation is on; expected: OFF" in done.stderr
        assert site.lab.exec("s1", ["ls", "/usr/local/bin"]).stdout == "", "something was changed"
        site.lab.exec("db1", ["mariadb", "-e", "SET GLOBAL innodb_snapshot_isolation = OFF"])


def upgraded(site: Site) -> None:
    """A MariaDB that apt upgrades under a living cluster: told of before and after it; no server is restarted."""
    servers = {host: site.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout for host in ("s1", "s2", "s3")}
    said = site.deploy()
    assert "version 11.6.2 and newer turn it on" in said.stdout + said.stderr
    add_packages_of(site, "db1", "trixie")
    upgrade(site, "db1", "mariadb-server")
    eventually(site.answers)
    found = site.runbook("drift.py", "--no-history")
    assert found.returncode == 3, found.stdout
    assert "innodb_snapshot_isolation is on" in found.stdout
    assert "s1, s2, s3: innodb_snapshot_isolation is on" in refused(site)
    with unchanged_files(site):  # who may not change the database has K3s set it in each session
        own = {"innodb_snapshot_isolation": "OFF"}
        site.edit(lambda data: data["data"]["k3s_cluster"]["datastore"].update(parameters=own))
        site.deploy("--preflight-only")
    text = "printf '[mysqld]\\ninnodb_snapshot_isolation = OFF\\n' >/etc/mysql/mariadb.conf.d/99-own.cnf"
    site.lab.exec("db1", ["sh", "-c", f"{text}; systemctl restart mariadb"])
    eventually(site.answers)
    said = site.deploy()
    assert "nothing to change" in said.stdout
    assert "11.6.2" not in said.stdout + said.stderr
    eventually(lambda: unchanged(site))
    assert servers == {host: site.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout for host in servers}


def two_writers(site: Site, isolation: str) -> str:
    """Return how a transaction fails that changes a row which another one has changed since it was read."""
    statements = """
CREATE OR REPLACE DATABASE two; USE two; CREATE TABLE t (n INT) ENGINE=InnoDB; INSERT INTO t VALUES (1);
SET SESSION innodb_snapshot_isolation = ISOLATION; START TRANSACTION; SELECT * FROM t;
\\! mariadb two -e 'UPDATE t SET n = 2'
UPDATE t SET n = 3; COMMIT;
"""
    done = site.lab.exec(
        "db1", ["mariadb", "--force"], input=statements.replace("ISOLATION", isolation), check=False
    ).stderr
    site.lab.exec("db1", ["mariadb", "-e", "DROP DATABASE two"])
    return done


def roles_and_tls(site: Site) -> None:
    """What MySQL gives by a role and requires of connections is found; TLS comes to a living cluster."""
    (site.folder / "second").write_text("n3w/p@ss\n")
    change = {"user": "second", "password": {"file": "../second"}}
    assert "SET DEFAULT ROLE `writer`@`%`" in refused(site, **change)
    site.lab.exec("db1", ["mysql", "-e", "SET DEFAULT ROLE writer TO second"])
    (site.folder / "own.pem").write_text(site.lab.exec("db1", ["cat", "/var/lib/mysql/ca.pem"]).stdout)
    said = refused(site, cafile="../own.pem")
    assert said.count("has no subjectAltName") == said.count("s1, s2, s3: the TLS handshake")
    assert f"-addext subjectAltName=IP:{DB}" in said
    names = {"ssl_ca": "ca.pem", "ssl_cert": "db.crt", "ssl_key": "my.key"}
    tls = "".join(f"SET PERSIST {key} = '/etc/ssl/{name}'; " for key, name in names.items())
    site.lab.exec("db1", ["mysql", "-e", tls + "ALTER INSTANCE RELOAD TLS"])
    site.edit(lambda data: data["data"]["k3s_cluster"]["datastore"].update(cafile="../ca.pem"))
    site.deploy("--yes")
    site.lab.exec("db1", ["mysql", "-e", "SET PERSIST require_secure_transport = ON"])
    site.lab.exec("s1", ["systemctl", "restart", "k3s"])
    eventually(lambda: unchanged(site))
    assert "the database requires TLS for user ops" in refused(site, cafile=None)


def refused(site: Site, **change: Any) -> str:
    """Return what a deploy says that changes the datastore and is refused; the inventory is put back."""
    with unchanged_files(site):
        site.edit(lambda data: data["data"]["k3s_cluster"]["datastore"].update(change))
        done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def another_user(site: Site) -> None:
    """What is changed on a living cluster is asked first, and then reaches one server after the other."""
    files = {host: site.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout for host in ("s1", "s2", "s3")}
    secret = site.folder / "second"
    reference = {"user": "second", "password": {"file": "../second"}}
    site.edit(lambda data: data["data"]["k3s_cluster"]["datastore"].update(reference))
    secret.write_text("wrong\n")
    done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "refuses user second or the password" in done.stderr
    for host, text in files.items():
        assert site.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout == text
    secret.write_text("n3w/p@ss\n")
    done = site.deploy("--yes")
    for host in files:
        assert "second" in site.lab.exec(host, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
    assert "nothing to change" in site.deploy().stdout
    eventually(site.answers)
    assert all(site.nodes().values())


def another_ca(site: Site, service: str) -> None:
    """First both are trusted, then the database shows the new one's certificate, then the old one is forgotten."""
    old, delivered = (site.folder / "ca.pem").read_text(), "/etc/rancher/k3s/datastore-cafile.pem"
    certificate(site.folder)
    new = (site.folder / "ca.pem").read_text()
    done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, "the database's certificate is not of the new one yet"
    assert "datastore-tls" in done.stderr
    (site.folder / "ca.pem").write_text(old + new)
    site.deploy("--yes")
    for name in ("ca.pem", "db.crt", "db.key"):
        site.lab.exec("db1", ["sh", "-c", f"cat >/etc/ssl/{name}"], input=(site.folder / name).read_text())
    read_again = {
        "postgresql": "cat /etc/ssl/db.key >/etc/ssl/pg.key; systemctl reload postgresql",
        "mariadb": "cat /etc/ssl/db.key >/etc/ssl/my.key; mariadb -e 'FLUSH LOCAL SSL'",
        "mysql": "cat /etc/ssl/db.key >/etc/ssl/my.key; mysql -e 'ALTER INSTANCE RELOAD TLS'",
    }
    site.lab.exec("db1", ["sh", "-c", read_again[service]])
    (site.folder / "ca.pem").write_text(new)
    site.deploy("--yes")
    for host in ("s1", "s2", "s3"):
        assert site.lab.exec(host, ["cat", delivered]).stdout.strip() == new.strip()
    assert "nothing to change" in site.deploy().stdout
    eventually(site.answers)
