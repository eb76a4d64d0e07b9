"""A cluster on a datastore that someone else runs: PostgreSQL with an awkward password, and etcd, from bare hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Site, eventually

pytestmark = pytest.mark.e2e

POSTGRES = r"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -qy install postgresql
cd /etc/postgresql/*/main
echo "listen_addresses = '*'" >>postgresql.conf
echo 'host k3s k3s 10.79.0.0/24 scram-sha-256' >>pg_hba.conf
systemctl restart postgresql
su postgres -c psql <<'SQL'
CREATE USER k3s PASSWORD 'p@ss/w:rd%#';
CREATE DATABASE k3s OWNER k3s;
SQL
"""
ETCD = r"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -qy install etcd-server
systemctl stop etcd
echo 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379' >/etc/default/etcd
echo 'ETCD_ADVERTISE_CLIENT_URLS=http://10.79.0.11:2379' >>/etc/default/etcd
systemctl start etcd
"""
KINDS = {
    "postgresql": (POSTGRES, "postgres://k3s:p%40ss%2Fw%3Ard%25%23@10.79.0.11:5432/k3s"),
    "etcd": (ETCD, "http://10.79.0.11:2379"),
}


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    return {"postgresql": "postgresql", "etcd": "etcd"}[request.node.callspec.params["outside"]]


@pytest.fixture(params=KINDS)
def outside(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """Bare hosts, and a datastore on db1 that the inventory knows as an endpoint only."""
    prepare, endpoint = KINDS[request.param]
    folder = site.folder / "inventory"
    kept = {path: path.read_text() for path in folder.iterdir()}
    state = site.folder / ".state" / "lab"
    if state.exists():
        state.rename(site.folder / ".state" / f"before-{request.param}")
    site.lab.reset_all()
    site.lab.exec("db1", ["sh", "-s"], input=prepare, timeout=300)
    (site.folder / "endpoint").write_text(endpoint + "\n")
    site.edit(lambda data: data["db1"].update(groups=[]), "hosts.yaml")
    reference = {"endpoint": {"file": str(site.folder / "endpoint")}}
    site.edit(lambda data: data["data"]["k3s_cluster"].update(datastore=reference))
    yield site
    for path, text in kept.items():
        path.write_text(text)


def test_bare_hosts_become_a_cluster_on_an_endpoint(outside: Site, service: str) -> None:
    outside.lab.exec("db1", ["systemctl", "stop", service])
    done = outside.runbook("deploy.py")
    assert done.returncode == 1
    assert "s2: it cannot connect to the datastore at 10.79.0.11" in done.stderr
    assert outside.lab.exec("s1", ["ls", "/usr/local/bin"]).stdout == "", "something was changed"
    outside.lab.exec("db1", ["systemctl", "start", service])
    outside.deploy()
    assert outside.nodes() == dict.fromkeys(("s1", "s2", "s3", "a1", "a2"), True)
    assert "nothing to change" in outside.deploy().stdout
    secret = (outside.folder / "endpoint").read_text().strip()
    for log in Path(outside.folder / ".state" / "log").iterdir():
        assert secret not in log.read_text()
    # The servers share nothing but the datastore: one that is stopped is not missed.
    outside.lab.exec("s1", ["systemctl", "stop", "k3s"])
    eventually(outside.answers)
    outside.deploy()
