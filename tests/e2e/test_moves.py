"""Clusters whose data are moved from kind to kind of datastore: every ordered pair, in as few clusters as possible."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from . import moves
from .conftest import Site, bare, eventually, unchanged

pytestmark = pytest.mark.matrix
HOMES = {"mariadb": "db1", "postgresql": "s3", "etcd": "a2", "mysql": "lb2"}
# What a home has to lose before the data come to it again.
EMPTY = {
    "mariadb": "mariadb -e 'DROP DATABASE k3s'",
    "mysql": "mysql -e 'DROP DATABASE k3s'",
    "postgresql": "runuser -u postgres -- dropdb k3s",
    "etcd": """
. /etc/default/etcd
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$ETCD_LISTEN_CLIENT_URLS ETCDCTL_CACERT=$ETCD_TRUSTED_CA_FILE
export ETCDCTL_CERT=$ETCD_CERT_FILE ETCDCTL_KEY=$ETCD_KEY_FILE
etcdctl del --prefix '' >/dev/null
""",
}
# From SQLite to MySQL goes a test of managed datastores.
CHAINS = {
    "etcd 3.4": ("etcd", "mariadb", "postgresql", "mariadb", "mysql", "mariadb"),
    "etcd 3.5": ("mariadb", "etcd", "postgresql", "mysql", "postgresql"),
    "from PostgreSQL": ("postgresql", "etcd", "mysql", "etcd"),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_the_data_are_moved_from_kind_to_kind(site: Site, chain: str) -> None:
    releases = {"a2": "bookworm" if chain == "etcd 3.4" else "trixie", "lb2": "sid", "s3": "trixie"}
    with bare(site, releases):
        from_sqlite(site, CHAINS[chain][0])
        been = {CHAINS[chain][0]}
        for number, kind in enumerate(CHAINS[chain][1:]):
            if kind in been:
                site.lab.exec(HOMES[kind], ["sh", "-c", EMPTY[kind]])
            been.add(kind)
            between(site, kind, back=not number)
        former = [HOMES[one] for one in been if one != kind]  # their data are still there, and drift says so
        done = site.runbook("remove.py", "--lost", *former, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        eventually(lambda: unchanged(site))


def describe(site: Site, kind: str) -> None:
    """Have the inventory say that the datastore is of this kind, on its own host; others are not in it."""

    def hosts(data: dict[str, Any]) -> None:
        kept.update({host: data.pop(host) for host in HOMES.values() if host in data})
        data[HOMES[kind]] = kept[HOMES[kind]] | {"groups": ["datastore"]}

    kept = ALL.setdefault(str(site.folder), {})
    site.edit(hosts, "hosts.yaml")
    site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore={"kind": kind}))


ALL: dict[str, dict[str, Any]] = {}  # by site: what the inventory said of hosts that are not in it


def from_sqlite(site: Site, kind: str) -> None:
    """Make a cluster of one server, and move it; the run is killed once, and run again."""
    moves.install_single_server(site)
    moves.fill(site)
    state = site.folder / ".state" / "lab"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "token").write_text(moves.TOKEN + "\n")
    describe(site, kind)
    before = moves.objects(site)
    moves.kill_while_stopped(site, "s1")
    moved(site, kind, before)


def moved(site: Site, kind: str, before: dict[str, dict[str, Any]]) -> None:
    done = site.runbook("move.py", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    moves.same(site, before, raised=kind == "etcd")
    eventually(lambda: ready(site))
    eventually(partial(create, site, f"after-{kind}"))


def ready(site: Site) -> None:
    assert site.nodes() == dict.fromkeys(("s1", "s2", "a1"), True)


def create(site: Site, name: str) -> None:
    ask = ["k3s", "kubectl", "-n", "default"]
    site.lab.exec("s1", [*ask, "delete", "configmap", name], check=False)  # of an earlier attempt
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    done = site.lab.exec("s1", [*ask, "create", "-f", "-"], check=False, input=json.dumps(item))
    assert done.returncode == 0, done.stderr


def between(site: Site, kind: str, *, back: bool) -> None:
    """Move with watches open; before that, go back once from a move that is killed."""
    create(site, "goes")
    before = moves.objects(site)
    describe(site, kind)
    path = site.folder / "move.json"
    done = site.runbook("move.py", "--plan", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    raises = [
        one for one in json.loads(path.read_text())["changes"]["cluster"] if one.startswith("raise etcd's revision")
    ]
    assert bool(raises) == (kind == "etcd")
    with moves.Informer(site) as informer:
        eventually(partial(informer.knows, site))
        assert {"moved-7", "goes"} <= set(informer.view)
        if back:
            moves.kill_while_stopped(site, "s1")
            done = site.runbook("move.py", "--back")
            assert done.returncode == 0, done.stdout + done.stderr
            eventually(site.answers)
            moves.same(site, before)
        moved(site, kind, before)
        site.lab.exec("s1", ["k3s", "kubectl", "-n", "default", "delete", "configmap", "goes"])
        eventually(partial(informer.knows, site))
        assert "goes" not in informer.view
        assert informer.cut, "its watch has ended with the servers"
