"""Secrets are encrypted on a cluster that runs, get new keys, and are stored as they are again: none is ever lost."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from .balancers import away
from .conftest import Site, eventually, unchanged

SERVERS = ("s1", "s2", "s3")
KEYS = "/var/lib/rancher/k3s/server/cred/encryption-config.json"
NOTE = "/var/lib/nornir-k3s/encryption"


def setting(*, on: bool) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        server = data["data"]["k3s_cluster"]["server"]
        if on:
            server["secrets-encryption"] = True
        else:
            del server["secrets-encryption"]

    return change


def on_host(site: Site, name: str, script: str) -> str:
    return site.lab.exec(name, ["sh", "-c", script], check=False).stdout.strip()


def stage(site: Site, name: str) -> str:
    return on_host(site, name, "cut -d- -f1 /var/lib/rancher/k3s/server/cred/encryption-state.json 2>/dev/null")


class Secrets:
    """Secrets that are created through single servers, and that all servers must read."""

    def __init__(self, site: Site) -> None:
        self.site, self.made = site, list[str]()

    def make(self, server: str) -> None:
        name = f"secret-{uuid.uuid4().hex[:8]}"
        item = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"by": "czE="}})
        text = on_host(self.site, server, f"echo '{item}' | k3s kubectl create -f - 2>&1")
        assert "created" in text, text
        self.made.append(name)

    def read(self) -> None:
        for server in SERVERS:
            for name in self.made:
                text = on_host(self.site, server, f"k3s kubectl get secret {name} -o name 2>&1")
                assert text == f"secret/{name}", (server, text)

    def stored(self) -> dict[str, bool]:
        """Return which of them are encrypted in the datastore."""
        where = "name LIKE '/registry/secrets/%' AND deleted = 0 ORDER BY id"
        query = f"SELECT name, value LIKE 'k8s:enc:%' FROM k3s.kine WHERE {where}"  # noqa: S608 - no input
        rows = (line.split("\t") for line in on_host(self.site, "db1", f'mariadb -N -B -e "{query}"').splitlines())
        return {name.rsplit("/", 1)[1]: sealed == "1" for name, sealed in rows}


def killed(site: Site, runbook: tuple[str, ...], when: Callable[[], bool]) -> None:
    """Start a run, and kill it as soon as something holds; it is no failure if it ends before."""
    running = site.start(*runbook)

    def there() -> None:
        assert running.poll() is not None or when()

    try:
        eventually(there, deadline=300)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def told(site: Site) -> None:
    path = site.folder / "keys.json"
    done = site.runbook("drift.py", "--no-history", "--json", str(path))
    assert done.returncode == 3, done.stdout + done.stderr
    found = {one["id"] for one in json.loads(path.read_text())["differences"]}
    assert found & {"cluster/encryption:keys", "cluster/encryption:stage"}, found


def same_keys(site: Site, *, on: bool) -> None:
    assert len({on_host(site, name, f"sha256sum <{KEYS}") for name in SERVERS}) == 1
    for name in SERVERS:
        text = on_host(site, name, "k3s secrets-encrypt status 2>&1")
        assert f"Encryption Status: {'Enabled' if on else 'Disabled'}" in text, text
        assert "All hashes match" in text, text
        assert on_host(site, name, f"ls {NOTE}") == ""
    assert all(away(site, name) == set() for name in ("lb1", "lb2"))


@pytest.mark.matrix
def test_secrets_are_encrypted_and_decrypted_while_the_servers_run(cluster: Site) -> None:
    """Killed while one server has the keys, and again while they rotate, which `rotate` ends; then back."""
    secrets, deploy = Secrets(cluster), ("deploy.py", "--yes")
    for name in SERVERS:
        secrets.make(name)
    cluster.edit(setting(on=True))
    plan = cluster.deploy("--plan")
    assert "encryption of secrets is turned on" in plan.stdout, plan.stdout
    killed(cluster, deploy, lambda: stage(cluster, "s1") == "prepare")
    eventually(lambda: secrets.make("s1"))  # the killed run may have stopped it
    killed(cluster, deploy, lambda: stage(cluster, "s2") == "rotate")
    eventually(lambda: secrets.make("s3"))
    eventually(secrets.read)  # the server that the killed run has restarted may not be ready yet
    eventually(lambda: told(cluster))
    done = cluster.runbook("rotate.py", "encryption", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in SERVERS:
        secrets.make(name)
    eventually(secrets.read)
    stored = secrets.stored()
    assert {stored[name] for name in secrets.made} == {True}
    eventually(lambda: same_keys(cluster, on=True))
    eventually(lambda: unchanged(cluster))
    cluster.edit(setting(on=False))
    killed(cluster, deploy, lambda: not all(secrets.stored().get(name, True) for name in secrets.made))
    cluster.deploy("--yes")
    for name in SERVERS:
        secrets.make(name)
    eventually(secrets.read)
    stored = secrets.stored()
    assert {stored[name] for name in secrets.made} == {False}
    eventually(lambda: same_keys(cluster, on=False))
    eventually(lambda: unchanged(cluster))
