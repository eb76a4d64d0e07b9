"""Nodes leave the cluster, and come back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .conftest import PREFIX, Site, eventually, namespace, unchanged, unchanged_files


def users(site: Site) -> list[str]:
    """Return the addresses that users of the database come from."""
    query = "SELECT Host FROM mysql.user WHERE User LIKE 'k3s%'"
    return sorted(site.lab.exec("db1", ["mariadb", "-N", "-B", "-e", query]).stdout.split())


def backends(site: Site, balancer: str) -> str:
    return site.lab.exec(balancer, ["grep", "^    server s3 ", "/etc/haproxy/haproxy.cfg"], check=False).stdout


def told(site: Site, path: Path) -> None:
    """Drift and status tell of both; on a busy machine a host may be late once."""
    done = site.runbook("drift.py", "--no-history", "--json", str(path))
    assert done.returncode == 3, done.stdout + done.stderr
    found = {one["id"] for one in json.loads(path.read_text())["differences"]}
    assert found >= {"cluster/stranger:s3", "cluster/stranger:a2"}
    done = site.runbook("status.py", "--json", str(path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert sum("not in the inventory" in one for one in json.loads(path.read_text())["problems"]) == 2


def test_a_server_that_left_the_inventory_is_told_and_runs_on(cluster: Site) -> None:
    before = cluster.processes()
    path = cluster.folder / "left.json"
    with unchanged_files(cluster):
        cluster.edit(lambda hosts: [hosts.pop(name) for name in ("s3", "a2")], "hosts.yaml")
        for arguments in (("--plan",), ("--yes",)):
            done = cluster.deploy(*arguments)
            for what in ("server s3", "agent a2"):
                assert f"{what} is not in the inventory, and still a node of the cluster: K3s runs there" in done.stdout
        plan = cluster.deploy("--plan", "--json", str(path))
        assert json.loads(path.read_text())["changes"] is False, plan.stdout
        assert f"{PREFIX}.14" in users(cluster)
        assert all(backends(cluster, name) for name in ("lb1", "lb2"))
        eventually(lambda: told(cluster, path))
    assert "nothing to change" in cluster.deploy("--yes").stdout
    assert cluster.processes() == before, "nothing has restarted"


def made(site: Site, host: str) -> list[str]:
    """Return what is left on a host of K3s and of this tool."""
    paths = ("/usr/local/bin/k3s", "/etc/rancher/k3s", "/var/lib/rancher/k3s/server", "/var/lib/nornir-k3s")
    units = ("/etc/systemd/system/k3s.service", "/etc/systemd/system/k3s-agent.service")
    return site.lab.exec(host, ["sh", "-c", f"ls -d {' '.join((*paths, *units))} 2>/dev/null || :"]).stdout.split()


def test_what_would_break_the_cluster_is_refused(cluster: Site) -> None:
    for arguments, words in (
        (("s1", "s2", "s3", "--yes"), "no server would be left"),
        (("s3", "--yes", "--lost"), "s3 is Ready, so K3s runs there"),
        (("s3",), "there is no terminal to ask on"),
    ):
        done = cluster.runbook("remove.py", *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr


def test_a_server_and_dead_hosts_are_removed_and_come_back(cluster: Site) -> None:
    """The run that removes the server is killed, and run again; an agent and a load balancer are dead."""
    hosts = cluster.folder / "inventory" / "hosts.yaml"
    before, kept = cluster.processes(), hosts.read_text()
    cluster.lab.exec("a2", ["systemctl", "stop", "k3s-agent"])
    path = cluster.folder / "removal.json"
    done = cluster.runbook("remove.py", "s3", "--plan", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(path.read_text())
    assert plan["changes"]["s3"][:2] == ["drain node s3", "uninstall K3s with k3s-uninstall.sh"]
    assert any(f"@{PREFIX}.14" in one for one in plan["changes"]["db1"])
    killed = cluster.start("remove.py", "s3", "--yes")

    def uninstalled() -> None:
        assert "/usr/local/bin/k3s" not in made(cluster, "s3") or killed.poll() is not None

    eventually(uninstalled, deadline=300)
    killed.kill()
    killed.communicate()
    done = cluster.runbook("remove.py", "s3", "--yes", "--write")
    assert done.returncode == 0, done.stdout + done.stderr
    assert made(cluster, "s3") == []
    assert users(cluster) == [f"{PREFIX}.12", f"{PREFIX}.13"]
    assert not any(backends(cluster, name) for name in ("lb1", "lb2"))
    eventually(lambda: dead(cluster, "a2"))
    cluster.lab.poweroff("lb2", hard=True)
    done = cluster.runbook("remove.py", "a2", "lb2", "--yes", "--lost", "--write")
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: forgotten(cluster))
    assert not {"s3:", "lb2:"} & set(hosts.read_text().split())
    eventually(lambda: unchanged(cluster))
    cluster.lab.reset("lb2")
    now = cluster.processes()
    stayed = ("db1", "s1", "s2", "a1")
    assert {name: now[name] for name in stayed} == {name: before[name] for name in stayed}
    hosts.write_text(kept)
    cluster.deploy("--yes")
    assert users(cluster) == [f"{PREFIX}.{n}" for n in (12, 13, 14)]
    now = cluster.processes()
    assert {name: now[name] for name in stayed} == {name: before[name] for name in stayed}, "nothing else restarts"
    eventually(lambda: unchanged(cluster))


def forgotten(site: Site) -> None:
    assert set(site.nodes()) == {"s1", "s2", "a1"}
    secrets = site.kubectl("get", "secrets", "-n", "kube-system", "-o", "name").stdout
    assert "s1.node-password.k3s" in secrets
    assert not any(f"{name}.node-password.k3s" in secrets for name in ("s3", "a2"))


def dead(site: Site, name: str) -> None:
    assert not site.nodes()[name]


def old_databases(site: Site) -> set[str]:
    return set(site.lab.exec("db1", ["mariadb", "-N", "-B", "-e", "SHOW DATABASES LIKE 'k3s\\_%'"]).stdout.split())


def test_a_cluster_comes_back_from_a_backup(cluster: Site) -> None:
    """What was written since is gone; the first run of the restore is killed; agents go on."""
    folder, path = cluster.folder / "backups of a cluster that comes back", cluster.folder / "backup.json"
    before, databases = cluster.processes(), old_databases(cluster)
    eventually(lambda: namespace(cluster, "before"))
    done = cluster.runbook("backup.py", "--to", str(folder), "--keep", "1", "--verify", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(path.read_text())
    (file,) = folder.iterdir()
    assert (report["place"], report["verified"]) == (str(file), True)
    parts = {one["name"] for one in report["manifest"]["parts"]}
    assert {"datastore.sql.gz", "token", "servers/s1/config.yaml", "servers/s3/config.yaml"} <= parts
    script = "tar -xOf \"$1\" datastore.sql.gz | zcat | grep -cE '^(CREATE TABLE `kine`|-- Dump completed)'"
    assert (
        subprocess.run(["sh", "-c", script, "-", str(file)], capture_output=True, text=True, check=True).stdout == "2\n"
    )
    assert not cluster.lab.exec("db1", ["ls", "/var/lib/nornir-k3s/backup"]).stdout
    assert cluster.processes() == before
    eventually(lambda: namespace(cluster, "after"))
    planned = cluster.runbook("restore.py", str(file), "--plan")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "s2: stop K3s" in planned.stdout
    assert cluster.processes() == before
    killed = cluster.start("restore.py", str(file), "--yes")

    def stopped() -> None:
        state = cluster.lab.exec("s2", ["systemctl", "is-active", "k3s"], check=False).stdout
        assert state.strip() != "active" or killed.poll() is not None

    eventually(stopped, deadline=300)
    killed.kill()
    killed.communicate()
    done = cluster.runbook("restore.py", str(file), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    namespaces = cluster.kubectl("get", "namespaces", "-o", "name").stdout
    assert "namespace/before" in namespaces
    assert "namespace/after" not in namespaces
    assert [name.startswith("k3s_old_") for name in old_databases(cluster) - databases] == [True]
    now = cluster.processes()
    assert {name: now[name] for name in ("db1", "a1", "a2")} == {name: before[name] for name in ("db1", "a1", "a2")}
    eventually(lambda: unchanged(cluster))


TOKEN = "/var/lib/rancher/k3s/server/token"


def tokens(site: Site) -> dict[str, str]:
    """Return the token of each server."""
    found = {name: site.lab.exec(name, ["cat", TOKEN]).stdout.strip() for name in ("s1", "s2", "s3")}
    return {name: text.rpartition(":")[2] for name, text in found.items()}


def saved(site: Site) -> str:
    return (site.folder / ".state" / "lab" / "token").read_text().strip()


def all_have(site: Site, token: str) -> None:
    """Every server has this token and starts with it; the agents have what joins with it."""
    assert saved(site) == token
    assert tokens(site) == dict.fromkeys(("s1", "s2", "s3"), token)
    for name in ("s1", "s2", "s3", "a1", "a2"):
        config = site.lab.exec(name, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
        assert token in config, name
    assert all(site.nodes().values())
    eventually(lambda: unchanged(site))


def test_a_rotation_of_the_token_that_was_killed_is_finished_by_a_deploy(cluster: Site) -> None:
    before, path = tokens(cluster)["s1"], cluster.folder / "rotation.json"
    done = cluster.runbook("rotate.py", "token", "--plan", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["steps"][0] == {"hosts": ["db1"], "what": "dump the datastore"}
    assert tokens(cluster) == dict.fromkeys(("s1", "s2", "s3"), before)
    killed = cluster.start("rotate.py", "token", "--yes")

    def rotated() -> None:
        assert before not in tokens(cluster).values() or len(set(tokens(cluster).values())) > 1 or killed.poll()

    eventually(rotated, deadline=300)
    killed.kill()
    killed.communicate()
    new = tokens(cluster)["s1"]
    assert new != before
    cluster.deploy("--yes")
    all_have(cluster, new)
    kept = {path.read_text().strip(): path for path in (cluster.folder / ".state" / "lab").glob("token-*")}
    assert kept[before].stat().st_mode & 0o777 == 0o600
    assert new not in "".join(log.read_text() for log in (cluster.folder / ".state" / "lab").rglob("*.log"))


def test_a_rotation_that_was_begun_by_hand_is_finished_and_a_refused_one_healed(cluster: Site) -> None:
    """The second one is refused, and leaves another token on its server, whose K3s would not start any more."""
    cluster.lab.exec("s2", ["k3s", "token", "rotate"])
    new = tokens(cluster)["s2"]
    old = saved(cluster)
    refused = cluster.lab.exec("s3", ["sh", "-c", f"K3S_TOKEN={old} k3s token rotate"], check=False)
    assert refused.returncode == 1, refused.stdout
    assert len(set(tokens(cluster).values())) == 3
    cluster.lab.exec("s1", ["systemctl", "restart", "--no-block", "k3s"])  # it has the old one, and dies
    done = cluster.runbook("rotate.py", "token", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    all_have(cluster, new)
    for name in ("s1", "s3"):
        cluster.lab.exec(name, ["systemctl", "restart", "k3s"])
    eventually(lambda: unchanged(cluster))
