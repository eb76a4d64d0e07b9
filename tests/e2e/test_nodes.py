"""Nodes leave the cluster, and come back."""

from __future__ import annotations

import json

from .conftest import PREFIX, Site, eventually, unchanged, unchanged_files


def users(site: Site) -> list[str]:
    """Return the addresses that users of the database come from."""
    query = "SELECT Host FROM mysql.user WHERE User LIKE 'k3s%'"
    return site.lab.exec("db1", ["mariadb", "-N", "-B", "-e", query]).stdout.split()


def backends(site: Site, balancer: str) -> str:
    return site.lab.exec(balancer, ["grep", "^    server s3 ", "/etc/haproxy/haproxy.cfg"], check=False).stdout


def test_a_server_that_left_the_inventory_is_told_and_runs_on(cluster: Site) -> None:
    before = cluster.processes()
    path = cluster.folder / "left.json"
    with unchanged_files(cluster):
        cluster.edit(lambda hosts: [hosts.pop(name) for name in ("s3", "a2")], "hosts.yaml")
        for arguments in (("--plan",), ("--yes",), ("--yes", "--limit", "a1")):
            done = cluster.deploy(*arguments)
            for what in ("server s3", "agent a2"):
                assert f"{what} is not in the inventory, and still a node of the cluster: K3s runs there" in done.stdout
        plan = cluster.deploy("--plan", "--json", str(path))
        assert json.loads(path.read_text())["changes"] is False, plan.stdout
        assert f"{PREFIX}.14" in users(cluster)
        assert all(backends(cluster, name) for name in ("lb1", "lb2"))
        done = cluster.runbook("drift.py", "--no-history", "--json", str(path))
        assert done.returncode == 3, done.stdout + done.stderr
        told = {one["id"]: one for one in json.loads(path.read_text())["differences"]}
        assert set(told) >= {"cluster/stranger:s3", "cluster/stranger:a2"}
        done = cluster.runbook("status.py", "--json", str(path))
        assert done.returncode == 1
        assert sum("not in the inventory" in one for one in json.loads(path.read_text())["problems"]) == 2
    cluster.deploy("--yes")
    assert cluster.processes() == before, "nothing has restarted"
    eventually(lambda: unchanged(cluster))
