"""Clusters on datastores that this tool sets up, from bare hosts of several releases."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.state import datastore_keys
from nornir_k3s.state.store import Store

from . import moves
from .balancers import BALANCERS, Held, watched
from .conftest import (
    DB,
    PREFIX,
    Proved,
    Site,
    add_packages_of,
    bare,
    controller,
    eventually,
    health,
    make_bare,
    namespace,
    rotate_token,
    unchanged,
    upgrade,
)
from .had import had

# Where the hosts' groups are others than the lab's own.
GROUPS: dict[str, dict[str, str]] = {
    "mariadb": {},
    "mysql": {},
    "postgresql": {},
    "etcd": {"s3": "datastore", "a2": "datastore"},
}
UNITS = {"mariadb": "mariadb", "mysql": "mysql", "postgresql": "postgresql@*-main.service", "etcd": "etcd"}
PORTS = {"mariadb": 3306, "mysql": 3306, "postgresql": 5432, "etcd": 2379}
# The release of its hosts. All of them with --matrix; there is no MySQL but in sid, which has no MariaDB here.
SLICE = ("mysql sid", "postgresql trixie", "etcd trixie")
MATRIX = (
    *("mariadb bookworm", "mariadb trixie", "mysql sid"),
    *("postgresql bookworm", "postgresql trixie", "postgresql sid"),
    *("etcd bookworm", "etcd trixie", "etcd sid"),
)
# What is beside them has Debian 12 and 13.
MIXED = dict.fromkeys(("s2", "a1", "lb1"), "trixie")
LIKE_RHEL = "lb2"  # it looks like one with RHEL 9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "managed" in metafunc.fixturenames:
        chosen = MATRIX if metafunc.config.getoption("--matrix") else SLICE
        metafunc.parametrize("managed", chosen, indirect=True, scope="module")


@pytest.fixture(scope="module")
def managed(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """A finished cluster on a managed datastore of this kind."""
    kind, release = request.param.split()
    with bare(site, MIXED | dict.fromkeys(datastores(kind), release)):
        site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore={"kind": kind}))
        for host, group in GROUPS[kind].items():
            site.edit(partial(put_into, host=host, group=group), "hosts.yaml")
        site.lab.exec(LIKE_RHEL, ["sh", "-s"], input=(Path(__file__).parent / "rhel_lookalike.sh").read_text())
        if kind == "mysql" and request.config.getoption("--matrix"):
            moved_from_sqlite(site)
        else:
            site.deploy()
        yield site


def moved_from_sqlite(site: Site) -> None:
    """Make the cluster from one server on SQLite; the run that moves it is killed, and run again."""
    moves.install_single_server(site)
    moves.fill(site)
    state = site.folder / ".state" / "lab"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "token").write_text(moves.TOKEN + "\n")
    refused = site.runbook("deploy.py", "--yes")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "nornir-k3s move" in refused.stderr
    before, path = moves.objects(site), site.folder / "move.json"
    done = site.runbook("move.py", "--plan", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["changes"]["s1"] == ["stop K3s until the copy is whole"]
    moves.kill_while_stopped(site, "s1")
    done = site.runbook("move.py", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    moves.same(site, before)
    kept = site.lab.exec("s1", ["cat", "/var/lib/nornir-k3s/moved/config.yaml"]).stdout
    assert moves.TOKEN in kept, "what leads back"
    assert site.runbook("move.py", "--plan").returncode == 2, "there is nothing to move"


def put_into(hosts: dict[str, Any], host: str, group: str) -> None:
    hosts[host].update(groups=[group])


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.node.callspec.params["managed"].split()[0]
    return found


ETCDCTL = """set -eu
. /etc/default/etcd
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$ETCD_LISTEN_CLIENT_URLS ETCDCTL_CACERT=$ETCD_TRUSTED_CA_FILE
export ETCDCTL_CERT=$ETCD_CERT_FILE ETCDCTL_KEY=$ETCD_KEY_FILE
"""


def datastores(kind: str) -> list[str]:
    return ["db1", *GROUPS[kind]]


def started(site: Site, kind: str) -> dict[str, str]:
    """When each host's datastore and K3s were started."""
    hosts = dict.fromkeys(datastores(kind), UNITS[kind]) | {
        host: "k3s" for host in ("s1", "s2", "s3") if host not in datastores(kind)
    }
    show = ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"]
    return {host: site.lab.exec(host, [*show, unit]).stdout for host, unit in hosts.items()}


def sql(site: Site, kind: str, text: str) -> list[str]:
    """Run a statement as the database's administrator; return the lines."""
    ask = ["runuser", "-u", "postgres", "--", "psql", "-At", "-c"] if kind == "postgresql" else [kind, "-N", "-B", "-e"]
    return site.lab.exec("db1", [*ask, text]).stdout.splitlines()


def users(site: Site, kind: str) -> list[str]:
    """The users that K3s logs in as: one, or one for each server."""
    if kind == "postgresql":
        return sql(site, kind, "SELECT rolname FROM pg_roles WHERE rolname ~ '^k3s_'")
    return sql(site, kind, "SELECT CONCAT(User, '@', Host) FROM mysql.user WHERE User LIKE 'k3s\\_%' ORDER BY 1")


def test_it_becomes_a_cluster_and_a_second_run_does_nothing(managed: Site, kind: str, proved: Proved) -> None:
    others = {host for host in ("s1", "s2", "s3", "a1", "a2") if host not in datastores(kind)}
    assert managed.nodes() == dict.fromkeys(others, True)
    before = started(managed, kind)
    assert "nothing to change" in managed.deploy().stdout
    assert started(managed, kind) == before
    assert managed.runbook("status.py").returncode == 0
    for host in ("lb1", "lb2"):
        nothing_is_deprecated(managed, host)
    assert managed.lab.exec(LIKE_RHEL, ["stat", "-c", "%a", "/var/lib/haproxy/stats"]).stdout == "600\n"
    assert managed.lab.exec(LIKE_RHEL, ["getsebool", "haproxy_connect_any"]).stdout == "haproxy_connect_any --> on\n"
    eventually(lambda: unchanged(managed))
    more = {"latency", "compaction", *(["connections"] if kind != "etcd" else [])}
    if kind == "etcd":  # as Kubernetes' API server notes it after five minutes
        managed.lab.exec("db1", ["sh", "-s"], input=ETCDCTL + "etcdctl put compact_rev_key 1")
    assert health(managed) == {"table", *more}
    # The servers share nothing but the datastore: one that is stopped is not missed.
    managed.lab.exec("s1", ["systemctl", "stop", "k3s"])
    eventually(managed.answers)
    managed.deploy()
    proved(managed, kind, "managed", "deploy", "second run")


def test_another_controller_finds_nothing_to_do(
    managed: Site, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if not request.config.getoption("--matrix"):  # test_controllers.py has one kind
        return
    other, before = controller(managed, tmp_path), started(managed, kind)
    done = other.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keys of the datastore" in done.stdout
    assert "nothing to change" in other.deploy("--yes").stdout
    assert started(managed, kind) == before


def nothing_is_deprecated(site: Site, host: str) -> None:
    """HAProxy and keepalived of this release have no warning for their configuration."""
    site.lab.exec(host, ["haproxy", "-dW", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg"])  # a warning is an error
    assert site.lab.exec(host, ["keepalived", "-t", "-f", "/etc/keepalived/keepalived.conf"]).stderr == ""
    words = "warning\\|deprecated\\|obsolete\\|unknown\\|not used\\|disabl"
    said = f"journalctl -o cat --no-pager -u keepalived | grep -i '{words}'"
    assert site.lab.exec(host, ["sh", "-c", said], check=False).stdout == ""


def test_nobody_else_gets_in(managed: Site, kind: str) -> None:
    port = PORTS[kind]
    for host in datastores(kind):
        listening = managed.lab.exec(host, ["ss", "-Hlnt", f"sport = :{port}"]).stdout.split()
        assert [word for word in listening if word.endswith(f":{port}")] == [
            f"{managed.lab.exec(host, ['hostname', '-I']).stdout.split()[0]}:{port}"
        ]
    if kind == "etcd":
        ask = f"curl -sk --max-time 5 https://{DB}:2379/version || echo refused"
        assert "refused" in managed.lab.exec("s1", ["sh", "-c", ask]).stdout
        return
    if kind != "postgresql":
        grants = [
            line for user in users(managed, kind) for line in sql(managed, kind, f"SHOW GRANTS FOR {quoted(user)}")
        ]
        assert not [line for line in grants if "ON *.*" in line and "GRANT USAGE ON" not in line], grants
        assert {user.partition("@")[2] for user in users(managed, kind)} == {f"{PREFIX}.{n}" for n in (12, 13, 14)}
        plain = sql(managed, kind, "SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'k3s%' AND ssl_type <> 'ANY'")
        assert plain == ["0"], "TLS is required of each"
        return
    rows = sql(
        managed,
        kind,
        "SELECT ssl, usename, datname FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL",
    )
    assert rows
    assert {row.partition("|")[0] for row in rows} == {"t"}
    rights = sql(
        managed,
        kind,
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolcanlogin FROM pg_roles WHERE rolname LIKE 'k3s%'",
    )
    assert all("|f|f|f|" in line for line in rights), rights
    assert "k3s|f|f|f|f" in rights
    others = (
        "SELECT datname FROM pg_database WHERE has_database_privilege('pg_monitor', oid, 'CONNECT') AND datname = 'k3s'"
    )
    assert sql(managed, kind, others) == []


def quoted(user: str) -> str:
    return "'" + user.replace("@", "'@'") + "'"


def test_a_certificate_is_renewed_before_it_ends_and_nothing_restarts(managed: Site, kind: str) -> None:
    folder = managed.folder / ".state" / "lab"
    kept = json.loads((folder / datastore_keys.FILE).read_text())
    store = Store(folder, base=managed.folder)
    addresses = {host: [managed.lab.exec(host, ["hostname", "-I"]).stdout.split()[0]] for host in datastores(kind)}
    del kept["issued"]
    (folder / datastore_keys.FILE).write_text(json.dumps(kept))
    datastore_keys.load(store, cluster="lab", hosts=addresses, now=datetime.now(UTC) - timedelta(days=330))
    store.commit()
    managed.deploy()  # these have 35 days left, so others are made at once
    before = started(managed, kind)
    show = f"echo | openssl s_client -connect {addresses['db1'][0]}:2379 2>/dev/null | openssl x509 -noout -enddate"
    if kind == "postgresql":
        show = show.replace("2379", "5432 -starttls postgres")
    elif kind != "etcd":  # they let nobody in who comes from here
        name = "Ssl_server_not_after"
        client = "mysql" if kind == "mysql" else "mariadb --ssl"
        ask = f"{client} -N -e \"SHOW STATUS LIKE '{name}'\""
        show = f"{ask} | sed s/{name}/notAfter/"
    old = managed.lab.exec("db1", ["sh", "-c", show]).stdout
    assert "notAfter" in old
    text = (folder / datastore_keys.FILE).read_text()
    again = json.loads(text)
    again["issued"].pop("db1")
    (folder / datastore_keys.FILE).write_text(json.dumps(again))
    done = managed.deploy()
    assert "db1" in done.stdout
    after = started(managed, kind)
    assert {host: words.split()[0] for host, words in after.items()} == {
        host: words.split()[0] for host, words in before.items()
    }
    assert managed.lab.exec("db1", ["sh", "-c", show]).stdout != old or "db1" in done.stdout
    assert "nothing to change" in managed.deploy().stdout
    managed.answers()


def test_a_changed_password_reaches_the_servers_one_at_a_time(managed: Site, kind: str, proved: Proved) -> None:
    if kind == "etcd":
        return  # it has none
    old = users(managed, kind)
    assert len(old) == (1 if kind == "postgresql" else 3)
    (managed.folder / "password").write_text("n3w'; p@ss\"w/rd$ %41\\\n")
    reference = {"kind": kind, "password": {"file": str(managed.folder / "password")}}
    managed.edit(lambda data: data["data"]["k3s_cluster"].update(datastore=reference))
    answers: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            answer = managed.kubectl("get", "--raw", "/readyz")
            answers.append("" if answer.stdout.strip() == "ok" else answer.stderr)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with watched(managed) as seen:
            managed.deploy("--yes")
    finally:
        stop.set()
        watcher.join()
    for balancer in BALANCERS:  # of two releases
        gone = [names for one, names in seen if one == balancer]
        assert set().union(*gone) == {"s1", "s2", "s3"}, balancer
        assert all(len(names) <= 1 for names in gone), balancer
    # A question that is under way on a server while it is stopped is lost; the next ones are for the others.
    lost = [len(list(some)) for failed, some in itertools.groupby(answers, key=bool) if failed]
    assert max(lost, default=0) < 5, answers
    new = users(managed, kind)
    assert len(new) == len(old)
    assert not set(new) & set(old)
    assert "nothing to change" in managed.deploy().stdout
    assert all(managed.nodes().values())
    proved(managed, kind, "managed", "password change")


def test_a_rotated_token_is_taken_over(managed: Site, kind: str, request: pytest.FixtureRequest) -> None:
    if kind != "etcd" or request.config.getoption("--matrix"):  # an external etcd is read in the same way
        rotate_token(managed)


def test_a_lost_user_is_made_again(managed: Site, kind: str) -> None:
    if kind == "etcd":
        return  # it has none
    user = users(managed, kind)[0]
    change = f"ALTER USER {quoted(user)} IDENTIFIED BY 'another'"
    sql(managed, kind, f"ALTER ROLE {user} PASSWORD 'another'" if kind == "postgresql" else change)
    found = managed.runbook("drift.py", "--no-history")
    assert found.returncode == 3, found.stdout
    assert f"password of {user}" in found.stdout
    before = started(managed, kind)
    done = managed.deploy("--yes")
    assert "changed" in done.stdout
    assert started(managed, kind) == before
    assert "nothing to change" in managed.deploy().stdout


LIVE = {
    "mariadb": "/etc/mysql/mariadb.conf.d/90-nornir-k3s-live.cnf",
    "mysql": "/etc/mysql/mysql.conf.d/zz-nornir-k3s-live.cnf",
}


def test_more_connections_need_no_restart(managed: Site, kind: str) -> None:
    if kind not in LIVE:
        return  # PostgreSQL needs one; etcd has no limit
    sql(managed, kind, "SET GLOBAL max_connections = 100")
    managed.lab.exec("db1", ["sed", "-i", "s/^max_connections.*/max_connections = 100/", LIVE[kind]])
    before = started(managed, kind)
    managed.deploy("--yes")
    assert started(managed, kind) == before
    assert sql(managed, kind, "SELECT @@max_connections") == ["550"]
    assert "nothing to change" in managed.deploy().stdout


FILES = {
    "mariadb": "/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf",
    "mysql": "/etc/mysql/mysql.conf.d/zz-nornir-k3s.cnf",
    "postgresql": "/etc/postgresql/*/main/conf.d/90-nornir-k3s.conf",
    "etcd": "/etc/default/etcd",
}


def test_what_is_changed_on_its_host_is_found_and_put_right_after_a_dump(
    managed: Site, kind: str, proved: Proved
) -> None:
    managed.lab.exec("db1", ["sh", "-c", f"for file in {FILES[kind]}; do echo '# by hand' >>\"$file\"; done"])
    for balancer in BALANCERS:
        for name in ("haproxy/haproxy.cfg", "keepalived/keepalived.conf"):
            managed.lab.exec(balancer, ["sh", "-c", f"echo '# by hand' >>/etc/{name}"])
    found = managed.runbook("drift.py", "--no-history")
    assert found.returncode == 3, found.stdout
    assert "by hand" in managed.deploy("--plan").stdout
    processes, servers = balancers_started(managed), servers_started(managed)
    held = [Held(address(managed, name)) for name in BALANCERS]
    done = managed.deploy("--yes")
    assert balancers_started(managed) == processes, "a reload is enough"
    # On a busy machine the restart of the datastore takes so long that a K3s ends itself.
    assert all(one.lives() for one in held) or servers_started(managed) != servers, held
    for one in held:
        one.close()
    (path,) = [word for word in done.stdout.split() if word.startswith("/var/lib/nornir-k3s/dumps/")]
    assert managed.lab.exec("db1", ["sh", "-c", READABLE[kind].replace("DUMP", path)]).stdout.strip()
    assert "nothing to change" in managed.deploy().stdout
    eventually(lambda: unchanged(managed))
    # The datastore itself has read its file without a complaint about a setting.
    complaints = managed.lab.exec("db1", ["sh", "-c", COMPLAINTS[kind]], check=False).stdout
    assert complaints == ""
    proved(managed, kind, "managed", "drift", "dump")


def backed_up(site: Site, folder: Path) -> tuple[Path, Path]:
    """Make a backup of a cluster with namespace `before`, then namespace `after`; return file and private key."""
    key, certificate, backups = folder / "key.pem", folder / "certificate.pem", folder / "backups"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=backup"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    if "namespace/before" not in namespaces(site):
        eventually(partial(namespace, site, "before"))
    done = site.runbook("backup.py", "--to", str(backups), "--verify", "--certificate", str(certificate))
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(partial(namespace, site, "after"))
    (file,) = backups.iterdir()
    refused = site.runbook("restore.py", str(file), "--yes")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "give the private key with --key" in refused.stderr
    return file, key


def namespaces(site: Site) -> list[str]:
    return site.kubectl("get", "namespaces", "-o", "name").stdout.split()


def came_back(site: Site, file: Path, key: Path) -> None:
    """Restore this backup; what was there then is there, and nothing else."""
    done = site.runbook("restore.py", str(file), "--key", str(key), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    found = namespaces(site)
    assert ("namespace/before" in found, "namespace/after" in found) == (True, False)
    eventually(lambda: unchanged(site))


@pytest.mark.matrix
def test_it_comes_back_from_a_backup(managed: Site, tmp_path: Path) -> None:
    """As a MariaDB does in test_nodes.py; the file is encrypted."""
    came_back(managed, *backed_up(managed, tmp_path))


def address(site: Site, host: str) -> str:
    return next(one.address for one in site.lab.hosts if one.name == host)


def balancers_started(site: Site) -> list[str]:
    show = ["systemctl", "show", "-p", "MainPID", "haproxy", "keepalived"]
    return [site.lab.exec(name, show).stdout for name in BALANCERS]


# That a dump can be read again, with something in it.
_SQL = "CLIENT -e 'CREATE DATABASE again'; zcat DUMP | CLIENT again; CLIENT -N again -e 'SELECT MAX(id) FROM kine'"
READABLE = {
    "mariadb": _SQL.replace("CLIENT", "mariadb"),
    "mysql": _SQL.replace("CLIENT", "mysql"),
    "postgresql": "runuser -u postgres -- pg_restore -l <DUMP | grep kine",
    "etcd": "(etcdutl snapshot status DUMP || ETCDCTL_API=3 etcdctl snapshot status DUMP) 2>/dev/null",
}
_JOURNAL = "journalctl -o cat --no-pager -u"
COMPLAINTS = {
    "mariadb": f"{_JOURNAL} mariadb | grep -i 'unknown variable\\|deprecat'",
    "mysql": "grep -i 'unknown variable\\|deprecat' /var/log/mysql/error.log",
    "postgresql": "grep -i 'unrecognized\\|deprecat' /var/log/postgresql/*.log",
    # 3.4 says of its own default that it is deprecated.
    "etcd": f"{_JOURNAL} etcd | grep -i 'unrecognized\\|deprecat' | grep -v capnslog",
}


def test_a_member_that_has_lost_its_data_is_replaced_as_the_page_says(managed: Site, kind: str) -> None:
    if kind != "etcd":
        return
    managed.lab.exec("a2", ["sh", "-c", "systemctl stop etcd; rm -r /var/lib/etcd/*/member"])
    done = managed.runbook("deploy.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a2: this etcd member has lost its data" in done.stderr
    script = r"""
    line=$(etcdctl member list | grep ', a2,')
    etcdctl member remove "${line%%,*}"
    peer=$(echo "$line" | cut -d, -f4)
    until etcdctl member add a2 --peer-urls="${peer# }"; do sleep 1; done
    """
    managed.lab.exec("db1", ["sh", "-s"], input=ETCDCTL + script)
    begin = "s/^ETCD_INITIAL_CLUSTER_STATE=.*/ETCD_INITIAL_CLUSTER_STATE=existing/"
    managed.lab.exec("a2", ["sh", "-c", f"sed -i '{begin}' /etc/default/etcd; systemctl start etcd"])
    managed.deploy("--yes")
    assert "nothing to change" in managed.deploy().stdout
    assert "existing" not in managed.lab.exec("a2", ["cat", "/etc/default/etcd"]).stdout
    managed.answers()


def servers_started(site: Site, *names: str) -> dict[str, str]:
    show = ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", "k3s"]
    return {host: site.lab.exec(host, show).stdout for host in names or ("s1", "s2", "s3")}


def is_of(site: Site, release: str) -> bool:
    return next(host.release for host in site.lab.hosts if host.name == "db1") == release


def test_mariadb_is_upgraded_by_apt_under_a_living_cluster(managed: Site, kind: str) -> None:
    """What the new version needs is there before it starts; a deploy has nothing to do, and restarts nothing."""
    if kind != "mariadb" or not is_of(managed, "bookworm"):
        return
    asked = "SELECT @@innodb_snapshot_isolation"
    assert sql(managed, kind, asked) == ["0"]
    add_packages_of(managed, "db1", "trixie")
    upgrade(managed, "db1", "mariadb-server")
    assert sql(managed, kind, "SELECT VERSION()")[0].startswith("11.8")
    assert sql(managed, kind, asked) == ["0"]
    eventually(managed.answers)
    eventually(lambda: unchanged(managed))
    before = servers_started(managed)
    assert "nothing to change" in managed.deploy().stdout
    assert servers_started(managed) == before
    assert all(managed.nodes().values())
    put_aside_and_back(managed)


def put_aside_and_back(site: Site) -> None:
    """Data that a package has renamed, and an empty database in their place, are told of before a change."""
    empty = "mkdir /var/lib/mysql && chown mysql:mysql /var/lib/mysql && mariadb-install-db --user=mysql >/dev/null"
    aside = f"systemctl stop mariadb && mv /var/lib/mysql /var/lib/mysql-11.8 && {empty} && systemctl start mariadb"
    site.lab.exec("db1", ["sh", "-c", aside])
    done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "db1: /var/lib/mysql-11.8 has the data of MariaDB 11.8, where a package has put them" in done.stderr
    back = "systemctl stop mariadb && rm -r /var/lib/mysql && mv /var/lib/mysql-11.8 /var/lib/mysql"
    site.lab.exec("db1", ["sh", "-c", f"{back} && systemctl start mariadb"])
    eventually(site.answers)
    eventually(lambda: unchanged(site))


def test_postgresql_stays_with_its_data_until_they_are_moved(managed: Site, kind: str) -> None:
    """Packages of a new Debian may make an empty cluster beside ours: K3s never gets that one."""
    if kind != "postgresql" or not is_of(managed, "bookworm"):
        return
    add_packages_of(managed, "db1", "trixie")
    upgrade(managed, "db1", "postgresql")
    managed.lab.exec("db1", ["sh", "-c", "pg_lsclusters | grep -q '^17' || pg_createcluster 17 main --start"])
    eventually(managed.answers)
    before = servers_started(managed)
    done = managed.deploy()
    assert "nothing to change" in done.stdout
    assert "its data are in PostgreSQL 15" in done.stdout + done.stderr
    assert servers_started(managed) == before
    text = (Path(__file__).parents[2] / "docs/datastores.md").read_text()
    assert "pg_dropcluster --stop 17 main" in text
    assert "\n  pg_upgradecluster 15 main\n" in text
    move = "pg_dropcluster --stop 17 main && pg_upgradecluster 15 main"
    managed.lab.exec("db1", ["sh", "-c", move], timeout=300)
    managed.deploy("--yes")
    assert "nothing to change" in managed.deploy().stdout
    assert sql(managed, kind, "SHOW server_version")[0].startswith("17")
    assert "/etc/postgresql/17/main/nornir-k3s-hba.conf" in sql(managed, kind, "SHOW hba_file")
    eventually(managed.answers)
    eventually(lambda: unchanged(managed))
    managed.lab.exec("db1", ["pg_dropcluster", "15", "main"])
    eventually(lambda: unchanged(managed))
    assert all(managed.nodes().values())


def test_etcd_is_upgraded_by_apt_one_member_after_the_other(managed: Site, kind: str) -> None:
    if kind != "etcd" or not is_of(managed, "bookworm"):
        return
    before = servers_started(managed, "s1", "s2")
    for host in datastores(kind):
        add_packages_of(managed, host, "trixie")
        upgrade(managed, host, "etcd-server", "etcd-client")
        eventually(managed.answers)
        assert "etcdctl version: 3.5" in managed.lab.exec(host, ["etcdctl", "version"]).stdout
    eventually(lambda: unchanged(managed))
    assert "nothing to change" in managed.deploy().stdout
    assert servers_started(managed, "s1", "s2") == before


@pytest.mark.matrix
def test_it_comes_back_from_nothing_and_goes_without_a_trace(managed: Site, kind: str, tmp_path: Path) -> None:
    """All hosts were installed anew, and the controller has lost its state. Then a reset leaves them as they were."""
    if is_of(managed, "bookworm"):
        return  # one release of each kind is enough
    file, key = backed_up(managed, tmp_path)
    managed.hosts = "used"
    make_bare(managed)
    managed.hosts = "used"
    names = [host.name for host in managed.lab.hosts]
    before = had(managed, names)
    came_back(managed, file, key)
    others = {host for host in ("s1", "s2", "s3", "a1", "a2") if host not in datastores(kind)}
    eventually(lambda: all_ready(managed, others))
    done = managed.runbook("reset.py", "--yes", "--datastore", "lab")
    assert done.returncode == 0, done.stdout + done.stderr
    now = had(managed, names)
    assert {name: now[name] ^ lines for name, lines in before.items()} == {name: set[str]() for name in names}


def all_ready(site: Site, names: set[str]) -> None:
    assert site.nodes() == dict.fromkeys(names, True)


OTHERS = {
    "mariadb": """set -eu
apt-get -q update >/dev/null
apt-get -qy --no-install-recommends install mariadb-server >/dev/null
printf '[mysqld]\\nbind-address = 0.0.0.0\\n' >/etc/mysql/mariadb.conf.d/70-shop.cnf
systemctl restart mariadb
mariadb -e "CREATE DATABASE shop; CREATE TABLE shop.goods (id INT); CREATE USER shop@localhost IDENTIFIED BY 'open'"
mariadb -e "GRANT ALL ON shop.* TO shop@localhost; INSERT INTO shop.goods VALUES (7)"
""",
    "postgresql": """set -eu
apt-get -qy --no-install-recommends install postgresql >/dev/null
cd /etc/postgresql/*/main
echo "listen_addresses = '*'" >conf.d/shop.conf
echo 'host all all 0.0.0.0/0 reject' >>pg_hba.conf
version=$(basename "$(dirname "$PWD")")
pg_ctlcluster --mode fast "$version" main stop || true # however its package has started it
systemctl restart "postgresql@$version-main"
runuser -u postgres -- psql -qc "CREATE ROLE shop LOGIN PASSWORD 'open'" -c 'CREATE DATABASE shop OWNER shop'
""",
}
ASK = {
    "mariadb": ["mariadb", "-ushop", "-popen", "-NBe", "SELECT id FROM shop.goods"],
    "postgresql": ["psql", "-Atc", "SELECT 7", "postgresql://shop:open@127.0.0.1/shop"],
}
LOOKS = """systemctl show -p MainPID,ExecMainStartTimestampMonotonic mariadb 'postgresql@*'
cd /etc && find mysql postgresql -type f ! -name 'pg_hba.conf*' -exec sha256sum {} + | sort -k2"""


def _set(data: dict[str, Any], known: dict[str, Any]) -> None:
    data["data"]["k3s_cluster"].update(known)


@pytest.mark.matrix
def test_a_database_is_added_beside_those_of_others(site: Site) -> None:
    with bare(site):
        for kind in ("mariadb", "postgresql"):
            site.lab.exec("db1", ["sh", "-s"], input=OTHERS[kind], timeout=300)
            before = site.lab.exec("db1", ["sh", "-c", LOOKS]).stdout
            known: dict[str, Any] = {"datastore": {"kind": kind}, "accept": ["datastore-shared"]}
            site.edit(partial(_set, known=known))
            refused = site.runbook("deploy.py")
            assert refused.returncode == 1
            assert f"{kind} on this host serves others: database shop, user shop" in refused.stderr
            assert "shared: true" in refused.stderr
            known["datastore"] = {"kind": kind, "shared": True}
            site.edit(partial(_set, known=known))
            site.deploy("--until", "datastore" if kind == "mariadb" else "first-server")
            again = site.deploy("--only", "datastore", "--json", "-").stdout
            assert json.loads(again)["changed"] is False, again
            assert site.lab.exec("db1", ["sh", "-c", LOOKS]).stdout == before, "its settings, and it was not restarted"
            assert site.lab.exec("db1", ASK[kind]).stdout == "7\n"
            assert "k3s" in str(sql(site, kind, NAMES[kind]))
        done = site.runbook("reset.py", "--yes", "--datastore", "lab")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "k3s" not in str(sql(site, "postgresql", NAMES["postgresql"]))
        assert "nornir" not in site.lab.exec("db1", ["sh", "-c", "cat /etc/postgresql/*/main/pg_hba.conf"]).stdout
        assert site.lab.exec("db1", ["sh", "-c", LOOKS]).stdout == before
        assert site.lab.exec("db1", ASK["postgresql"]).stdout == "7\n"


NAMES = {
    "mariadb": "SHOW DATABASES",
    "postgresql": "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles",
}
