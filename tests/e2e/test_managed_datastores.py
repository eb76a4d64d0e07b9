"""Clusters on datastores that this tool sets up: PostgreSQL, and an etcd of three members, from bare hosts."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from nornir_k3s.state import datastore_keys
from nornir_k3s.state.store import Store

from .conftest import DB, Site, bare, eventually, health, rotate_token, unchanged

# Where the hosts' groups are others than the lab's own.
GROUPS = {"postgresql": {}, "etcd": {"s3": "datastore", "a2": "datastore"}}
UNITS = {"postgresql": "postgresql@15-main", "etcd": "etcd"}


@pytest.fixture(scope="module", params=GROUPS)
def managed(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """A finished cluster on a managed datastore of this kind."""
    with bare(site):
        site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore={"kind": request.param}))
        for host, group in GROUPS[request.param].items():
            site.edit(partial(put_into, host=host, group=group), "hosts.yaml")
        site.deploy()
        yield site


def put_into(hosts: dict[str, Any], host: str, group: str) -> None:
    hosts[host].update(groups=[group])


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.node.callspec.params["managed"]
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


def sql(site: Site, text: str) -> str:
    return site.lab.exec("db1", ["runuser", "-u", "postgres", "--", "psql", "-At", "-c", text]).stdout


def test_it_becomes_a_cluster_and_a_second_run_does_nothing(managed: Site, kind: str) -> None:
    others = {host for host in ("s1", "s2", "s3", "a1", "a2") if host not in datastores(kind)}
    assert managed.nodes() == dict.fromkeys(others, True)
    before = started(managed, kind)
    assert "nothing to change" in managed.deploy().stdout
    assert started(managed, kind) == before
    assert managed.runbook("status.py").returncode == 0
    eventually(lambda: unchanged(managed))
    more = {"latency", "compaction", *(["connections"] if kind != "etcd" else [])}
    if kind == "etcd":  # as Kubernetes' API server notes it after five minutes
        managed.lab.exec("db1", ["sh", "-s"], input=ETCDCTL + "etcdctl put compact_rev_key 1")
    assert health(managed) == {"table", *more}
    # The servers share nothing but the datastore: one that is stopped is not missed.
    managed.lab.exec("s1", ["systemctl", "stop", "k3s"])
    eventually(managed.answers)
    managed.deploy()


def test_nobody_else_gets_in(managed: Site, kind: str) -> None:
    port = {"postgresql": "5432", "etcd": "2379"}[kind]
    for host in datastores(kind):
        listening = managed.lab.exec(host, ["ss", "-Hlnt", f"sport = :{port}"]).stdout.split()
        assert [word for word in listening if word.endswith(f":{port}")] == [
            f"{managed.lab.exec(host, ['hostname', '-I']).stdout.split()[0]}:{port}"
        ]
    if kind == "etcd":
        ask = f"curl -sk --max-time 5 https://{DB}:2379/version || echo refused"
        assert "refused" in managed.lab.exec("s1", ["sh", "-c", ask]).stdout
        return
    rows = sql(
        managed,
        "SELECT ssl, usename, datname FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL",
    )
    assert rows
    assert {row.partition("|")[0] for row in rows.split()} == {"t"}
    rights = sql(
        managed,
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolcanlogin FROM pg_roles WHERE rolname LIKE 'k3s%'",
    )
    assert all("|f|f|f|" in line for line in rights.split()), rights
    assert "k3s|f|f|f|f" in rights.split()
    assert (
        sql(
            managed,
            "SELECT datname FROM pg_database "
            "WHERE has_database_privilege('pg_monitor', oid, 'CONNECT') AND datname = 'k3s'",
        )
        == ""
    )


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


def test_a_changed_password_reaches_the_servers_one_at_a_time(managed: Site, kind: str) -> None:
    if kind == "etcd":
        return  # it has none
    old = sql(managed, "SELECT rolname FROM pg_roles WHERE rolname ~ '^k3s_'").split()
    assert len(old) == 1
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
        managed.deploy("--yes")
    finally:
        stop.set()
        watcher.join()
    # A question that is under way on a server while it is stopped is lost; the next ones are for the others.
    lost = [len(list(some)) for failed, some in itertools.groupby(answers, key=bool) if failed]
    assert max(lost, default=0) < 5, answers
    new = sql(managed, "SELECT rolname FROM pg_roles WHERE rolname ~ '^k3s_'").split()
    assert len(new) == 1
    assert new != old
    assert "nothing to change" in managed.deploy().stdout
    assert all(managed.nodes().values())


def test_a_rotated_token_is_taken_over(managed: Site) -> None:
    rotate_token(managed)


def test_a_lost_user_is_made_again(managed: Site, kind: str) -> None:
    if kind == "etcd":
        return  # it has none
    user = sql(managed, "SELECT rolname FROM pg_roles WHERE rolname ~ '^k3s_'").strip()
    sql(managed, f"ALTER ROLE {user} PASSWORD 'another'")
    before = started(managed, kind)
    done = managed.deploy("--yes")
    assert f"password of {user}" in done.stdout or "changed" in done.stdout
    assert started(managed, kind) == before
    assert "nothing to change" in managed.deploy().stdout


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
